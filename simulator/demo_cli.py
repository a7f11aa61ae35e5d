"""``icecap demo``: the entry point of the demonstration. The machine's clocks and signals are read here; what is drawn is drawn here.

Invariant: ``--help`` loads no database; what needs one is imported when it runs.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from protocol.clock import MachineClock
from simulator import report as reports
from simulator.clinic import COOLERS_MAX, COOLERS_MIN, Clinic
from simulator.faults import HOUR_MS, Fault, parse, surprise

if TYPE_CHECKING:
    from simulator.demo import Progress
    from simulator.stage import Stage

__all__ = ["app"]

app = typer.Typer(help="Everything at once on this machine: brokers, gateway, cloud, console, coolers.")

PLAIN_S = 5.0  # between lines where there is no terminal to draw on
RATE_S = 2.0  # over which rates are taken
GATEWAYS_MAX = 8  # each is a process of its own on this machine
SCALE_MAX = 600  # beyond this the machine, not the path, is what is measured
SURPRISE = "surprise"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal's window was closed


@app.command()
def demo(
    *,
    seconds: Annotated[float | None, typer.Option("--for", help="Stop after so many real seconds; without it: Ctrl-C.", min=1)] = None,
    report: Annotated[Path | None, typer.Option(help="Write what happened as JSON.")] = None,
    coolers: Annotated[int, typer.Option(help="How many machines.", min=COOLERS_MIN, max=COOLERS_MAX)] = 4,
    gateways: Annotated[int, typer.Option(help="How many gateways share them.", min=1, max=GATEWAYS_MAX)] = 1,
    speed: Annotated[int, typer.Option(help="How many times faster than life.", min=1, max=SCALE_MAX)] = 60,
    seed: Annotated[str, typer.Option(help="The same seed, the same day.")] = "icecap",
    folder: Annotated[Path | None, typer.Option("--dir", help="Keep everything in this new folder; without it nothing is left.")] = None,
    kill: Annotated[
        str, typer.Option(help="kill -9 in mid-run: NAME@SECONDS,… of ingest gateway cloud-broker clinic-broker console.")
    ] = "",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="SERIAL/KIND@FROM[-TO][:CIRCUIT][*STRENGTH], in the coolers' minutes, or SERIAL/surprise; repeat."),
    ] = None,
) -> None:
    """Simulated coolers report through real brokers, a real gateway and real ingest onto the console, at sixty times real speed.

    With DATABASE_URL, INFLUX_URL (and INFLUX_API, INFLUX_BUCKET, INFLUX_ORG, INFLUX_TOKEN) the real services are used.
    """
    from simulator.demo import Demo, parse_kills
    from simulator.stage import Settings, StageError
    from simulator.supervisor import SupervisorError

    screen = Console()
    stopping = threading.Event()
    view = _View(screen)
    settings = Settings(
        folder=folder or Path(), sockets=Path(), coolers=coolers, gateways=gateways, scale=speed, seed=seed, environment=dict(os.environ)
    )
    try:
        _refuse_used(folder)
        made = Demo(
            settings=settings,
            machine=MachineClock(time.time_ns, time.monotonic_ns, lambda: True),
            timer=time.monotonic,  # noqa: TID251 - an entry point
            wait=stopping.wait,
            say=view.say,
            show=view.show,
            announce=view.announce,
            kills=parse_kills(kill),
            faults=_faults(fault or [], Clinic(seed, coolers)),
        )
        with _ending(stopping), view.drawing():
            outcome = made.run(seconds)
    except (StageError, SupervisorError, ValueError) as error:
        screen.print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(1) from error
    if report:
        reports.write(outcome, report)
    _summary(screen, outcome)
    if outcome.lost or outcome.twice or outcome.unreadable_blocks:
        raise typer.Exit(3)


def _refuse_used(folder: Path | None) -> None:
    from simulator.stage import StageError

    if folder and folder.exists() and any(folder.iterdir()):
        raise StageError(f"{folder} is not empty; name a new folder")


def _faults(texts: list[str], clinic: Clinic) -> dict[str, list[Fault]]:
    from simulator.stage import START_WALL_MS

    found: dict[str, list[Fault]] = {}
    for text in texts:
        serial, slash, rest = text.partition("/")
        if not slash or serial not in clinic.serials:
            raise ValueError(f"fault {text!r}: begins with one of {', '.join(clinic.serials)} and a slash")
        seed = f"{clinic.seed}/{serial}/surprise"
        fault = (
            surprise(seed, start_ms=START_WALL_MS, end_ms=START_WALL_MS + HOUR_MS)
            if rest == SURPRISE
            else parse(rest, origin_ms=START_WALL_MS)
        )
        found.setdefault(serial, []).append(fault)
    return found


@contextmanager
def _ending(stopping: threading.Event) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the run in order; a second Ctrl-C ends it at once, and even then the children go."""

    def stop(_number: int, _frame: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _View:
    """What the person sees: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._live: Live | None = None
        self._before: Progress | None = None
        self._rates = (0.0, 0.0)
        self._said_s = 0.0

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw on a terminal while the block runs."""
        if not self._screen.is_terminal:
            yield
            return
        with Live(console=self._screen, refresh_per_second=8, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def say(self, text: str) -> None:
        self._screen.print("[dim]·[/]", Text(text), soft_wrap=True)

    def announce(self, stage: "Stage") -> None:
        from simulator.stage import LOGIN

        self._screen.print(f"\n  console  [bold cyan]{stage.console_url}[/]", highlight=False, soft_wrap=True)
        self._screen.print(f"  login    [bold]{LOGIN}[/]   password [bold]{stage.password}[/]\n", highlight=False, soft_wrap=True)
        self._screen.print(f"[dim]{len(stage.clinic.serials)} coolers at {stage.settings.scale} times real speed; Ctrl-C ends it[/]")

    def show(self, progress: "Progress") -> None:
        before = self._before
        if before is None or progress.seconds - before.seconds >= RATE_S:
            if before:
                span_s = progress.seconds - before.seconds
                self._rates = ((progress.made - before.made) / span_s, (progress.in_cloud - before.in_cloud) / span_s)
            self._before = progress
        if self._live:
            self._live.update(self._table(progress))
        elif progress.seconds - self._said_s >= PLAIN_S:
            self._said_s = progress.seconds
            self._screen.print(
                f"{progress.seconds:6.1f} s  sent {progress.made}  acknowledged {progress.acknowledged}  under way {progress.underway}"
                f"  in the cloud {progress.in_cloud}",
                highlight=False,
                soft_wrap=True,
            )

    def _table(self, progress: "Progress") -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("", "rows", "rows/s"):
            table.add_column(title, justify="left" if not title else "right")
        table.add_row("sent by coolers", f"{progress.made:,}", f"{self._rates[0]:,.0f}")
        table.add_row("acknowledged to them", f"{progress.acknowledged:,}", "")
        table.add_row("waiting in coolers", f"{progress.kept:,}", "")
        table.add_row("under way (queues, outbox)", f"{progress.underway:,}", "")
        table.add_row("[bold]in the cloud[/]", f"[bold]{progress.in_cloud:,}[/]", f"{self._rates[1]:,.0f}")
        table.add_row("blocks", f"{progress.blocks:,}", "")
        restarted = ", ".join(f"{name} {count}" for name, count in progress.restarts.items() if count)
        table.caption = f"{progress.seconds:.0f} s" + (f" · restarted: {restarted}" if restarted else "")
        return table


def _summary(screen: Console, outcome: reports.Report) -> None:
    colour = "red" if outcome.lost or outcome.twice else "green"
    screen.print(
        f"sent {outcome.readings_sent:,} · acknowledged {outcome.readings_acknowledged:,} · in the cloud {outcome.rows_received:,} in"
        f" {outcome.blocks_received:,} blocks · [{colour}]lost {outcome.lost} · twice {outcome.twice}[/] ·"
        f" sensor to store p50 {outcome.latency_p50_ms:.0f} ms, p99 {outcome.latency_p99_ms:.0f} ms",
        highlight=False,
        soft_wrap=True,
    )
