"""``icecap ingest dead-letters …``: what was refused or parked, why, and try it again. Works beside a running service.

Invariant: a retry goes through the same ``apply_batch`` as any message; what is not accepted stays where it was.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ingest import deadletters
from ingest.apply import apply_batch
from ingest.cli_options import ConfigOption, DatabaseOption, store_of
from ingest.intake import Outcome
from ingest.profiles import Profiles

__all__ = ["app"]

ROWS_SHOWN_MAX = 50  # a screenful; the counts above the table are exact
BYTES_SHOWN_MAX = 256  # the head of a frame and the beginning of its body

app = typer.Typer(no_args_is_help=True, help="Messages that were refused or parked: look, try again, close.")

Reason = Annotated[str | None, typer.Option("--reason", help="Only those of one reason, for example bad_checksum.")]


@app.command("list")
def show_list(database: DatabaseOption = None, config: ConfigOption = None, reason: Reason = None) -> None:
    """List the open ones, newest first, and how many there are of each reason."""
    with store_of(database, config) as (store, _), store.reading() as connection:
        counts, shed = deadletters.counts(connection), deadletters.shed(connection)
        letters = deadletters.newest(connection, limit=ROWS_SHOWN_MAX, reason=reason)
    console = Console()
    console.print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "no dead letters")
    if shed:
        console.print(f"not written because {deadletters.DEAD_LETTERS_MAX} were open: {shed}")
    if not letters:
        return
    table = Table("id", "reason", "detail", "gateway", "topic", "bytes", "times", "last")
    for one in letters:
        last = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.last_ms / 1000))
        table.add_row(str(one.id), one.reason, one.detail, one.gateway, one.topic, str(one.size), str(one.times), last)
    console.print(table)


@app.command()
def show(
    letter: Annotated[int, typer.Argument(help="Its id.")],
    database: DatabaseOption = None,
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the bytes to a file, for icecap block dump.")] = None,
) -> None:
    """Show one: why, how often, and the beginning of its bytes."""
    with store_of(database, config) as (store, _), store.reading() as connection:
        found = deadletters.find(connection, letter)
    if found is None:
        typer.secho(f"there is no dead letter {letter}", err=True, fg="red")
        raise typer.Exit(1)
    one, data = found
    console = Console()
    for name in one.__slots__:
        value = getattr(one, name)
        console.print(f"{name:>12}  {value.hex() if isinstance(value, bytes) else value}", markup=False, highlight=False)
    if data is None:
        console.print("the bytes were not kept")
        return
    if out is not None:
        out.write_bytes(data)
        console.print(f"{len(data)} bytes in {out}", markup=False)
    shown = data[:BYTES_SHOWN_MAX]
    for at in range(0, len(shown), 32):
        console.print(f"{at:6}  {shown[at : at + 32].hex(' ', 4)}", markup=False, highlight=False)


@app.command()
def retry(
    letters: Annotated[list[int] | None, typer.Argument(help="Their ids; none: all.")] = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    reason: Reason = None,
) -> None:
    """Try refused and parked messages again, for example after an upgrade or after a gateway was registered."""
    now_ms = time.time_ns() // 1_000_000
    outcomes: Counter[str] = Counter()
    with store_of(database, config) as (store, checked):
        profiles = checked.profiles if checked else Profiles()
        with store.reading() as connection:
            waiting = deadletters.retryable(connection, ids=letters, reason=reason)
        for one in waiting:
            with store.transaction() as connection:
                applied = apply_batch(connection, [one.message], profiles=profiles, now_ms=now_ms)
                outcome = applied.outcomes[0]
                if outcome not in {Outcome.REFUSED, Outcome.PARKED, Outcome.ELSEWHERE}:
                    deadletters.resolve(connection, one, now_ms=now_ms)
            outcomes[outcome.value] += 1
    typer.echo(", ".join(f"{name}: {count}" for name, count in sorted(outcomes.items())) or "nothing to try again")


@app.command()
def close(
    letters: Annotated[list[int], typer.Argument(help="Their ids.")], database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Close dead letters that need no retry; what is parked stays parked."""
    with store_of(database, config) as (store, _), store.transaction() as connection:
        closed = deadletters.forget(connection, letters, now_ms=time.time_ns() // 1_000_000)
    typer.echo(f"closed: {closed}")
