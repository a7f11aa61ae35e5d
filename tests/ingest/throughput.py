"""How many blocks a second: ``python -m tests.ingest.throughput [--blocks N] [--postgresql]``. A measurement, not a test.

Blocks of 60 rows and all channels of the Icecap Cooler, from 32 gateways in all partitions, lie queued at a real broker on mutual TLS when
the service starts; the clock stops when the last is committed and acknowledged. Printed per second of wall time and per second of the
ingest process's own CPU time, which is what one core can do when others load the machine. ``apply`` is the same without the broker.
"""

import argparse
import getpass
import random
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, select

from ingest import schema
from ingest.apply import apply_batch
from ingest.arrivals import Incoming
from ingest.config import parse
from ingest.profiles import Profiles
from ingest.service import Service, make_clock, make_timer
from ingest.store import Store
from protocol.topics import PARTITIONS
from provisioning import registry
from provisioning.programs import find_program
from tests.ingest.cloud import config_text, serving
from tests.ingest.frames import Gateway
from tests.support import services
from tests.support.mtls import connected, make_tls_broker
from tests.support.services import wait_until

GATEWAYS = 32
BATCH = 64


def frames(blocks: int) -> list[Incoming]:
    gateways = [
        Gateway(f"gw-bench-{number}", streams={lane: 1000 * number + at for at, lane in enumerate(Gateway().streams)})
        for number in range(GATEWAYS)
    ]
    return [gateways[number % GATEWAYS].block(device=f"cooler-{number % 200:04d}") for number in range(blocks)]


def prepared(url: str) -> Store:
    store = Store.open(url)
    store.migrate()
    with store.transaction() as connection:
        registry.add_site(connection, registry.Site("bench", "Bench", "UTC", 0))
        for number in range(GATEWAYS):
            registry.add_gateway(connection, f"gw-bench-{number}", site_id="bench", at_ms=0)
    return store


@contextmanager
def store_at(folder: Path, *, postgresql: bool) -> Iterator[str]:
    if not postgresql:
        yield f"sqlite:///{folder / 'store.db'}"
        return
    executable = find_program("postgres")
    assert executable is not None
    directory = Path(tempfile.mkdtemp(prefix="icecap-bench-"))
    server = services.make_postgres(executable, directory)
    server.start()
    try:
        yield server.create_database()
    finally:
        server.stop()
        shutil.rmtree(directory)


def apply_only(url: str, messages: list[Incoming]) -> tuple[float, float]:
    store = prepared(url)
    wall, cpu = time.perf_counter(), time.process_time()
    for at in range(0, len(messages), BATCH):
        with store.transaction() as connection:
            apply_batch(connection, messages[at : at + BATCH], profiles=Profiles(), now_ms=1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    store.close()
    return wall, cpu


def through_the_broker(url: str, messages: list[Incoming], folder: Path) -> tuple[float, float]:
    executable = find_program("mosquitto")
    assert executable is not None
    broker = make_tls_broker(executable, folder)
    broker.service.start()
    store = prepared(url)
    partitions = [f"p{number:02d}" for number in range(PARTITIONS)]
    config = parse(config_text(broker, url, partitions=partitions), folder=folder, environment={})
    try:
        with serving(config):
            pass  # the sessions exist now and queue
        by_topic: dict[str, list[Incoming]] = {}
        for message in messages:
            by_topic.setdefault(message.topic, []).append(message)
        for topic, mine in by_topic.items():
            with connected(broker.port, broker.credentials(topic.split("/")[3])) as peer:
                sent = [peer.client.publish(topic, message.payload, qos=1) for message in mine]
                for one in sent:
                    one.wait_for_publish(60)
        service = Service(config, clock=make_clock(config.clock), timer=make_timer(), rng=random.Random(1))
        thread = threading.Thread(target=service.run)
        wall, cpu = time.perf_counter(), time.process_time()
        thread.start()
        wait_until(lambda: service.worker.totals.messages["stored"] >= len(messages), 300, "all blocks to be stored")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        service.ending.set()
        thread.join()
        with store.reading() as connection:
            assert connection.execute(select(func.count()).select_from(schema.block)).scalar_one() == len(messages)
    finally:
        broker.service.stop()
        store.close()
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=5000)
    parser.add_argument("--postgresql", action="store_true")
    chosen = parser.parse_args()
    messages = frames(chosen.blocks)
    engine = "PostgreSQL" if chosen.postgresql else "SQLite"
    for name in ("apply", "broker"):
        folder = Path(tempfile.mkdtemp(prefix="icecap-bench-"))
        try:
            with store_at(folder, postgresql=chosen.postgresql) as url:
                wall, cpu = apply_only(url, messages) if name == "apply" else through_the_broker(url, messages, folder / "broker")
        finally:
            shutil.rmtree(folder)
        per_wall, per_cpu = chosen.blocks / wall, chosen.blocks / cpu
        print(f"{engine:10} {name:6} {per_wall:7.0f} blocks/s wall  {per_cpu:7.0f} blocks/s of CPU  ({60 * per_cpu:,.0f} rows)")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{len(messages[0].payload)} bytes a frame, {GATEWAYS} gateways, user {getpass.getuser()}, at most {used} MB resident")


if __name__ == "__main__":
    main()
