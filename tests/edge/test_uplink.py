"""The uplink against a real Mosquitto with mutual TLS. Nothing is lost, nothing has two effects."""

import asyncio
import time
from dataclasses import replace

import msgspec
import pytest

from edge.uplink import sender as sender_module
from protocol import state
from protocol.frame import Kind
from protocol.state import Live, Presence
from protocol.topics import Lane, Leaf
from tests.support.cloud import Proxy, consuming
from tests.support.mtls import connected
from tests.support.outbox import make_fact, make_row, make_rows
from tests.support.services import eventually
from tests.support.uplink import FAST, fill, run, running, waiting


def test_everything_arrives_once_and_is_forgotten_on_the_receipt(broker, outbox, cloud, config):
    fill(outbox, 40)
    for number in range(5):
        outbox.append_fact(Lane.METERING, make_fact(number)).result(5)

    async def main():
        async with running(config, outbox) as uplink:
            await eventually(lambda: waiting(outbox) == 0)
            assert uplink.status().is_connected
            assert uplink.status().cloud_wall_ms == 1_700_000_000_000
            assert uplink.status().counts.resent == 0

    with consuming(cloud):
        run(main)

    assert sorted(len(seqs) for seqs in cloud.seqs.values()) == [5, 40]
    assert set(cloud.copies.values()) == {1}
    presence = [state.decode(one) for one in cloud.states]
    assert [one.online for one in presence if isinstance(one, Presence)] == [True, False]


def test_what_is_appended_while_connected_follows_at_once(broker, outbox, cloud, config):
    async def main():
        async with running(config, outbox) as uplink:
            await eventually(lambda: uplink.status().is_connected)
            begun = time.monotonic()
            await asyncio.wrap_future(outbox.append_fact(Lane.ALARM, make_fact(1)))
            await eventually(lambda: cloud.arrivals)
            assert cloud.arrivals[0].at_s - begun < 1.0

    with consuming(cloud):
        run(main)


@pytest.mark.slow
def test_a_thousand_records_that_the_killed_broker_had_acknowledged_are_not_lost(broker, outbox, cloud, config):
    """PUBACK is not stored: the session of a stopped ingest dies with its broker, and only receipts know."""
    with consuming(cloud):
        pass  # the worker's session exists, the worker does not
    outbox.append_rows([make_row(1, source_boot=number) for number in range(1000)]).result(30)
    assert outbox.seal_all().result(30) == 1000

    async def main():
        async with running(config, outbox, replace(FAST, unreceipted_max=2048)) as uplink:
            await eventually(lambda: uplink.counts.acknowledged == 1000, 30)
            broker.service.kill()
            broker.service.start()
            with consuming(cloud):
                await eventually(lambda: waiting(outbox) == 0, 30)

    run(main)

    assert len(cloud.records) == 1000
    assert not cloud.conflicts


def test_a_worker_that_loses_its_session_gets_everything_again_after_a_quiet_time(broker, outbox, cloud, config):
    with consuming(cloud):
        pass
    fill(outbox, 30)

    async def main():
        async with running(config, outbox, replace(FAST, resend_s=1.0)) as uplink:
            await eventually(lambda: uplink.counts.acknowledged == 30)
            with connected(broker.port, cloud.credentials):
                pass  # a clean start: what the broker kept for the worker is gone
            with consuming(cloud):
                await eventually(lambda: waiting(outbox) == 0, 20)
            assert uplink.counts.receipts > 0
            assert uplink.status().counts.resent >= 30

    run(main)

    assert len(cloud.records) == 30


def test_a_cloud_whose_receipts_are_lost_sees_copies_and_one_effect(broker, outbox, cloud, config):
    cloud.is_silent = True
    fill(outbox, 5)

    async def main():
        async with running(config, outbox, replace(FAST, resend_s=0.5)):
            await eventually(lambda: len(cloud.arrivals) >= 10)
            assert waiting(outbox) == 5
            cloud.is_silent = False
            await eventually(lambda: waiting(outbox) == 0)

    with consuming(cloud):
        run(main)

    assert len(cloud.records) == 5
    assert not cloud.conflicts


