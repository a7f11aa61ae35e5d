"""What the outbox costs, printed: ``python -m tests.edge.measure_outbox [append | start | slow | drain]``. The timings are this machine's.

``slow`` needs strace and delays every sync by 50 ms, as an SD card does.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge.outbox import Limits, Outbox
from edge.uplink import UplinkLimits
from protocol.topics import Lane, Leaf
from tests.support.cloud import Cloud, consuming
from tests.support.mtls import make_tls_broker
from tests.support.outbox import GATEWAY, host, make_fact, make_row, make_rows, open_store
from tests.support.services import eventually
from tests.support.uplink import WORKER, config_for, running, waiting

ROWS = 2000
DRAIN_BLOCKS = 1500
START_BLOCKS = 2600  # of some 50 KB: 128 MiB; the check is bounded in time, so more changes little


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def rate(count: int, work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def append(folder: Path, rows: int = ROWS) -> None:
    """Rows a second: one a commit, and fifty."""
    store = open_store(folder, limits=Limits(ballast_bytes=0))
    single = make_rows(range(1, rows + 1))
    say(f"1 row a commit     {rate(rows, lambda: [store.append_groups([[row]]) for row in single]):8.0f} rows/s")
    grouped = make_rows(range(rows + 1, 6 * rows + 1))
    parts = [grouped[at : at + 50] for at in range(0, len(grouped), 50)]
    say(f"50 rows a commit   {rate(5 * rows, lambda: [store.append_groups([part]) for part in parts]):8.0f} rows/s")
    facts = max(10, rows // 10)
    say(f"facts, one by one  {rate(facts, lambda: [store.append_fact(Lane.METERING, make_fact(n)) for n in range(facts)]):8.0f} facts/s")
    blocks = 0
    begun = time.perf_counter()
    blocks = store.seal_all()
    say(f"sealing            {6 * rows / (time.perf_counter() - begun):8.0f} rows/s in {blocks} blocks")
    store.close()


def facade(folder: Path, rows: int) -> None:
    """What sources see through the writer thread, and how long a fact waits among them."""
    outbox = Outbox.open(folder, host(), Limits(ballast_bytes=0, commit_interval_ms=200))
    begun = time.perf_counter()
    futures = [outbox.append_rows([make_row(counter)]) for counter in range(1, rows + 1)]
    waited: list[float] = []
    for number in range(5):
        asked = time.perf_counter()
        outbox.append_fact(Lane.METERING, make_fact(number)).result(60)
        waited.append(time.perf_counter() - asked)
    for one in futures:
        one.result(60)
    took = time.perf_counter() - begun
    say(f"group commit       {rows / took:8.0f} rows/s; facts among them waited {max(waited) * 1000:.0f} ms at most")
    outbox.close()


def start(folder: Path) -> None:
    """How soon a store with a backlog accepts a row again after the process was killed."""
    from tests.edge.test_outbox_bounds import wide_rows

    store = open_store(folder, limits=Limits(ballast_bytes=0))
    for number in range(START_BLOCKS):
        store.append_groups([wide_rows(1 + 60 * number, 60)])
        store.seal_all()
    size = (folder / "outbox.db").stat().st_size
    store._lock.release()  # as if killed: nothing is checkpointed, nothing is closed
    store._database._connection = None
    begun = time.perf_counter()
    again = open_store(folder, limits=Limits(ballast_bytes=0), seed=2)
    again.append_groups([[make_row(10**9)]])
    say(f"{size / 2**20:.0f} MiB of outbox: a row accepted {time.perf_counter() - begun:.2f} s after the start")
    again.close()


def drain(folder: Path) -> None:
    """How fast a backlog of one-minute blocks goes to a real broker and its consumer, and what a fact among it waits."""
    broker = make_tls_broker(Path(shutil.which("mosquitto") or "/usr/sbin/mosquitto"), folder / "cloud", gateways=[GATEWAY])
    broker.service.start()
    shown = broker.credentials(GATEWAY)
    cloud = Cloud(GATEWAY, broker.port, broker.credentials(WORKER))
    outbox = Outbox.open(folder / "outbox", host(), Limits(ballast_bytes=0, commit_interval_ms=1))
    for number in range(DRAIN_BLOCKS):
        outbox.append_rows(make_rows(range(1, 61), source_boot=number)).result(60)
    outbox.seal_all().result(60)

    async def main() -> None:
        begun = time.perf_counter()
        async with running(config_for(broker.port, shown), outbox, UplinkLimits(start_delay_s=0)):
            await eventually(lambda: len(cloud.arrivals) > DRAIN_BLOCKS // 2, 60)
            asked = time.monotonic()
            await asyncio.wrap_future(outbox.append_fact(Lane.METERING, make_fact(1)))
            await eventually(lambda: waiting(outbox) == 0, 60)
            took = time.perf_counter() - begun
        late = next(one.at_s for one in cloud.arrivals if one.leaf == Leaf.METERING) - asked
        real_time = DRAIN_BLOCKS / took * 60 / 8
        say(f"{DRAIN_BLOCKS} blocks drained at {DRAIN_BLOCKS / took:.0f}/s: {real_time:.0f} times real time for 8 coolers at 1 Hz")
        twice = sum(cloud.copies.values()) - len(cloud.copies)
        say(f"a fact in the middle of it reached the cloud in {late * 1000:.0f} ms; sent twice: {twice}")

    with consuming(cloud):
        asyncio.run(main())
    outbox.close()
    broker.service.stop()


def slow() -> None:
    """The same with 50 ms for each sync."""
    argv = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=50000"]
    subprocess.run([*argv, sys.executable, "-m", __spec__.name, "append-small"], check=True)


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "append"
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        if what == "append":
            append(Path(folder) / "a")
            facade(Path(folder) / "b", 5000)
        elif what == "append-small":
            append(Path(folder) / "a", 40)
            facade(Path(folder) / "b", 1000)
        elif what == "start":
            start(Path(folder) / "c")
        elif what == "drain":
            drain(Path(folder))
        else:
            slow()


if __name__ == "__main__":
    main()
