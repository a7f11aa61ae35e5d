"""Five functions of ours from radio to disk: the list in the documentation is the list that runs."""

import asyncio
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from edge.outbox import Outbox
from edge.sources.mqtt import MqttReader
from tests.edge.rig import Publisher, mqtt_settings, opened, publisher, running, surroundings
from tests.support.services import Mosquitto, eventually

ROOT = Path(__file__).parents[2]
HOPS_MAX = 5  # the architecture's budget from radio to disk

# Functions that a loop of ours calls outside a hop: they wait for something or look at something, and no sample passes through them.
BESIDE = {"Subscriptions.save", "replace_file"}  # a new connection notes its subscriptions in a thread, whenever that gets to run
WAITS = {"Inbox.take", "Intake.settle", "Intake.waits_s", "Connection.check", "Connection.ack", "Store.tick", "Connection.is_over"}


class Trace:
    """Calls of functions in ``edge/`` on every thread, and whether a hop or a wait was active on the same thread when they began."""

    def __init__(self, hops: list[str]) -> None:
        self.hops = hops
        self._opaque = WAITS.union(hops)
        self.calls: list[tuple[str, bool]] = []
        self._depth: defaultdict[int, int] = defaultdict(int)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event not in {"call", "return"} or not code.co_filename.startswith(str(ROOT / "edge")):
            return
        name, thread = code.co_qualname, threading.get_ident()
        if event == "return":
            self._depth[thread] -= name in self._opaque
            return
        self.calls.append((name, self._depth[thread] > 0))
        self._depth[thread] += name in self._opaque


def documented_hops() -> list[str]:
    text = (ROOT / "docs" / "edge.md").read_text(encoding="utf-8")
    section = text[text.index("## Five hops") :]
    return re.findall(r"^\d\. `([A-Za-z.]+[A-Za-z_]+)`", section[: section.index("\n## ", 5)], re.MULTILINE)


@pytest.mark.service
def test_the_documented_hops_are_the_ones_that_run(mosquitto: Callable[..., Mosquitto], tmp_path: Path) -> None:
    broker, trace = mosquitto(), Trace(documented_hops())

    async def scene(outbox: Outbox, cooler: Publisher) -> list[tuple[str, bool]]:
        reader = MqttReader(mqtt_settings(broker.port), surroundings(outbox, tmp_path), client_id="gw-test-1")
        async with running(reader):
            await eventually(lambda: reader.counts["connections"], 10, "connected")
            trace.calls.clear()
            cooler.sample(1)
            await eventually(lambda: reader.counts["acknowledged"] == 1, 10, "acknowledged")
            return list(trace.calls)

    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
            seen = asyncio.run(scene(outbox, cooler))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)

    order = [name for name, _nested in seen if name in trace.hops]
    outside = {name for name, nested in seen if not nested and not name.rpartition(".")[2].startswith("_") and "<" not in name}
    assert len(trace.hops) <= HOPS_MAX
    assert order == trace.hops
    assert outside - set(trace.hops) - BESIDE <= WAITS