def test_nobody_listening_keeps_every_row_until_somebody_does(broker, outbox, cloud, monkeypatch, config):
    monkeypatch.setattr(sender_module, "NOT_TAKEN_CAP_S", 0.2)
    fill(outbox, 3)

    async def main():
        async with running(config, outbox) as uplink:
            await eventually(lambda: uplink.counts.not_taken >= 2)
            assert waiting(outbox) == 3
            assert "0x10" in uplink.status().why
            with consuming(cloud):
                await eventually(lambda: waiting(outbox) == 0)

    run(main)

    assert len(cloud.records) == 3


def test_a_fact_overtakes_a_backlog_and_live_rows_do_not_wait_for_it(broker, outbox, cloud, config):
    fill(outbox, 400)

    async def main():
        limits = replace(FAST, backlog_per_s=50, backlog_burst=10)
        async with running(config, outbox, limits):
            await eventually(lambda: len(cloud.arrivals) >= 20)
            begun = time.monotonic()
            await asyncio.wrap_future(outbox.append_fact(Lane.METERING, make_fact(1)))
            await asyncio.wrap_future(outbox.append_rows(make_rows([5001, 5002])))
            await asyncio.wrap_future(outbox.seal_all())
            await eventually(lambda: any(one.leaf == Leaf.METERING for one in cloud.arrivals))
            await eventually(lambda: any(one.frame.head.identity.seq == 401 for one in cloud.arrivals if one.leaf == Leaf.TELEMETRY))
            late = max(one.at_s - begun for one in cloud.arrivals if one.leaf == Leaf.METERING or one.frame.head.identity.seq == 401)
            assert late < 2.0
            assert len(cloud.arrivals) < 300

    with consuming(cloud):
        run(main)


def test_a_damaged_row_in_the_middle_does_not_stop_the_others(broker, outbox, cloud, config):
    fill(outbox, 10)
    outbox._writer.submit(lambda: outbox._store._database.run("update record set data = x'00' where seq = 4")).result(5)

    async def main():
        async with running(config, outbox):
            await eventually(lambda: waiting(outbox) == 0)

    with consuming(cloud):
        run(main)

    telemetry = [one for one in cloud.arrivals if one.leaf == Leaf.TELEMETRY]
    assert sorted(one.frame.head.identity.seq for one in telemetry) == list(range(1, 11))
    assert [one.frame.head.identity.seq for one in telemetry if one.frame.head.kind == Kind.TOMBSTONE] == [4]


def test_live_values_go_out_when_connected_and_are_counted_when_not(broker, outbox, cloud, config):
    live = Live("cooler-0001", "icecap-cooler", 5, {"flow": 1})

    async def main():
        async with running(config, outbox) as uplink:
            assert not uplink.publish_live(live)
            await eventually(lambda: uplink.status().is_connected)
            assert uplink.publish_live(live)
            await eventually(lambda: any(state.decode(one) == live for one in cloud.states))
            assert (uplink.counts.live_sent, uplink.counts.live_shed) == (1, 1)

    with consuming(cloud):
        run(main)


def test_a_half_open_link_is_noticed_within_two_keepalives(broker, outbox, cloud, config):
    proxy = Proxy(broker.port)
    proxy.start()

    async def main():
        async with running(msgspec.structs.replace(config, port=proxy.port, keepalive_s=1), outbox) as uplink:
            await eventually(lambda: uplink.status().is_connected)
            proxy.is_deaf = True
            begun = time.monotonic()
            fill_later = asyncio.wrap_future(outbox.append_fact(Lane.METERING, make_fact(1)))
            await fill_later
            await eventually(lambda: not uplink.status().is_connected, 10)
            assert time.monotonic() - begun < 4.0
            proxy.is_deaf = False
            await eventually(lambda: waiting(outbox) == 0, 15)

    with consuming(cloud):
        run(main)
    proxy.stop()

    assert len(cloud.records) == 1


def test_an_idle_link_that_died_is_noticed_too(broker, outbox, config):
    proxy = Proxy(broker.port)
    proxy.start()

    async def main():
        async with running(msgspec.structs.replace(config, port=proxy.port, keepalive_s=1), outbox) as uplink:
            await eventually(lambda: uplink.status().is_connected)
            proxy.is_deaf = True
            begun = time.monotonic()
            await eventually(lambda: not uplink.status().is_connected, 10)
            assert time.monotonic() - begun < 5.0

    run(main)
    proxy.stop()
