"""What the tests of the InfluxDB projection share: a store, a projection on a real server, and exact counts."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.influx import InfluxProjection, InfluxSettings, open_sink
from ingest.influx.sink import Sink
from ingest.profiles import Profiles
from ingest.projection import ProfileLookup, Runner
from ingest.store import Store
from protocol.clock import ManualClock
from tests.ingest.conftest import register
from tests.support.services import Influxd

DATABASE = "icecap"
FULL = "ambient_temp"  # the channel that the tests count; blocks for exact counts are made without missing cells


def sqlite_store(path: Path) -> Store:
    store = Store.open(f"sqlite:///{path / 'cloud.db'}")
    store.migrate()
    register(store)
    return store


def v1(server: Influxd, **more: object) -> InfluxSettings:
    return InfluxSettings(server.url, DATABASE, api="v1", **more)  # type: ignore[arg-type]


def projection(store: Store, sink: Sink | InfluxSettings, profiles: ProfileLookup | None = None) -> InfluxProjection:
    opened = open_sink(sink) if isinstance(sink, InfluxSettings) else sink
    return InfluxProjection(store, opened, profiles=profiles or Profiles().find, clock=ManualClock())


def drain(one: InfluxProjection) -> int:
    passed = 0
    while step := one.step():
        passed += step
    return passed


def series(server: Influxd, statement: str) -> list[dict]:
    result = json.loads(server.query(statement, database=DATABASE))["results"][0]
    assert "error" not in result, result["error"]
    return result.get("series", [])


def count(server: Influxd, field: str = FULL, where: str = "") -> int:
    found = series(server, f'SELECT count("{field}") FROM "cooler" {where}')
    return found[0]["values"][0][1] if found else 0


def everything(server: Influxd) -> list[dict]:
    return series(server, 'SELECT * FROM "cooler" GROUP BY *')


@contextmanager
def running(one: InfluxProjection) -> Iterator[Runner]:
    """The projection in its own thread, as the service runs it, with short waits."""
    stop = threading.Event()
    runner = Runner(one, timer=time.monotonic, rng=random.Random(1), stop=stop, poll_s=0.01)
    thread = threading.Thread(target=runner.run, name="projection")
    thread.start()
    try:
        yield runner
    finally:
        stop.set()
        thread.join()
