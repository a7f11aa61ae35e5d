"""One connection: whatever the library, the peer or our own callbacks do, it ends visibly and a new one follows."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
import pytest

from edge.outbox import Outbox
from edge.sources import mqtt
from edge.sources.connection import Connection
from edge.sources.inbox import BYTES_MAX, MESSAGES_MAX, Arrival, Inbox
from edge.sources.mqtt import MqttReader
from protocol.units import DeviceId
from tests.edge.rig import COOLER, Publisher, mqtt_settings, opened, publisher, running, stamp, stored, surroundings
from tests.support.services import Mosquitto, eventually

Broker = Callable[..., Mosquitto]

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "BACKOFF_BASE_S", 0.05)
    monkeypatch.setattr(mqtt, "BACKOFF_CAP_S", 0.2)
    monkeypatch.setattr(mqtt, "CHECK_S", 0.05)


def reader_of(store: Outbox, port: int, folder: Path) -> MqttReader:
    return MqttReader(mqtt_settings(port), surroundings(store, folder), client_id="gw-test-1")


def newest(reader: MqttReader) -> int | None:
    """The number of the newest sample that is on disk."""
    row = reader._around.intake._live._changed.get(DeviceId(COOLER))
    return row.reading.counter if row else None


@pytest.mark.parametrize("callback", ["on_connect", "on_subscribe", "on_message", "on_disconnect"])
def test_an_exception_in_a_callback_is_noticed_and_answered_by_a_new_connection(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    broker = mosquitto()
    original = getattr(Connection, callback)
    failures = iter([RuntimeError("planted")])

    def fails_once(self: Connection, *args: object) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        original(self, *args)

    monkeypatch.setattr(Connection, callback, fails_once)

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.counts["callbacks_failed"] or reader.status().ok, 10, "connected")
            cooler.sample(1)
            if callback == "on_disconnect":
                await eventually(lambda: reader.counts["acknowledged"] == 1, 10, "stored once")
                await asyncio.to_thread(broker.restart)
            await eventually(lambda: reader.counts["callbacks_failed"] == 1, 10, "the failure is counted")
            await eventually(lambda: reader.status().ok, 10, "connected again")
            with publisher(broker.port) as again:
                again.sample(2)
                await eventually(lambda: newest(reader) == 2, 10, "flowing")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        reader = asyncio.run(scene(outbox, cooler))

        assert (COOLER, 1, 2) in stored(outbox).keys
    assert reader.counts["connections_ended"] >= 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_network_thread_is_noticed_although_the_library_says_connected(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = mosquitto()
    planted = iter([MemoryError("planted")])
    original = paho.Client._handle_publish

    def handle(self: paho.Client) -> object:
        if (error := next(planted, None)) is not None:
            raise error
        return original(self)

    monkeypatch.setattr(paho.Client, "_handle_publish", handle)

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            cooler.sample(1)
            await eventually(lambda: reader.counts["threads_dead"] == 1, 10, "the dead thread is noticed")
            await eventually(lambda: reader.counts["acknowledged"] == 1, 10, "the message came again and is stored")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        asyncio.run(scene(outbox, cooler))

        assert stored(outbox).keys == [(COOLER, 1, 1)]


class Scripted:
    """A peer that says what the real broker of the tests cannot: one method per connection, in a thread."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._talk = talk
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._listener.settimeout(0.1)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                peer, _address = self._listener.accept()
            except TimeoutError:
                continue
            with peer:
                self._talk(peer)


def test_a_broker_without_v5_is_spoken_to_in_3_1_1(tmp_path: Path) -> None:
    levels: list[int] = []
    acks: list[bytes] = []

    def talk(peer: socket.socket) -> None:
        connect = peer.recv(4096)
        levels.append(connect[connect.index(b"MQTT") + 4])
        peer.sendall(bytes([0x20, 2, 0, 0 if levels[-1] == 4 else 1]))
        if levels[-1] != 4:
            return
        subscribe = peer.recv(4096)
        peer.sendall(bytes([0x90, 3]) + subscribe[2:4] + b"\x01")
        topic, payload = f"coolers/{COOLER}/telemetry".encode(), b'{"boot": 1, "n": 1, "flow_1": 3.0}'
        peer.sendall(bytes([0x32, 2 + len(topic) + 2 + len(payload), 0, len(topic)]) + topic + b"\x00\x07" + payload)
        acks.append(peer.recv(4096))

    async def scene(outbox: Outbox, port: int) -> None:
        async with running(reader_of(outbox, port, tmp_path)):
            await eventually(lambda: acks, 10, "the acknowledgement")

    with Scripted(talk) as broker, opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox, broker.port))

        assert stored(outbox).keys == [(COOLER, 1, 1)]
    assert levels[:2] == [5, 4]
    assert acks[0] == b"\x40\x02\x00\x07"


