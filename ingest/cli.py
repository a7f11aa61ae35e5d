"""``icecap ingest``: run the cloud side, look at it, bring its tables up to date. Starts things or asks; decides nothing.

Invariant: nothing heavy is imported for ``--help`` of the front door; ``run`` ends with 0 only when it was told to end.
"""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from ingest import deadletters_cli, projection_cli
from ingest.cli_options import BAD_CONFIG, ConfigOption, DatabaseOption, config_of, store_of
from ingest.schema import gap, stream
from ingest.store import StoreError

__all__ = ["app"]

DEFAULT_CONFIG = Path("/etc/icecap/ingest.toml")

app = typer.Typer(no_args_is_help=True, help="The cloud side: receive, store, project.")
app.add_typer(deadletters_cli.app, name="dead-letters")
app.add_typer(projection_cli.app, name="projection")

RequiredConfig = Annotated[Path, typer.Option("--config", "-c", help="The service's TOML file.")]


@app.command()
def run(
    config: RequiredConfig = DEFAULT_CONFIG, *, json_log: Annotated[bool, typer.Option(help="Log JSON, one object a line.")] = False
) -> None:
    """Run the service until SIGTERM or Ctrl-C. Brings the tables up to date first."""
    import os
    import random
    import signal
    import threading
    from types import FrameType

    from ingest.logs import set_up
    from ingest.service import STOP_S, Service, make_clock, make_timer

    set_up(as_json=json_log)
    checked = config_of(config)
    rng = random.Random()  # noqa: S311 - jitter, not secrets
    service = Service(checked, clock=make_clock(checked.clock), timer=make_timer(), rng=rng)

    def stop(_number: int, _frame: FrameType | None) -> None:
        # What is not acknowledged stays with the broker; waiting longer for a mute peer or a slow disk would only end in SIGKILL.
        deadline = threading.Timer(STOP_S - 0.2, os._exit, (1,))
        deadline.daemon = True
        deadline.start()
        service.ending.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        ended_well = service.run()
    except StoreError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(BAD_CONFIG) from error
    raise typer.Exit(0 if ended_well else 1)


@app.command()
def check(config: Annotated[Path, typer.Argument(help="The service's TOML file.")] = DEFAULT_CONFIG) -> None:
    """Check a configuration and the files it names; every error at once, code 78 when there is one."""
    checked = config_of(config)
    typer.echo(f"{config}: good; {len(checked.partitions)} partitions of {checked.broker.host}:{checked.broker.port}")


@app.command()
def migrate(database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Bring the tables to this version. Safe beside a running service of this version."""
    with store_of(database, config) as (store, _):
        before, wanted = store.version()
        store.migrate()
    typer.echo(f"{before or 'empty'} → {wanted}" if before != wanted else f"at {wanted}, nothing to do")


@app.command()
def status(config: RequiredConfig = DEFAULT_CONFIG) -> None:
    """Ask a running service how it is; code 1 when it is not well or does not answer."""
    from ingest.health import ask

    checked = config_of(config)
    if checked.health_socket is None:
        typer.secho("the configuration has no [health] socket", err=True, fg="red")
        raise typer.Exit(2)
    try:
        report = ask(checked.health_socket)
    except OSError as error:
        typer.secho(f"no answer from {checked.health_socket}: {error.strerror or error}; is it running?", err=True, fg="red")
        raise typer.Exit(1) from error
    table = Table("part", "", "numbers", "why", title=f"icecap ingest {report.version}")
    for name, part in report.parts.items():
        numbers = ", ".join(f"{key} {value:g}" for key, value in part.numbers.items())
        table.add_row(name, "[green]ok[/]" if part.ok else "[red]not ok[/]", numbers, part.why)
    Console().print(table)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def streams(database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Show where every gateway's streams stand: what is accounted for, what is missing."""
    missing = select(func.coalesce(func.sum(gap.c.last - gap.c.first + 1), 0)).where(
        gap.c.gateway == stream.c.gateway, gap.c.stream == stream.c.stream
    )
    query = select(stream, missing.scalar_subquery().label("missing")).order_by(stream.c.gateway, stream.c.lane, stream.c.first_ms)
    table = Table("gateway", "lane", "stream", "up to", "top", "missing", "stored", "duplicates", "last heard")
    with store_of(database, config) as (store, _), store.reading() as connection:
        for row in connection.execute(query):
            last = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.last_ms / 1000))
            numbers = (row.stream, row.up_to, row.top, row.missing, row.records, row.duplicates)
            table.add_row(row.gateway, row.lane, *(str(one) for one in numbers), last)
    Console().print(table)
