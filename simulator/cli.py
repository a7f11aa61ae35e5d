"""``icecap simulate``: simulated coolers without the rest: onto a broker of yours, or into a file.

An entry point: the machine's clock and its signals are read here. Nothing is invented here.
"""

import csv
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from protocol.clock import ScaledClock
from protocol.profile import builtin
from simulator.clinic import COOLERS_MAX, COOLERS_MIN, Clinic, plan_day
from simulator.faults import Fault, FaultKind, parse
from simulator.publish import Feed, Wire, payload
from simulator.world import World

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Simulated coolers and clinics.")

PROFILE = "icecap-cooler"
DAY_MS = 86_400_000
TICK_S = 0.05  # a row a second needs no finer step, also when time is hurried
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal's window was closed

CoolersOption = Annotated[int, typer.Option(help="How many machines.", min=COOLERS_MIN, max=COOLERS_MAX)]
SeedOption = Annotated[str, typer.Option(help="The same seed, the same history.")]
FromOption = Annotated[datetime, typer.Option("--from", help="UTC.", formats=["%Y-%m-%dT%H:%M"])]
FaultOption = Annotated[list[str] | None, typer.Option(help=f"KIND@FROM[-TO][:CIRCUIT][*STRENGTH], minutes; {', '.join(FaultKind)}.")]

MORNING = datetime(2026, 1, 12, 9, 10, tzinfo=UTC)


@app.command()
def publish(
    host: Annotated[str, typer.Argument(help="The clinic's broker.")],
    credentials: Annotated[Path, typer.Argument(help="Folder with ca.crt and SERIAL.crt, SERIAL.key of every cooler.")],
    *,
    port: Annotated[int, typer.Option(help="Its TLS port.", min=1, max=65535)] = 8883,
    coolers: CoolersOption = 4,
    seed: SeedOption = "icecap",
    start: FromOption = MORNING,
    speed: Annotated[int, typer.Option(help="How many times faster than life.", min=1, max=600)] = 1,
    fault: FaultOption = None,
) -> None:
    """Let coolers report to a broker until Ctrl-C; every fault strikes the first of them."""
    clinic = Clinic(seed, coolers)
    start_ms = _milliseconds(start)
    clock = ScaledClock(time.monotonic_ns, time.monotonic_ns(), start_ms, speed)
    profile = builtin(PROFILE)
    world = World(clinic, profile, start_ms=start_ms, faults=_faults(clinic, fault, start_ms))
    wire = Wire(host, port, credentials / "ca.crt", credentials)
    feeds = {one: Feed(one, wire, timer=time.monotonic, chance=random.Random(f"{seed}/{one}")) for one in clinic.serials}  # noqa: TID251
    with _until_stopped() as stopping:
        while not stopping.wait(TICK_S):
            for row in world.rows_until(clock.wall_ms()):
                feeds[row.serial].offer(row, payload(row, profile))
            for feed in feeds.values():
                feed.pump()
    for feed in feeds.values():
        feed.close()
        typer.echo(f"{feed.serial}: {feed.tally}")


@app.command()
def record(
    out: Annotated[Path, typer.Argument(help="A CSV file, - for standard output.")],
    *,
    seed: SeedOption = "icecap",
    start: FromOption = MORNING,
    minutes: Annotated[int, typer.Option(help="How long.", min=1, max=24 * 60)] = 60,
    fault: FaultOption = None,
) -> None:
    """Write what one cooler measures: a column a channel, in its unit; an empty cell is a missing sample."""
    profile, start_ms = builtin(PROFILE), _milliseconds(start)
    clinic = Clinic(seed, 1)
    world = World(clinic, profile, start_ms=start_ms, faults=_faults(clinic, fault, start_ms))
    with nullcontext(sys.stdout) if str(out) == "-" else out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_ms", *(channel.name for channel in profile.channels)])
        for row in world.rows_until(start_ms + minutes * 60_000):
            cells = zip(profile.channels, row.sample.codes, strict=True)
            writer.writerow([row.sample.ts_ms, *("" if code is None else channel.scale.format(code) for channel, code in cells)])


@app.command()
def day(*, coolers: CoolersOption = 4, seed: SeedOption = "icecap", start: FromOption = MORNING) -> None:
    """Print the timetable of a clinic's day."""
    clinic = Clinic(seed, coolers)
    for serial in clinic.serials:
        shift = plan_day(seed, serial, _milliseconds(start) // DAY_MS)
        typer.echo(f"{serial}  on {_clock(shift.on_ms)}  off {_clock(shift.off_ms)}  {shift.sessions} sessions")
        for number, circuit in enumerate(shift.circuits, 1):
            for segment in circuit:
                typer.echo(f"  circuit {number}  {_clock(segment.start_ms)}–{_clock(segment.end_ms)}  {segment.phase.name.lower()}")


def _faults(clinic: Clinic, texts: list[str] | None, origin_ms: int) -> dict[str, list[Fault]]:
    """The faults of the first cooler; one that means nothing ends the command."""
    try:
        return {clinic.serials[0]: [parse(text, origin_ms=origin_ms) for text in texts or ()]}
    except ValueError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error


def _milliseconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _clock(wall_ms: int) -> str:
    minutes = wall_ms % DAY_MS // 60_000
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_rest: stopping.set()) for number in STOP_SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
