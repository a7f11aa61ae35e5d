"""Measure the projections on this machine: blocks and points a second into nothing, into InfluxDB 1.6.7, and into the one-minute table.

    python scripts/measure_projection.py [BLOCKS]

Fifty machines of the built-in profile (21 channels, 37 fields a point), blocks of sixty rows, a SQLite store. Wall time depends on who else
uses the machine; processor time of this process does much less. Prints a table; writes only into a temporary folder.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import delete

import native
from ingest.influx import InfluxProjection, InfluxSettings, Sink, open_sink
from ingest.influx.sink import Refused
from ingest.profiles import Profiles
from ingest.rollup import RollupProjection
from ingest.schema import cursor
from ingest.store import Store
from protocol.clock import ManualClock
from provisioning.programs import find_program
from tests.ingest.conftest import register
from tests.support.blocks import START_MS, Machine, make_frame, make_rows, put
from tests.support.services import make_influxd

MACHINES = 50
ROWS = 60


class Nowhere:
    """A sink that costs nothing."""

    def write(self, _body: bytes) -> Refused | None:
        """Take it."""
        return None

    def close(self) -> None:
        """Nothing open."""


def timed(step: Callable[[], int]) -> tuple[int, float, float]:
    """Run steps until there is nothing left: blocks, seconds of wall and of processor."""
    wall, processor, blocks = time.perf_counter(), time.process_time(), 0
    while passed := step():
        blocks += passed
    return blocks, time.perf_counter() - wall, time.process_time() - processor


def fill(store: Store, blocks: int) -> None:
    """Blocks as they come from a fleet: each minute one of each machine."""
    frames = [
        make_frame(make_rows(t0_ms=START_MS + minute * 60_000, seed=minute * MACHINES + number), seq=minute + 1, machine=machine)
        for minute in range(blocks // MACHINES)
        for number in range(MACHINES)
        for machine in (Machine(f"cooler-{number:04d}", stream=number + 1),)
    ]
    for first in range(0, len(frames), 200):
        put(store, frames[first : first + 200])


def main(blocks: int) -> int:
    """Measure and print."""
    executable = find_program("influxd")
    table = Table("what", "blocks/s", "points/s", "values/s", "processor ms a block")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store.open(f"sqlite:///{folder / 'cloud.db'}")
        store.migrate()
        register(store)
        fill(store, blocks)
        sinks: list[tuple[str, Sink]] = [("to nothing", Nowhere())]
        server = make_influxd(executable, folder / "influxd") if executable else None
        if server:
            server.start()
            server.create_database("icecap")
            sinks += [
                (
                    f"to InfluxDB 1.6.7{' with gzip' if packed else ''}",
                    open_sink(InfluxSettings(server.url, "icecap", api="v1", gzip=packed)),
                )
                for packed in (False, True)
            ]
        for what, sink in sinks:
            with store.transaction() as connection:
                connection.execute(delete(cursor))
            one = InfluxProjection(store, sink, profiles=Profiles().find, clock=ManualClock())
            passed, wall, processor = timed(one.step)
            points = one.totals.points
            table.add_row(
                what, f"{passed / wall:.0f}", f"{points / wall:.0f}", f"{points * 37 / wall:.0f}", f"{processor / passed * 1000:.2f}"
            )
            one.close()
        passed, wall, processor = timed(RollupProjection(store, profiles=Profiles().find, clock=ManualClock()).step)
        table.add_row("one-minute table", f"{passed / wall:.0f}", f"{passed * ROWS / wall:.0f}", "", f"{processor / passed * 1000:.2f}")
        if server:
            server.stop()
        store.close()
    Console().print(f"kernels: {native.BACKEND}", table)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000))
