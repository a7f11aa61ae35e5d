"""``icecap edge``: run the gateway, look at it, check its configuration. Not the agent: it only starts one or asks one.

Invariant: nothing heavy is imported for ``--help``; ``run`` ends with the code that says why (``edge.agent.Exit``).
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

DEFAULT_CONFIG = Path("/etc/icecap/edge.toml")

app = typer.Typer(no_args_is_help=True, help="The gateway in the clinic: run it, look at it.")
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The gateway's TOML file.")]


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG, *, json_log: Annotated[bool, typer.Option(help="Log JSON, one object a line.")] = False
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    import asyncio
    import os
    import threading

    import structlog

    from edge.agent import Exit
    from edge.config import ConfigError, load
    from edge.logs import set_up
    from edge.service import STOP_S, serve

    set_up(as_json=json_log)
    try:
        checked = load(config)
    except ConfigError as error:
        typer.secho(f"{config}: {len(error.errors)} error(s)", err=True, fg="red")
        for one in error.errors:
            typer.echo(f"  {one}", err=True)
        raise typer.Exit(Exit.CONFIG) from error

    def give_up() -> None:
        # Everything that was acknowledged is on disk; waiting longer for a mute peer or a slow disk would only end in SIGKILL.
        deadline = threading.Timer(STOP_S - 0.2, os._exit, (Exit.OK,))
        deadline.daemon = True
        deadline.start()

    try:
        code = asyncio.run(serve(config, checked, on_stopping=give_up))
    except Exception as error:
        structlog.get_logger("edge.cli").exception("agent_failed")
        raise typer.Exit(Exit.BUG) from error
    raise typer.Exit(code)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="The gateway's TOML file.")] = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Check a configuration and the files it names; every error at once, code 78 when there is one."""
    import msgspec
    from rich.console import Console

    from edge.agent import Exit
    from edge.config import ConfigError, load

    try:
        checked = load(config)
    except ConfigError as error:
        if as_json:
            typer.echo(msgspec.json.encode({"ok": False, "errors": error.errors}))
        else:
            console = Console(stderr=True)
            console.print(f"[red]{config}: {len(error.errors)} error(s)[/]")
            for one in error.errors:
                console.print(f"  {one}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(Exit.CONFIG) from error
    summary = {
        "ok": True,
        "gateway": checked.gateway,
        "site": checked.site,
        "devices": len(checked.devices),
        "sources": [*(source.name for source in checked.mqtt), *(source.name for source in checked.replay)],
        "digest": checked.digest.hex(),
    }
    if as_json:
        typer.echo(msgspec.json.encode(summary))
    else:
        coolers = f"{len(checked.devices)} coolers, digest {checked.digest.hex()[:16]}"
        Console().print(f"[green]{config} is in order[/]: {checked.gateway} at {checked.site}, {coolers}")


@app.command()
def status(
    socket: Annotated[Path | None, typer.Option("--socket", help="The agent's health socket.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Ask the running gateway how it is; code 0 when every part is in order, 1 when not, 69 when nobody answers."""
    from rich.console import Console

    from edge.agent import Exit
    from edge.asking import ask, socket_of, table_of
    from edge.errors import EdgeError
    from edge.health import decode_report

    try:
        path = socket or socket_of(config)
        body = ask(path, "/healthz")
        report = decode_report(body)
    except EdgeError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(Exit.SOURCE) from error
    if as_json:
        typer.echo(body)
    else:
        Console().print(table_of(report))
    raise typer.Exit(0 if report.ok else 1)
