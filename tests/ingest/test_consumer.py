import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from ingest import inbox as inboxes
from ingest.consumer import Consumer
from ingest.inbox import Inbox
from ingest.link import client_id
from ingest.receipts import Addressed
from ingest.service import make_clock, make_timer
from ingest.source import Delivery
from protocol.receipt import Receipt
from protocol.units import GatewayId
from tests.ingest.cloud import PARTITION, config_of, gateway_on
from tests.ingest.frames import GATEWAY, Gateway
from tests.support.mtls import TlsBroker, connected
from tests.support.services import wait_until

pytestmark = pytest.mark.service


@contextmanager
def consuming(
    cloud: TlsBroker, *, connect: bool = True, on_session: Callable[[str, bool], None] = lambda *_: None, **given
) -> Iterator[Consumer]:
    config = config_of(cloud, f"sqlite:///{cloud.folder / 'unused.db'}", **given)
    consumer = Consumer(
        config.broker, config.partitions, clock=make_clock(config.clock), timer=make_timer(), rng=random.Random(1), on_session=on_session
    )
    consumer.start()
    try:
        if connect:
            wait_until(lambda: all(state.up for state in consumer.states()), 15, "the sessions to be up")
        yield consumer
    finally:
        consumer.stop()


def received(consumer: Consumer, wanted: int) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(consumer.receive(0.1))
        return len(found) >= wanted

    wait_until(enough, 15, f"{wanted} messages")
    return found


def publish(cloud: TlsBroker, payloads: Sequence[bytes]) -> None:
    topic = Gateway().block(seq=1).topic
    with gateway_on(cloud) as peer:
        for payload in payloads:
            assert peer.publish(topic, payload) == 0


