"""The front door: one command, ``icecap``, that mounts the command lines of the packages. Holds no logic of its own.

Invariant: mounting is lazy. ``icecap edge run`` must not load FastAPI, SQLAlchemy or the simulator: the gateway is a small machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final  # Any: typer's command types are private to it

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["app", "main"]

# verb → (module, attribute, one line of help, extra that installs what it needs)
MOUNTS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "edge": ("edge.cli", "app", "The gateway in the clinic: run it, look at it.", "edge"),
    "ingest": ("ingest.cli", "app", "The cloud side: receive, store, project.", "cloud"),
    "courses": ("ingest.billing.courses_cli", "app", "Courses of treatment: open one, say who pays, see how it stands.", "cloud"),
    "tokens": ("ingest.billing.tokens_cli", "app", "Tokens: keys, minting, looking at one, replacing, voiding.", "cloud"),
    "console": ("dashboards.console.cli", "app", "The web console for service teams, finance and fleet managers.", "cloud"),
    "dashboards": ("dashboards.cli", "app", "Grafana dashboards: build the JSON, push it.", "cloud"),
    "provision": ("provisioning.cli", "app", "Certificates, broker configuration, gateway bundles.", "cloud"),
    "simulate": ("simulator.cli", "app", "Simulated coolers and clinics.", "sim"),
    "demo": ("simulator.demo_cli", "app", "Everything at once on this machine: brokers, gateway, cloud, console, coolers.", "sim"),
    "bench": ("simulator.bench.cli", "app", "Measure the kernels beside what one can install.", "sim"),
    "block": ("edge.block_cli", "app", "Read a frame: what is in it, in words or JSON.", "edge"),
    "doctor": ("provisioning.doctor_cli", "app", "What is installed, reachable, behind; and what to do about it.", "cloud"),
}

OURS: Final = frozenset({"dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator"})


class LazyGroup(TyperGroup):
    """A command group that imports a package's command line only when its verb is used."""

    _listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the list of verbs without loading what is behind them."""
        self._listing = True
        super().format_help(ctx, formatter)
        self._listing = False

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the verbs in reading order."""
        return list(MOUNTS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command behind a verb, importing its package now; a stand-in with the same help while only the list is printed."""
        if cmd_name not in MOUNTS:
            return None
        module, attribute, help_text, extra = MOUNTS[cmd_name]
        if self._listing or ctx.resilient_parsing:
            return TyperCommand(cmd_name, help=help_text)
        try:
            mounted = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] in OURS:
                raise
            typer.secho(
                f"icecap {cmd_name} needs {error.name!r}, which is not installed: pip install 'icecap[{extra}]'", err=True, fg="red"
            )
            raise typer.Exit(2) from error
        command = typer.main.get_command(mounted)
        command.name, command.help = cmd_name, help_text
        return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Icecap: what scalp coolers say, kept safe from the clinic to the invoice. It informs; it never controls a machine.",
    epilog="Start with: icecap demo",
)


@app.callback()
def _root() -> None:
    """Mount the verbs; there is nothing to do before them."""


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
