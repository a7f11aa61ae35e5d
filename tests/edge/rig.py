"""A gateway's inner half for tests: real outbox, real intake, a source beside a real broker; and what it stored, decoded."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.intake import Intake, RowStore
from edge.live import LiveBoard
from edge.outbox import Host, Limits, Outbox
from edge.settings import MqttSource, MqttTopic
from edge.sources.mqtt import MqttReader
from edge.sources.surroundings import Surroundings
from protocol import block, frame
from protocol.block import Rows
from protocol.clock import MachineClock
from protocol.profile import builtin
from protocol.reading import Stamp
from protocol.topics import Lane
from protocol.units import DeviceId, GatewayId
from tests.support.services import free_port

GATEWAY = GatewayId("gw-test-1")
COOLER = DeviceId("cooler-0001")
CLOCK = MachineClock(time.time_ns, time.monotonic_ns, lambda: True)
PROFILE = builtin("icecap-cooler")
BOOT = 77


def stamp() -> Stamp:
    return Stamp(BOOT, CLOCK.monotonic_ms(), CLOCK.wall_ms(), CLOCK.quality())


@contextmanager
def opened(folder: Path, *, commit_interval_ms: int = 5) -> Iterator[Outbox]:
    folder.mkdir(exist_ok=True)
    limits = Limits(commit_interval_ms=commit_interval_ms, ballast_bytes=65_536)
    host = Host(gateway=GATEWAY, clock=CLOCK, timer=time.monotonic, rng=random.SystemRandom(), boot=BOOT)
    outbox = Outbox.open(folder, host, limits)
    try:
        yield outbox
    finally:
        assert outbox.close()


def surroundings(store: RowStore, folder: Path, *, coolers: Sequence[str] = (COOLER,)) -> Surroundings:
    folder.mkdir(exist_ok=True)
    devices = {DeviceId(serial): PROFILE for serial in coolers}
    intake = Intake(store, devices, live=LiveBoard(), timer=time.monotonic)
    return Surroundings(intake, devices, stamp, CLOCK, time.monotonic, random.Random(1), folder)


def mqtt_settings(port: int, *topics: MqttTopic, receive_maximum: int = 256) -> MqttSource:
    topics = topics or (MqttTopic(filter="coolers/+/telemetry"),)
    return MqttSource(host="127.0.0.1", port=port, plaintext=True, receive_maximum=receive_maximum, topic=topics)


@asynccontextmanager
async def running(reader: MqttReader) -> AsyncIterator[asyncio.Task[None]]:
    """The source as a task; cancelled at the end, within the agent's bound for a stop."""
    task = asyncio.create_task(reader.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the outbox holds of telemetry, sealed for the test."""

    blocks: list[tuple[frame.Frame, Rows]]

    @property
    def keys(self) -> list[tuple[str, int, int]]:
        """(device, boot, counter) of every row of a device that counts."""
        return [
            (str(found.head.device), rows.source_boot, int(counter))
            for found, rows in self.blocks
            if rows.counters is not None
            for counter in rows.counters
        ]

    @property
    def times(self) -> list[int]:
        return [int(ts) for _found, rows in self.blocks for ts in rows.ts_ms]

    def column(self, name: str) -> list[int]:
        return [int(code) for _found, rows in self.blocks for code in rows.codes[:, PROFILE.index(name)]]


def stored(outbox: Outbox) -> Stored:
    while outbox.seal_all().result(10):
        pass
    blocks = []
    after = 0
    while records := outbox.read(Lane.TELEMETRY, after=after).result(10):
        after = records[-1].id
        for record in records:
            found = frame.decode(record.data)
            assert isinstance(found, frame.Frame)
            if found.head.kind == frame.Kind.BLOCK:
                rows = block.decode(found.body)
                assert isinstance(rows, Rows)
                blocks.append((found, rows))
    return Stored(blocks)


class Publisher:
    """A cooler's side: publishes with QoS 1 and knows what the broker has taken."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(1000)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._numbers = itertools.count(1)

    def send(
        self, payload: bytes | dict[str, object], topic: str = f"coolers/{COOLER}/telemetry", *, retain: bool = False
    ) -> paho.MQTTMessageInfo:
        return self._client.publish(topic, payload if isinstance(payload, bytes) else json.dumps(payload).encode(), qos=1, retain=retain)

    def sample(self, number: int | None = None, *, boot: int = 1, serial: str = COOLER, **values: object) -> paho.MQTTMessageInfo:
        number = next(self._numbers) if number is None else number
        payload = {"boot": boot, "n": number, "t": CLOCK.wall_ms(), "flow_1": 3.0, "state_1": 4, **values}
        return self.send(payload, f"coolers/{serial}/telemetry")

    @staticmethod
    def wait(infos: Sequence[paho.MQTTMessageInfo], timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        for info in infos:
            info.wait_for_publish(max(0.01, deadline - time.monotonic()))
            assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def publisher(port: int) -> Iterator[Publisher]:
    one = Publisher(port)
    try:
        yield one
    finally:
        one.close()


__all__ = [
    "BOOT",
    "CLOCK",
    "COOLER",
    "GATEWAY",
    "PROFILE",
    "Publisher",
    "Stored",
    "free_port",
    "mqtt_settings",
    "opened",
    "publisher",
    "running",
    "stamp",
    "stored",
    "surroundings",
]