@pytest.mark.parametrize(
    ("goodbye", "count"), [(b"\xe0\x02\x8e\x00", "taken_over"), (b"\xe0\x02\x8b\x00", "connections_ended")], ids=["taken over", "shutdown"]
)
def test_a_session_that_was_taken_over_says_so(tmp_path: Path, goodbye: bytes, count: str) -> None:
    def talk(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(b"\x20\x03\x00\x00\x00")
        subscribe = peer.recv(4096)
        peer.sendall(b"\x90\x04" + subscribe[2:4] + b"\x00\x01" + goodbye)

    async def scene(outbox: Outbox, port: int) -> MqttReader:
        reader = reader_of(outbox, port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.counts[count] >= 1, 10, "the goodbye")
        return reader

    with Scripted(talk) as broker, opened(tmp_path / "box") as outbox:
        reader = asyncio.run(scene(outbox, broker.port))

    assert bool(reader.counts["taken_over"]) == (count == "taken_over")
    assert not reader.status().ok


def test_a_subscription_that_the_broker_refuses_is_not_called_healthy(tmp_path: Path) -> None:
    def talk(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(b"\x20\x03\x00\x00\x00")
        subscribe = peer.recv(4096)
        peer.sendall(b"\x90\x04" + subscribe[2:4] + b"\x00\x87")
        peer.recv(4096)

    async def scene(outbox: Outbox, port: int) -> None:
        reader = reader_of(outbox, port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.counts["connections"], 10, "connected")
            assert not reader.status().ok
            assert reader.status().why == "subscription refused: coolers/+/telemetry"

    with Scripted(talk) as refusing, opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox, refusing.port))


class NoConnection:
    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = is_over

    def ack(self, _arrival: Arrival) -> bool:
        return True


def test_a_full_inbox_makes_the_network_thread_wait_and_then_gives_up() -> None:
    message = Arrival(NoConnection(), 1, 1, "t", b"x", stamp())
    asks = iter(range(3))

    async def scene() -> None:
        inbox = Inbox()
        assert all(inbox.offer(message, lambda: True) for _ in range(MESSAGES_MAX))
        refused = await asyncio.to_thread(inbox.offer, message, lambda: next(asks, None) is None)
        assert not refused
        assert next(asks, None) is None  # it waited and asked until it was told to give up
        waiting = asyncio.create_task(asyncio.to_thread(inbox.offer, message, lambda: False))
        assert len(await inbox.take(10)) == 10
        assert await waiting
        assert len(inbox) == MESSAGES_MAX - 9

    asyncio.run(scene())


def test_the_inbox_is_bounded_by_bytes_too() -> None:
    message = Arrival(NoConnection(), 1, 1, "t", bytes(BYTES_MAX // 2), stamp())

    async def scene() -> None:
        inbox = Inbox()
        assert [inbox.offer(message, lambda: True) for _ in range(3)] == [True, True, False]
        assert len(await inbox.take(1)) == 1
        assert inbox.offer(message, lambda: True)

    asyncio.run(scene())


def test_what_waits_of_a_connection_that_is_over_is_left_to_its_redelivery(tmp_path: Path) -> None:
    """Samples without a number would be stored twice otherwise: now, and when the broker sends them again."""

    def message(*, is_over: bool, flow: int) -> Arrival:
        return Arrival(NoConnection(is_over=is_over), 1, 1, f"coolers/{COOLER}/telemetry", b'{"flow_1": %d}' % flow, stamp())

    async def scene(outbox: Outbox) -> None:
        reader = reader_of(outbox, 1, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.counts["connects_failed"], 10, "running")
            reader._inbox.offer(message(is_over=True, flow=1), lambda: True)
            reader._inbox.offer(message(is_over=False, flow=2), lambda: True)
            await eventually(lambda: reader.counts["acknowledged"] == 1, 10, "the other one is stored")
        assert reader.counts["left_to_redelivery"] == 1

    with opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox))

        assert stored(outbox).column("flow_1") == [200]