def payloads_of(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [one.message.payload for one in deliveries]


def test_what_was_not_acknowledged_comes_again_in_order(cloud: TlsBroker) -> None:
    sent = [str(number).encode() for number in range(10)]
    with consuming(cloud) as consumer:
        publish(cloud, sent)
        consumer.ack(received(consumer, 10)[:4])
        wait_until(lambda: consumer.states()[0].unacked == 6, 10, "four acknowledgements")

    with consuming(cloud) as consumer:
        again = received(consumer, 6)
        consumer.ack(again)
        wait_until(lambda: consumer.states()[0].unacked == 0, 10, "the rest")
    assert payloads_of(again) == sent[4:]

    with consuming(cloud) as consumer:
        assert list(consumer.receive(0.5)) == []


def test_an_acknowledgement_of_an_older_connection_never_reaches_a_newer_one(cloud: TlsBroker) -> None:
    with consuming(cloud) as consumer:
        publish(cloud, [b"one", b"two"])
        old = received(consumer, 2)
        cloud.service.stop()
        wait_until(lambda: not consumer.states()[0].up, 10, "the connection to end")
        cloud.service.start()
        wait_until(lambda: consumer.states()[0].up, 20, "the session to be back")
        new = received(consumer, 2)

        consumer.ack(old)

        assert payloads_of(new) == [b"one", b"two"]
        assert consumer.counts["stale_acks"] == 2
        assert consumer.states()[0].unacked == 2

    with consuming(cloud) as consumer:
        assert payloads_of(received(consumer, 2)) == [b"one", b"two"]


def test_messages_of_a_dead_connection_are_not_kept_beside_their_repetition(cloud: TlsBroker) -> None:
    with consuming(cloud) as consumer:
        publish(cloud, [b"one", b"two"])
        wait_until(lambda: len(consumer.inbox) == 2, 10, "the messages")
        cloud.service.stop()
        wait_until(lambda: len(consumer.inbox) == 0, 10, "them to be forgotten")
        cloud.service.start()

        assert payloads_of(received(consumer, 2)) == [b"one", b"two"]


def test_no_more_than_receive_maximum_comes_before_the_first_acknowledgement(cloud: TlsBroker) -> None:
    with consuming(cloud) as consumer:
        publish(cloud, [str(number).encode() for number in range(100)])
        wait_until(lambda: len(consumer.inbox) >= 64, 10, "a full window")
        time.sleep(0.2)  # the absence of more: the broker would send the rest at once if it were allowed to

        assert len(consumer.inbox) == 64


def test_a_broker_that_does_not_keep_to_receive_maximum_cannot_fill_the_memory(cloud: TlsBroker, monkeypatch) -> None:
    monkeypatch.setattr(inboxes, "MESSAGES_MAX", 200)
    monkeypatch.setattr(inboxes, "WAIT_S", 0.3)
    sent = [str(number).encode() for number in range(1500)]
    with consuming(cloud) as consumer:
        publish(cloud, sent)
        consumer.ack(received(consumer, 64))  # Mosquitto 2.0.11 answers each acknowledgement with a whole window
        wait_until(lambda: consumer.counts["inbox_full"], 15, "the connection to be given up")
        assert "does not keep up" in wait_until(lambda: consumer.states()[0].why, 5, "the cause")
        most = 0
        seen: set[bytes] = set()

        def drained() -> bool:
            nonlocal most
            most = max(most, len(consumer.inbox))
            batch = consumer.receive(0.1)
            consumer.ack(batch)
            seen.update(payloads_of(batch))
            return len(seen) == len(sent) - 64

        wait_until(drained, 30, "everything that was not acknowledged")

    assert most <= 200
    assert seen == set(sent[64:])


def test_a_callback_that_fails_ends_the_connection_and_the_message_comes_again(cloud: TlsBroker, monkeypatch) -> None:
    offer = Inbox.offer
    failures = [True]

    def fragile(self: Inbox, delivery: Delivery, *, awaited: bool) -> bool:
        if failures:
            failures.pop()
            raise ZeroDivisionError("a bug of ours")
        return offer(self, delivery, awaited=awaited)

    monkeypatch.setattr(Inbox, "offer", fragile)
    with consuming(cloud) as consumer:
        publish(cloud, [b"one"])

        assert payloads_of(received(consumer, 1)) == [b"one"]
        assert consumer.counts["callbacks_failed"] == 1
        assert "ZeroDivisionError" in consumer.states()[0].why


def test_a_session_that_is_taken_over_is_taken_back(cloud: TlsBroker) -> None:
    with consuming(cloud) as consumer:
        with connected(cloud.port, cloud.credentials(client_id(PARTITION))):
            wait_until(lambda: consumer.states()[0].connections == 2, 20, "a second connection")
        wait_until(lambda: consumer.states()[0].up, 20, "the session to be back")


def test_a_takeover_that_the_broker_names_is_counted(cloud: TlsBroker) -> None:
    # Mosquitto 2.0.11 closes the older connection of a TLS client without the reason; later ones give it.
    with consuming(cloud) as consumer:
        link = consumer._links[PARTITION]
        link.on_disconnect(link._client, None, DisconnectFlags(True), ReasonCode(PacketTypes.DISCONNECT, identifier=0x8E))

        assert consumer.counts["taken_over"] == 1
        assert link.ended.is_set()


def test_whether_the_broker_knew_the_session_is_told(cloud: TlsBroker) -> None:
    heard: list[tuple[str, bool]] = []
    for _ in range(2):
        with consuming(cloud, on_session=lambda *given: heard.append(given)):
            pass

    assert heard == [(client_id(PARTITION), False), (client_id(PARTITION), True)]


def test_a_broker_that_is_away_is_tried_again_and_stop_does_not_wait_for_it(cloud: TlsBroker) -> None:
    cloud.service.stop()
    with consuming(cloud, connect=False) as consumer:
        wait_until(lambda: consumer.states()[0].why, 10, "the first failure")
        assert "refused" in consumer.states()[0].why.lower()
        cloud.service.start()
        wait_until(lambda: consumer.states()[0].up, 20, "the session to be up")
        cloud.service.stop()
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_receipts_reach_their_gateway_alone_and_are_counted_lost_when_there_is_no_link(cloud: TlsBroker) -> None:
    addressed = Addressed(GatewayId(GATEWAY), Receipt(11, 5))
    with consuming(cloud) as consumer, gateway_on(cloud) as peer, gateway_on(cloud, "gw-test-2") as other:
        consumer.receipt(addressed)
        message = peer.receive()
        assert message is not None
        assert b'"up_to":5' in message.payload
        assert other.receive(0.3) is None
        consumer.stop()
        consumer.receipt(addressed)

    assert (consumer.counts["receipts_sent"], consumer.counts["receipts_lost"]) == (1, 1)


def test_a_certificate_of_another_authority_gets_nothing_and_is_named(cloud: TlsBroker, tmp_path) -> None:
    from provisioning.identity import Authority, Realm
    from tests.support.mtls import CLOCK

    stranger = Authority.create(tmp_path / "stranger", realm=Realm.CLOUD, clock=CLOCK)
    config = config_of(cloud, f"sqlite:///{cloud.folder / 'unused.db'}")
    stranger.issue_client(client_id(PARTITION)).write(cloud.folder / "clients", client_id(PARTITION))
    consumer = Consumer(
        config.broker,
        config.partitions,
        clock=make_clock(config.clock),
        timer=make_timer(),
        rng=random.Random(1),
        on_session=lambda *_: None,
    )
    consumer.start()
    try:
        wait_until(lambda: consumer.states()[0].why, 15, "a refusal")
        assert not consumer.states()[0].up
    finally:
        consumer.stop()
