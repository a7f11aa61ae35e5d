"""``icecap ingest projection …``: where the projections are, rewind them, and what they left out. Works beside a running service.

Invariant: nothing here touches evidence; a rewind only makes a projection write again what it has written before.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, func, select, update

from ingest import rollup
from ingest.influx import gateways, projector
from ingest.projection import RejectReason, newest_arrival, place_cursor, position, waiting_rejects
from ingest.schema import block, projection_reject
from ingest.store import Store

__all__ = ["app", "arrival_of"]

NAMES = (projector.NAME, rollup.NAME, gateways.NAME)
REWINDABLE = (projector.NAME, rollup.NAME)
ROWS_SHOWN_MAX = 50  # a screenful; the count above the table is exact
UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

app = typer.Typer(no_args_is_help=True, help="Projections: where they are, rewind, what they left out.")

Database = Annotated[str, typer.Option("--database", envvar="DATABASE_URL", help="SQLAlchemy address of the cloud's store.")]
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a projection is."""

    name: str
    arrival: int | None
    behind: int
    rejects: int


def places(connection: Connection) -> list[Place]:
    """Return where each projection is and how many blocks it has before it."""
    found = []
    for name in NAMES:
        here = position(connection, name)
        behind = connection.execute(select(func.count()).select_from(block).where(block.c.arrival > (here or 0))).scalar_one()
        found.append(Place(name, here, int(behind), waiting_rejects(connection, name)))
    return found


def arrival_of(connection: Connection, to: str) -> int:
    """Return the cursor for ``--to``: ``start``, an arrival number, an age (``15m``, ``2h``, ``7d``) or a UTC time (``2026-01-31T08:00``).

    A time means: write again everything received since; an age counts back from the newest record, so that it means the same under a
    demonstration's clock. Raises ``ValueError`` for anything else.
    """
    newest = newest_arrival(connection)
    if to == "start":
        return 0
    if to.isdecimal():
        if int(to) > newest:
            raise ValueError(f"{to} is beyond the newest record, {newest}")
        return int(to)
    newest_ms = connection.execute(select(block.c.received_ms).order_by(block.c.arrival.desc()).limit(1)).scalar()
    since_ms = _since_ms(to, newest_ms or 0)
    first = connection.execute(select(func.min(block.c.arrival)).where(block.c.received_ms >= since_ms)).scalar()
    return newest if first is None else int(first) - 1


def _since_ms(text: str, newest_ms: int) -> int:
    if text[-1:] in UNITS_MS and text[:-1].isdecimal():
        return newest_ms - int(text[:-1]) * UNITS_MS[text[-1]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--to {text!r} is neither start, a number, an age like 15m nor a time like 2026-01-31T08:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@app.command()
def status(database: Database) -> None:
    """Show where each projection is."""
    table = Table("projection", "at record", "blocks behind", "left out")
    store = Store.open(database)
    with store.reading() as connection:
        for place in places(connection):
            table.add_row(place.name, "never ran" if place.arrival is None else str(place.arrival), str(place.behind), str(place.rejects))
    store.close()
    Console().print(table)


@app.command()
def rewind(
    name: Name,
    database: Database,
    to: Annotated[str, typer.Option("--to", help="start, a record number, an age (15m, 2h, 7d) or a UTC time (2026-01-31T08:00).")],
) -> None:
    """Make a projection write again. InfluxDB overwrites the same points; the roll-up can only be rebuilt from the start."""
    if name not in REWINDABLE:
        _fail(f"{name!r} cannot be rewound; these can: {', '.join(REWINDABLE)}")
    if name == rollup.NAME and to != "start":
        _fail("sums cannot be rewound halfway: use --to start, which empties the table and counts again")
    now_ms = time.time_ns() // 1_000_000
    store = Store.open(database)
    try:
        with store.transaction() as connection:
            here, arrival = position(connection, name), arrival_of(connection, to)
            if name == rollup.NAME:
                rollup.rebuild(connection, now_ms=now_ms)
            else:
                place_cursor(connection, name, arrival=arrival, now_ms=now_ms)
    except ValueError as error:
        _fail(str(error))
    finally:
        store.close()
    typer.echo(f"{name}: record {here or 0} → {arrival}")


@app.command()
def rejects(name: Name, database: Database) -> None:
    """Show what a projection left out and why; the blocks themselves are in the store."""
    mine = (projection_reject.c.projection == name) & projection_reject.c.resolved_ms.is_(None)
    query = select(projection_reject).where(mine).order_by(projection_reject.c.id.desc()).limit(ROWS_SHOWN_MAX)
    table = Table("record", "gateway", "stream", "seq", "reason", "what was said", "line", show_lines=True)
    store = Store.open(database)
    with store.reading() as connection:
        total = waiting_rejects(connection, name)
        for row in connection.execute(query):
            table.add_row(str(row.arrival), row.gateway, str(row.stream), str(row.seq), row.reason, row.detail, row.line[:120])
    store.close()
    typer.echo(f"{name}: {total} left out")
    if total:
        Console().print(table)


@app.command()
def retry(name: Name, database: Database) -> None:
    """Have everything that a projection left out tried once more by the running service."""
    mine = (projection_reject.c.projection == name) & projection_reject.c.resolved_ms.is_(None)
    store = Store.open(database)
    with store.transaction() as connection:
        count = connection.execute(update(projection_reject).where(mine).values(reason=RejectReason.RETRY.value)).rowcount
    store.close()
    typer.echo(f"{name}: {count} will be tried again")


def _fail(message: str) -> None:
    typer.secho(message, err=True, fg="red")
    raise typer.Exit(2)
