"""Coolers on a clinic's broker: stored before acknowledged, whatever the broker, the payload or our own code does."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.condition import ConditionedRow
from edge.outbox import AppendResult, Outbox
from edge.settings import MqttTopic
from edge.sources import mqtt
from edge.sources.mqtt import MqttReader
from protocol.reading import Stamp
from protocol.refusal import Reason
from tests.edge.rig import COOLER, Publisher, mqtt_settings, opened, publisher, running, stamp, stored, surroundings
from tests.support.services import Mosquitto, eventually

Broker = Callable[..., Mosquitto]

pytestmark = pytest.mark.service

MANY_IN_FLIGHT = (
    "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {directory}/\n"
    "max_queued_messages 0\nmax_inflight_messages 1000\n"
)


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "BACKOFF_BASE_S", 0.05)
    monkeypatch.setattr(mqtt, "BACKOFF_CAP_S", 0.2)
    monkeypatch.setattr(mqtt, "CHECK_S", 0.05)


class Gate:
    """A real outbox whose answers can be held back: the time between 'written' and 'known to be written'."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.open = True
        self.held: list[tuple[Sequence[ConditionedRow], Future[AppendResult]]] = []

    def append_rows(self, rows: Sequence[ConditionedRow]) -> Future[AppendResult]:
        if self.open:
            return self.outbox.append_rows(rows)
        future: Future[AppendResult] = Future()
        self.held.append((rows, future))
        return future

    def release(self) -> None:
        self.open = True
        for rows, future in self.held:
            self.outbox.append_rows(rows).add_done_callback(lambda done, future=future: future.set_result(done.result()))  # type: ignore[misc]
        self.held.clear()


def unacknowledged(port: int, client_id: str) -> list[bytes]:
    """What the broker still holds for a session that is not connected now."""
    found: list[bytes] = []
    done = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = lambda _client, _data, message: found.append(bytes(message.payload)) if message.topic != "end" else done.set()

    def mark_the_end(client: paho.Client, *_rest: object) -> None:
        """The mark is queued behind everything that the session still holds."""
        client.subscribe("end", 1)
        client.publish("end", b"", qos=1)

    client.on_connect = mark_the_end
    client.connect("127.0.0.1", port, clean_start=False)
    client.loop_start()
    assert done.wait(5)
    client.disconnect()
    client.loop_stop()
    return found


def reader_of(store: Outbox | Gate, port: int, folder: Path, *topics: MqttTopic, coolers: Sequence[str] = (COOLER,)) -> MqttReader:
    return MqttReader(mqtt_settings(port, *topics), surroundings(store, folder, coolers=coolers), client_id="gw-test-1")


