"""The uplink against brokers that misbehave, wrong certificates and a stop at the wrong moment. It fails closed and loses nothing."""

import asyncio
import random
import ssl
import threading
import time
from dataclasses import replace

import pytest

from edge.outbox import Outbox
from edge.settings import CloudConfig
from edge.uplink import Uplink
from edge.uplink import link as link_module
from edge.uplink import sender as sender_module
from edge.uplink.link import Link
from protocol import topics
from protocol.frame import Kind
from protocol.topics import Lane, Leaf
from provisioning.identity import Authority, Realm
from tests.support.cloud import consuming
from tests.support.mtls import CLOCK
from tests.support.outbox import GATEWAY, make_fact, make_row
from tests.support.services import HOST, eventually
from tests.support.uplink import FAST, LIMITS, config_for, credentials, fill, make_uplink, run, running, waiting

# Brokers that misbehave.


def test_never_more_unanswered_than_the_broker_takes_also_after_a_reconnect(fake, outbox, fake_config):
    fake.receive_maximum = 10
    fake.answer = lambda _number, topic, _payload: None if topic.endswith(b"/t") else 0
    fill(outbox, 50)

    async def main():
        async with running(fake_config, outbox) as uplink:
            seen = 0
            for number in (1, 2):
                await eventually(lambda: len(fake.connected_at_s) >= number and uplink.status().is_connected, 15)  # noqa: B023
                await eventually(lambda: uplink.status().in_flight >= 7)
                await asyncio.sleep(0.3)  # time for one too many
                sent = sum(topic.endswith(b"/t") for topic, _ in fake.published)
                assert sent - seen <= 10
                seen = sent
                fake.kick()
                await eventually(lambda: not uplink.status().is_connected)

    run(main)

    payloads = [payload for topic, payload in fake.published if topic.endswith(b"/t")]
    assert len(payloads) == 2 * len(set(payloads)), "the same ones again, and no other"


@pytest.mark.parametrize("code", [0x87, 0x97, 0x80, 0x10])
def test_a_puback_that_is_no_success_keeps_the_row(fake, outbox, monkeypatch, code, fake_config):
    monkeypatch.setattr(sender_module, "NOT_TAKEN_CAP_S", 0.1)
    refused = threading.Event()

    def answer(_number, topic, _payload):
        if not topic.endswith(b"/m") or refused.is_set():
            return 0
        refused.set()
        return code

    fake.answer = answer
    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: uplink.counts.acknowledged == 1)
            assert uplink.counts.not_taken == 1
            assert waiting(outbox) == 1, "no receipt, no deletion"

    run(main)


def test_a_block_over_the_brokers_limit_is_set_aside_and_the_others_flow(fake, outbox, fake_config):
    fake.packet_bytes_max = 17_000
    profile = make_row(1).profile
    wide = replace(profile, channels=tuple(profile.channels[0] for _ in range(120)))
    rng = random.Random(1)
    rows = []
    for counter in range(1, 41):
        row = make_row(counter)
        codes = tuple(rng.randrange(-(2**60), 2**60) for _ in range(120))
        rows.append(replace(row, profile=wide, quality=bytes(120), reading=replace(row.reading, codes=codes)))
    outbox._store._limits = replace(LIMITS, seal_rows=100)
    outbox.append_rows(rows).result(5)
    outbox.seal_all().result(5)
    fill(outbox, 3, first=1000)

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: uplink.counts.acknowledged == 4)
            assert uplink.counts.too_large == uplink.counts.refused == 1
            assert fake.connections == 1

    run(main)

    assert outbox.stats().quarantined == 1
    assert max(len(payload) for _, payload in fake.published) < 17_000


def test_a_broker_that_takes_almost_nothing_is_not_obeyed(fake, outbox, fake_config):
    fake.packet_bytes_max = 900
    fill(outbox, 3)

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: "takes only 900 bytes" in uplink.status().why)

    run(main)

    assert waiting(outbox) == 3
    assert outbox.stats().quarantined == 0


