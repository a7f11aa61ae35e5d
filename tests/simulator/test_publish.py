import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.profile import builtin
from provisioning.identity import Realm
from simulator.clinic import Clinic
from simulator.cooler import Sample
from simulator.publish import WINDOW, Feed, Wire, payload
from simulator.world import Row, World
from tests.support.mtls import Peer, TlsBroker, connected, make_tls_broker
from tests.support.services import HOST, wait_until

pytestmark = pytest.mark.service

PROFILE = builtin("icecap-cooler")
NINE_MS = 20_465 * 86_400_000 + 9 * 3_600_000
SERIAL = "cooler-0001"


@pytest.fixture
def broker(require: Callable[[str], Path], tmp_path: Path) -> Iterator[TlsBroker]:
    made = make_tls_broker(require("mosquitto"), tmp_path / "clinic", realm=Realm.CLINIC, gateways=["gw-1"])
    made.service.start()
    yield made
    made.service.stop()


@pytest.fixture
def feed(broker: TlsBroker) -> Iterator[Feed]:
    credentials = broker.credentials(SERIAL)
    wire = Wire(HOST, broker.port, credentials.ca, credentials.cert.parent)
    made = Feed(SERIAL, wire, timer=time.monotonic, chance=random.Random(1))
    yield made
    made.close()


def rows(count: int) -> list[Row]:
    return list(World(Clinic("a", 1), PROFILE, start_ms=NINE_MS).rows_until(NINE_MS + 1_000 * count))


def offer(feed: Feed, found: list[Row]) -> None:
    for row in found:
        feed.offer(row, payload(row, PROFILE))


def pumped(feed: Feed, done: Callable[[], object]) -> Callable[[], object]:
    def check() -> object:
        feed.pump()
        return done()

    return check


def numbers(gateway: Peer) -> list[int]:
    found = []
    while not gateway.messages.empty():
        found.append(json.loads(gateway.messages.get().payload)["n"])
    return found


def test_a_row_travels_as_the_decimals_that_the_sensor_has():
    row = Row(SERIAL, 7, Sample(NINE_MS, 1, (None, *rows(1)[0].sample.codes[1:])))

    document = json.loads(payload(row, PROFILE))

    assert document["boot"] == 7
    assert document["n"] == 1
    assert document["t"] == NINE_MS
    assert "coolant_temp_1" not in document
    codes = {channel.name: channel.code(document[channel.name]) for channel in PROFILE.channels[1:]}
    assert tuple(codes.values()) == row.sample.codes[1:]


def test_every_row_arrives_and_is_acknowledged(broker, feed):
    with connected(broker.port, broker.credentials("gw-1")) as gateway:
        gateway.subscribe("coolers/+/telemetry")
        offer(feed, rows(3 * WINDOW))

        wait_until(pumped(feed, lambda: feed.tally.acknowledged == 3 * WINDOW), what="acknowledgements")
        wait_until(lambda: gateway.messages.qsize() == 3 * WINDOW, what="messages")

    assert feed.tally.kept == 0
    assert [list(runs.ranges()) for runs in feed.acknowledged.values()] == [[(1, 3 * WINDOW)]]


def test_nothing_counts_as_delivered_while_nobody_listens(broker, feed):
    offer(feed, rows(5))

    wait_until(pumped(feed, lambda: feed.tally.publishes >= 5), what="publishes")
    wait_until(pumped(feed, lambda: feed._news.empty() and len(feed._flying) < 5), what="answers")

    assert feed.tally.acknowledged == 0
    assert feed.tally.kept == 5


def test_what_was_not_acknowledged_is_sent_again_after_the_broker_returns(broker, feed):
    offer(feed, rows(2 * WINDOW))
    with connected(broker.port, broker.credentials("gw-1")) as gateway:
        gateway.subscribe("coolers/+/telemetry")
        wait_until(pumped(feed, lambda: feed.tally.acknowledged), what="some acknowledgements")
        broker.service.kill()
        before = numbers(gateway)
    wait_until(pumped(feed, lambda: not feed._is_up), what="the feed notices")
    acknowledged = {number for runs in feed.acknowledged.values() for number in runs}

    broker.service.start()
    with connected(broker.port, broker.credentials("gw-1")) as gateway:
        gateway.subscribe("coolers/+/telemetry")
        wait_until(pumped(feed, lambda: feed.tally.acknowledged == 2 * WINDOW), what="the rest")
        wait_until(lambda: gateway.messages.qsize() >= 2 * WINDOW - len(acknowledged), what="messages")
        after = set(numbers(gateway))

    # What the first broker had acknowledged and not passed on died with it; all that was never acknowledged came.
    assert after >= set(range(1, 2 * WINDOW + 1)) - acknowledged
    assert set(before) <= set(range(1, 2 * WINDOW + 1))


def test_a_cooler_without_a_broker_keeps_its_newest_rows(broker, feed, monkeypatch):
    monkeypatch.setattr("simulator.publish.KEPT_ROWS_MAX", 10)
    broker.service.kill()

    offer(feed, rows(25))
    feed.pump()

    assert feed.tally.kept == 10
    assert feed.tally.shed == 15