def test_samples_are_stored_then_acknowledged(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            infos = [cooler.sample() for _ in range(100)]
            await asyncio.to_thread(cooler.wait, infos)
            await eventually(lambda: reader.counts["acknowledged"] == 100, 10, "all acknowledged")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        reader = asyncio.run(scene(outbox, cooler))

        assert stored(outbox).keys == [(COOLER, 1, number) for number in range(1, 101)]
    assert unacknowledged(broker.port, "gw-test-1") == []
    assert reader.status().has_succeeded


def test_what_is_not_on_disk_is_not_acknowledged_and_comes_again(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def scene(gate: Gate, cooler: Publisher) -> None:
        reader = reader_of(gate, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            gate.open = False
            cooler.sample()
            cooler.sample()
            await eventually(lambda: gate.held, 10, "held rows")
        assert reader.counts["acknowledged"] == 0
        assert reader._around.intake.waits_s == 0

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        asyncio.run(scene(Gate(outbox), cooler))

        assert stored(outbox).keys == []
    assert [json.loads(payload)["n"] for payload in unacknowledged(broker.port, "gw-test-1")] == [1, 2]


def test_a_late_acknowledgement_never_reaches_a_newer_connection(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")

    async def scene(gate: Gate) -> MqttReader:
        reader = reader_of(gate, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            gate.open = False
            with publisher(broker.port) as cooler:
                cooler.sample(1, flow_1=1.0)
                await eventually(lambda: gate.held, 10, "the old message held")
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await eventually(lambda: reader.counts["connections"] == 2, 10, "connected again")
            with publisher(broker.port) as cooler:
                cooler.sample(2, flow_1=2.0)  # the broker counts from 1 again: same message number as the old one
                await eventually(lambda: len(gate.held) == 2, 10, "the new message held")
            # Only the old one reaches the disk; its late answer must leave the new one unacknowledged.
            rows, future = gate.held.pop(0)
            future.set_result(await asyncio.wrap_future(gate.outbox.append_rows(rows)))
            await eventually(lambda: reader.counts["stale_acks"] == 1, 10, "the late acknowledgement")
            assert reader.counts["acknowledged"] == 0
        return reader

    with opened(tmp_path / "box") as outbox:
        asyncio.run(scene(Gate(outbox)))

        assert [number for _device, _boot, number in stored(outbox).keys] == [1]
    assert [json.loads(payload)["n"] for payload in unacknowledged(broker.port, "gw-test-1")] == [2]


def test_poison_is_named_set_aside_and_acknowledged_while_others_flow(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()
    mapping = MqttTopic(filter="coolers/#")

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        reader = reader_of(outbox, broker.port, tmp_path, mapping)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            cooler.sample(1)
            cooler.send(b"\xff not json")
            cooler.send(b'{"flow_1": NaN}')
            cooler.send(b'{"flow_1": "' + b"x" * 70_000 + b'"}')
            for _ in range(3):
                cooler.sample(5, serial="cooler-9999")
            cooler.send({"flow_1": 1}, "coolers/Not A Serial/x")
            cooler.sample(2)
            await eventually(lambda: reader.counts["acknowledged"] == 9, 10, "all acknowledged")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        reader = asyncio.run(scene(outbox, cooler))

        assert [number for _device, _boot, number in stored(outbox).keys] == [1, 2]
    assert unacknowledged(broker.port, "gw-test-1") == []
    assert reader.refusals == {Reason.BAD_JSON: 2, Reason.TOO_LONG: 1, Reason.UNKNOWN_DEVICE: 4}
    assert reader.status().unknown_serials == {"cooler-9999": 3, "not-a-serial": 1}
    lines = [json.loads(line) for line in (tmp_path / "refused-clinic.jsonl").read_bytes().splitlines()]
    assert [line["reason"] for line in lines] == ["bad_json", "bad_json", "too_long"]
    assert lines[0]["size"] == 10
    assert len(lines[2]["payload"]) < 6000
    assert (tmp_path / "refused-clinic.jsonl").stat().st_mode & 0o777 == 0o600


def test_ten_thousand_bad_payloads_leak_nothing_and_the_next_good_one_is_stored(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto(MANY_IN_FLIGHT)

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            infos = [cooler.send(b"{bad %d" % number) for number in range(10_000)]
            await asyncio.to_thread(cooler.wait, infos, 60)
            cooler.sample(1)
            await eventually(lambda: reader.counts["acknowledged"] == 10_001, 60, "all acknowledged")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        reader = asyncio.run(scene(outbox, cooler))

        assert [number for _device, _boot, number in stored(outbox).keys] == [1]
    assert reader.refusals[Reason.BAD_JSON] == reader.counts["quarantined"] == 10_000
    assert sum(path.stat().st_size for path in tmp_path.glob("refused-clinic.*")) <= 2 * 1_048_576


def test_a_thousand_unknown_coolers_are_counted_in_bounded_memory(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto(MANY_IN_FLIGHT)

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            for number in range(1500):
                cooler.sample(1, serial=f"cooler-x{number}")
            await eventually(lambda: reader.counts["acknowledged"] == 1500, 20, "all acknowledged")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        reader = asyncio.run(scene(outbox, cooler))

    assert len(reader.unknown_serials) == mqtt.UNKNOWN_SERIALS_MAX + 1
    assert reader.unknown_serials["others"] == 1500 - mqtt.UNKNOWN_SERIALS_MAX
    assert len(reader._routes) <= mqtt.ROUTES_MAX


def test_samples_of_one_millisecond_without_number_or_time_are_all_stored(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto(MANY_IN_FLIGHT)

    async def scene(outbox: Outbox, cooler: Publisher) -> None:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            await asyncio.to_thread(cooler.wait, [cooler.send({"flow_1": 3.0}) for _ in range(400)])
            await eventually(lambda: reader.counts["acknowledged"] == 400, 10, "all acknowledged")

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        asyncio.run(scene(outbox, cooler))

        times = stored(outbox).times
    assert len(times) == 400
    assert times == sorted(set(times))


def test_twenty_samples_a_second_with_one_time_keep_every_value_and_their_order(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def scene(outbox: Outbox, cooler: Publisher) -> None:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            for number in range(20):
                cooler.sample(number, t=1_767_225_600_000, flow_1=1 + number / 100)
            await eventually(lambda: reader.counts["acknowledged"] == 20, 10, "all acknowledged")

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        asyncio.run(scene(outbox, cooler))

        assert stored(outbox).column("flow_1") == [100 + number for number in range(20)]


def test_a_retained_message_is_no_sample(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def scene(outbox: Outbox, cooler: Publisher) -> None:
        for connection in range(2):
            reader = reader_of(outbox, broker.port, tmp_path)
            async with running(reader):
                await eventually(lambda: reader.counts["retained_ignored"] == 1, 10, "the retained message")  # noqa: B023
                cooler.sample(connection)
                await eventually(lambda: reader.counts["acknowledged"] == 2, 10, "both answered")  # noqa: B023

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        cooler.wait([cooler.send({"flow_1": 9.0}, retain=True)])
        asyncio.run(scene(outbox, cooler))

        assert stored(outbox).column("flow_1") == [300, 300]


def test_topics_that_left_the_configuration_are_unsubscribed(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def connected_with(outbox: Outbox, *filters: str) -> None:
        reader = reader_of(outbox, broker.port, tmp_path, *(MqttTopic(filter=one) for one in filters))
        async with running(reader):
            await eventually(lambda: reader.counts["connections"] == 1, 10, "connected")

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        asyncio.run(connected_with(outbox, "old/+/x", "coolers/+/telemetry"))
        asyncio.run(connected_with(outbox, "coolers/+/telemetry"))
        cooler.wait([cooler.sample(9), cooler.send(b"old", f"old/{COOLER}/x")])

    assert [json.loads(payload)["n"] for payload in unacknowledged(broker.port, "gw-test-1")] == [9]


def test_a_message_on_which_our_own_code_fails_is_set_aside_not_redelivered_for_ever(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def scene(outbox: Outbox, cooler: Publisher) -> MqttReader:
        around = surroundings(outbox, tmp_path)
        failures = iter([ZeroDivisionError("planted")])

        def fails_once() -> Stamp:
            if (error := next(failures, None)) is not None:
                raise error
            return stamp()

        reader = MqttReader(mqtt_settings(broker.port), replace(around, stamp=fails_once), client_id="gw-test-1")
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            cooler.sample(1)
            cooler.sample(2)
            await eventually(lambda: reader.counts["acknowledged"] == 2, 10, "both acknowledged")
        return reader

    with opened(tmp_path / "box") as outbox, publisher(broker.port) as cooler:
        reader = asyncio.run(scene(outbox, cooler))

        assert [number for _device, _boot, number in stored(outbox).keys] == [2]
    assert reader.counts["quarantined"] == 1
    assert "ZeroDivisionError: planted" in (tmp_path / "refused-clinic.jsonl").read_text()


def test_a_mute_broker_does_not_delay_the_stop(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()

    async def scene(outbox: Outbox) -> None:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            broker.pause()

    with opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox))  # ``running`` fails after five seconds
    broker.resume()


def test_a_broker_that_is_away_is_tried_again_and_shown(tmp_path: Path, mosquitto: Broker) -> None:
    broker = mosquitto()
    broker.kill()

    async def scene(outbox: Outbox) -> None:
        reader = reader_of(outbox, broker.port, tmp_path)
        async with running(reader):
            await eventually(lambda: reader.counts["connects_failed"] >= 2, 10, "tried")
            status = reader.status()
            assert not status.ok
            assert not status.has_succeeded
            assert str(broker.port) in status.why
            await asyncio.to_thread(broker.start)
            await eventually(lambda: reader.status().ok, 10, "connected")

    with opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox))


@pytest.mark.slow
def test_a_half_open_link_is_noticed_within_twice_the_keep_alive(mosquitto: Broker, tmp_path: Path) -> None:
    broker = mosquitto()
    settings = msgspec.structs.replace(mqtt_settings(broker.port), keepalive_s=5)

    async def scene(outbox: Outbox) -> None:
        reader = MqttReader(settings, surroundings(outbox, tmp_path), client_id="gw-test-1")
        async with running(reader):
            await eventually(lambda: reader.status().ok, 10, "connected")
            broker.pause()
            await eventually(lambda: not reader.status().ok, 12, "noticed")
            broker.resume()
            await eventually(lambda: reader.status().ok, 20, "connected again")

    with opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox))