def test_a_payload_that_the_broker_calls_invalid_is_set_aside_unless_it_is_a_fact(fake, outbox, monkeypatch, fake_config):
    monkeypatch.setattr(sender_module, "NOT_TAKEN_CAP_S", 0.1)
    bad: set[bytes] = set()

    def answer(_number, topic, payload):
        if topic.endswith((b"/t", b"/m")) and payload not in bad and len(bad) < 2:
            bad.add(payload)
            return 0x99
        return 0

    fake.answer = answer
    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)
    fill(outbox, 3)

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: uplink.counts.acknowledged == 4)
            assert uplink.counts.refused == 1

    run(main)

    kinds = [one.kind for one in outbox.read(Lane.TELEMETRY).result(5)]
    assert sorted(kinds) == [Kind.BLOCK, Kind.BLOCK, Kind.TOMBSTONE]


def test_a_lost_puback_sends_the_same_bytes_again(fake, outbox, fake_config):
    fake.answer = lambda number, topic, _payload: None if number == 1 and topic.endswith(b"/m") else 0
    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: any(topic.endswith(b"/m") for topic, _ in fake.published))
            fake.kick()
            await eventually(lambda: uplink.counts.acknowledged == 1)

    run(main)

    copies = [payload for topic, payload in fake.published if topic.endswith(b"/m")]
    assert len(copies) == 2
    assert len(set(copies)) == 1


def test_accept_then_kick_does_not_become_a_loop(fake, outbox, fake_config):
    fake.after_connack = lambda broker, _tls: broker.kick()

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: fake.connections >= 4, 30)
            await eventually(lambda: uplink._backoff.failures >= 4)

    begun = time.monotonic()
    run(main)

    gaps = [later - earlier for earlier, later in zip(fake.connected_at_s, fake.connected_at_s[1:], strict=False)]
    assert len({round(gap, 1) for gap in gaps}) > 1, "jittered"
    assert time.monotonic() - begun > 0.5


def test_a_session_that_another_gateway_took_over_is_counted_and_reported_once(fake, outbox, fake_config):
    """Mosquitto 2.0 closes the older connection without a word; brokers that say why say 0x8E."""
    fake.after_connack = lambda _broker, tls: tls.sendall(b"\xe0\x02\x8e\x00")

    async def main():
        async with running(fake_config, outbox) as uplink:
            await eventually(lambda: uplink.counts.taken_over >= 2, 20)

    run(main)

    assert outbox.stats().lanes[Lane.ALARM].records == 1


@pytest.mark.parametrize("callback", ["on_connect", "on_subscribe", "on_publish", "on_message"])
def test_an_exception_in_a_callback_ends_the_connection_and_the_next_one_works(broker, outbox, cloud, monkeypatch, callback, config):
    real = getattr(Link, callback)
    failures = iter([True])

    def failing(self, *args):
        if next(failures, False):
            raise RuntimeError("boom")
        real(self, *args)

    failing.__name__ = callback
    monkeypatch.setattr(Link, callback, failing)
    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)
    reasons = []
    real_down = Uplink._on_down

    def on_down(self, event):
        reasons.append(event.why)
        real_down(self, event)

    monkeypatch.setattr(Uplink, "_on_down", on_down)

    async def main():
        async with running(config, outbox, replace(FAST, resend_s=0.5)):
            await eventually(lambda: waiting(outbox) == 0)

    with consuming(cloud):
        run(main)

    assert reasons[0] == f"{callback}: RuntimeError: boom"
    assert len(cloud.records) == 1


def test_a_network_thread_that_ended_without_a_word_is_noticed(broker, outbox, config):
    async def main():
        async with running(config, outbox) as uplink:
            await eventually(lambda: uplink.status().is_connected and not uplink._is_expecting)
            assert uplink._link is not None
            uplink._link._client._thread_terminate = True
            await eventually(lambda: uplink.counts.connects == 2)

    run(main)


def test_receipts_that_cannot_be_read_or_are_not_ours_delete_nothing(broker, outbox, cloud, config):
    cloud.is_silent = True
    fill(outbox, 2)

    async def main():
        async with running(config, outbox) as uplink:
            await eventually(lambda: len(cloud.arrivals) == 2)
            assert cloud._client is not None
            ack = topics.build(GATEWAY, Leaf.RECEIPT)
            for payload in (b"noise", b'{"stream": 5, "up_to": 99}', b'{"stream": -1, "up_to": 1}'):
                cloud._client.publish(ack, payload, qos=1)
            await eventually(lambda: uplink.counts.receipts_unreadable == 2 and outbox.stats().counts.receipts_foreign == 1)
            assert waiting(outbox) == 2

    with consuming(cloud):
        run(main)


# TLS fails closed.


def refuse(config: CloudConfig, outbox: Outbox, expected: str) -> None:
    async def main():
        async with running(config, outbox) as uplink:
            await eventually(lambda: expected in uplink.status().why, 10)
            assert uplink.counts.connects == 0

    run(main)


def test_a_broker_of_another_authority_is_not_spoken_to(fake, authority, outbox, tmp_path):
    shown = credentials(authority, tmp_path / "client")
    other = Authority.create(tmp_path / "other", realm=Realm.CLOUD, clock=CLOCK)
    shown.ca.write_bytes(other.root)

    refuse(config_for(fake.port, shown), outbox, "CERTIFICATE_VERIFY_FAILED")

    assert fake.published == []
    assert fake.connected_at_s == []


def test_a_broker_of_another_name_is_not_spoken_to(fake, authority, outbox, tmp_path, fake_config):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue_server(["broker.example"], []).write(tmp_path / "elsewhere", "server"))
    fake.context = context

    refuse(fake_config, outbox, "CERTIFICATE_VERIFY_FAILED")

    assert fake.connected_at_s == []


def test_a_broker_without_tls_hears_no_mqtt(mosquitto, authority, outbox, tmp_path):
    plain = mosquitto()
    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)

    refuse(config_for(plain.port, credentials(authority, tmp_path / "client")), outbox, "Error")

    assert GATEWAY not in plain.log_text()


def test_a_gateway_without_its_key_does_not_connect_at_all(fake, authority, outbox, tmp_path):
    shown = credentials(authority, tmp_path / "client")
    shown.key.unlink()

    refuse(config_for(fake.port, shown), outbox, "FileNotFoundError")

    assert fake.connections == 0


# Stopping.


@pytest.mark.parametrize("mute", ["pubacks", "broker"])
def test_stopping_is_bounded_with_a_mute_broker_and_loses_nothing(broker, outbox, cloud, mute, config):
    with consuming(cloud):
        pass
    fill(outbox, 30)

    async def main():
        uplink = make_uplink(config, outbox)
        task = asyncio.create_task(uplink.run())
        await eventually(lambda: uplink.status().is_connected)
        broker.service.pause()
        if mute == "pubacks":
            await asyncio.wrap_future(outbox.append_fact(Lane.METERING, make_fact(1)))
        begun = time.monotonic()
        uplink.stop()
        await asyncio.wait_for(task, 10)
        assert time.monotonic() - begun < 5.0

    run(main)
    broker.service.resume()

    assert outbox.stats().lanes[Lane.TELEMETRY].records == 30


def test_cancelling_is_as_good_as_stopping(broker, outbox, config):
    async def main():
        uplink = make_uplink(config, outbox)
        task = asyncio.create_task(uplink.run())
        await eventually(lambda: uplink.status().is_connected)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_stopping_while_the_broker_does_not_answer_is_bounded(authority, outbox, tmp_path, monkeypatch):
    monkeypatch.setattr(link_module, "CONNECT_S", 1.5)
    import socket

    mute = socket.create_server((HOST, 0))  # accepts by the kernel's backlog and never says a word

    muted = config_for(mute.getsockname()[1], credentials(authority, tmp_path / "client"))

    async def main():
        uplink = make_uplink(muted, outbox)
        task = asyncio.create_task(uplink.run())
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        uplink.stop()
        await asyncio.wait_for(task, 10)
        assert time.monotonic() - begun < 2.0

    run(main)
    mute.close()
