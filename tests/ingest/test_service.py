import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event, func, select

import ingest
from ingest import schema
from ingest.config import parse
from ingest.consumer import Consumer
from ingest.projection import State
from ingest.rollup import RollupProjection
from ingest.store import Store
from protocol import state
from protocol.frame import FRAME_BYTES_MAX
from protocol.state import Presence
from protocol.topics import Lane
from tests.ingest.applying import rows_in
from tests.ingest.cloud import Process, config_of, config_text, gateway_on, heard, receipts, serving
from tests.ingest.conftest import REVOKED_GATEWAY, register
from tests.ingest.frames import Gateway, flipped, with_version
from tests.support import services
from tests.support.mtls import TlsBroker
from tests.support.services import wait_until

pytestmark = pytest.mark.service

NOISE_BYTES = 10_000_000  # forty times what the broker takes
OURS = Path(ingest.__file__).parent


def count(store: Store, table) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_frames_of_all_lanes_reach_the_store_and_receipts_come_back(cloud: TlsBroker, ready_url: str, store: Store) -> None:
    gateway = Gateway()
    with serving(config_of(cloud, ready_url)) as service, gateway_on(cloud) as peer:
        for message in [gateway.block(), gateway.fact(), gateway.block(), gateway.fact(lane=Lane.ALARM), gateway.block()]:
            assert peer.publish(message.topic, message.payload) == 0
        telemetry = receipts(peer, until=3)
        peer.publish(gateway.state(b"").topic, state.encode(Presence(True, 7, "0.1")))
        wait_until(lambda: rows_in(store, schema.gateway_status)[0].online, 10, "presence")
        wait_until(lambda: service.consumer.states()[0].unacked == 0, 10, "all to be acknowledged")

    assert (telemetry.gaps, telemetry.seen) == ((), 3)
    assert sorted(row.seq for row in rows_in(store, schema.block)) == [1, 2, 3]
    assert sorted(row.lane for row in rows_in(store, schema.fact)) == ["a", "m"]
    assert rows_in(store, schema.dead_letter) == []


def test_bad_messages_are_refused_by_name_acked_and_counted_and_the_next_good_block_flows(
    cloud: TlsBroker, ready_url: str, store: Store
) -> None:
    gateway, revoked = Gateway(), Gateway(REVOKED_GATEWAY)
    good = gateway.block()
    bad = {
        "bad_checksum": flipped(good, 999).payload,
        "bad_magic": os.urandom(1000),
        "too_short": b"",
        "foreign_gateway": Gateway("gw-test-2").block().payload,
        "unknown_version": with_version(gateway.block(), 2).payload,
        "too_long": os.urandom(FRAME_BYTES_MAX + 1),
    }
    partitions = sorted({good.topic.split("/")[2], revoked.block().topic.split("/")[2]})

    with serving(config_of(cloud, ready_url, partitions=partitions)) as service:
        with gateway_on(cloud) as peer:
            for payload in bad.values():
                assert peer.publish(good.topic, payload) == 0
            peer.publish(good.topic, good.payload)
            receipts(peer, until=2)
        with gateway_on(cloud, REVOKED_GATEWAY) as peer:
            message = revoked.block()
            peer.publish(message.topic, message.payload)
            wait_until(lambda: service.worker.totals.refusals["revoked_gateway"], 10, "the refusal")
            assert peer.receive(0.3) is None
        wait_until(lambda: all(one.unacked == 0 for one in service.consumer.states()), 10, "all to be acknowledged")
        metrics = service._metrics.text().decode()

    assert count(store, schema.block) == 1
    assert {row.reason for row in rows_in(store, schema.dead_letter)} == {*bad, "revoked_gateway"}
    for reason in (*bad, "revoked_gateway"):
        assert f'icecap_ingest_refused_total{{reason="{reason}"}} 1.0' in metrics


def test_a_packet_over_the_brokers_limit_costs_only_its_sender_the_connection(cloud: TlsBroker, ready_url: str, store: Store) -> None:
    gateway = Gateway()
    with serving(config_of(cloud, ready_url)):
        with gateway_on(cloud) as noisy:
            noisy.client.publish(gateway.block().topic, os.urandom(NOISE_BYTES), qos=1)
            assert noisy.closed.get(timeout=10).is_failure
        with gateway_on(cloud) as peer:
            message = gateway.block()
            peer.publish(message.topic, message.payload)
            wait_until(lambda: count(store, schema.block) == 1, 10, "the good block")


@pytest.mark.slow
def test_killed_between_commit_and_ack_everything_comes_again_and_counts_once(cloud: TlsBroker, process: Process, store: Store) -> None:
    gateway = Gateway()
    messages = [gateway.block() for _ in range(20)] + [gateway.fact() for _ in range(5)]
    process.start("import os, ingest.consumer as c; c.Consumer.ack = lambda *_: os.kill(os.getpid(), 9)")

    with gateway_on(cloud) as peer:
        for message in messages:
            peer.publish(message.topic, message.payload)
        assert process.wait() == -signal.SIGKILL
        stored = count(store, schema.block) + count(store, schema.fact)
        process.start()
        wait_until(
            lambda: {row.lane: row.up_to for row in rows_in(store, schema.stream)} == {"t": 20, "m": 5}, 15, "everything to be stored"
        )
        # What was committed and not acknowledged comes again; up_to says nothing of that when the kill came after the last commit.
        wait_until(lambda: sum(row.duplicates for row in rows_in(store, schema.stream)) >= stored, 15, "what was stored to come again")

    assert stored > 0  # it was killed after a commit, with its messages unacknowledged
    assert (count(store, schema.block), count(store, schema.fact)) == (20, 5)
    assert rows_in(store, schema.device_seen)[0].blocks == 20
    assert rows_in(store, schema.conflict) == []


def test_a_lost_receipt_is_sent_again_when_the_gateway_sends_again(cloud: TlsBroker, ready_url: str, store: Store, monkeypatch) -> None:
    message = Gateway().block()
    sent = Consumer.receipt
    lost: list[object] = []
    monkeypatch.setattr(Consumer, "receipt", lambda self, one: sent(self, one) if lost else lost.append(one))

    with serving(config_of(cloud, ready_url)), gateway_on(cloud) as peer:
        peer.publish(message.topic, message.payload)
        wait_until(lambda: lost, 10, "the receipt that is lost")
        assert peer.receive(0.3) is None
        peer.publish(message.topic, message.payload)
        assert receipts(peer, until=1).up_to == 1

    assert count(store, schema.block) == 1
    assert rows_in(store, schema.stream)[0].duplicates == 1


def test_messages_wait_at_the_broker_while_nobody_ingests(cloud: TlsBroker, ready_url: str, store: Store) -> None:
    gateway = Gateway()
    with serving(config_of(cloud, ready_url)):
        pass  # the session exists now
    with gateway_on(cloud) as peer:
        for _ in range(200):
            message = gateway.block()
            peer.publish(message.topic, message.payload)
        with serving(config_of(cloud, ready_url)):
            receipts(peer, until=200)

    assert sorted(row.seq for row in rows_in(store, schema.block)) == list(range(1, 201))
    assert [row.lost for row in rows_in(store, schema.consumer_session)] == [0]


def test_a_session_that_the_broker_forgot_is_told(cloud: TlsBroker, ready_url: str, store: Store) -> None:
    with serving(config_of(cloud, ready_url)) as service:
        wait_until(lambda: count(store, schema.consumer_session) == 1, 10, "the session to be noted")
        cloud.service.kill()
        for path in cloud.files.data.iterdir():
            path.unlink()
        cloud.service.start()
        wait_until(lambda: service.worker.totals.sessions_lost == 1, 20, "the lost session to be noted")

    assert [row.kind for row in rows_in(store, schema.event)] == ["session_lost"]


def test_a_killed_broker_is_found_again_and_nothing_is_written_twice(cloud: TlsBroker, ready_url: str, store: Store) -> None:
    gateway = Gateway()
    messages = [gateway.block() for _ in range(30)]
    with serving(config_of(cloud, ready_url)) as service:
        with gateway_on(cloud) as peer:
            for message in messages[:15]:
                peer.publish(message.topic, message.payload)
            receipts(peer, until=15)
        cloud.service.kill()
        wait_until(lambda: not service.report().ok, 10, "health to say so")
        cloud.service.start()
        wait_until(lambda: service.report().ok, 20, "the session to be back")
        with gateway_on(cloud) as peer:
            for message in messages:  # a gateway without receipts sends everything again
                peer.publish(message.topic, message.payload)
            receipts(peer, until=30)

    assert sorted(row.seq for row in rows_in(store, schema.block)) == list(range(1, 31))


def test_a_database_that_goes_away_costs_nothing(cloud: TlsBroker, require: Callable[[str], Path]) -> None:
    gateway = Gateway()
    directory = Path(tempfile.mkdtemp(prefix="icecap-postgres-"))  # its user must be able to enter, unlike pytest's folder
    database = services.make_postgres(require("postgres"), directory)
    database.start()
    url = database.create_database()
    store = Store.open(url)
    store.migrate()
    register(store)

    with serving(config_of(cloud, url)) as service, gateway_on(cloud) as peer:
        first = gateway.block()
        peer.publish(first.topic, first.payload)
        receipts(peer, until=1)
        database.kill()
        for _ in range(150):  # more than Receive Maximum: the rest waits at the broker
            message = gateway.block()
            peer.publish(message.topic, message.payload)
        wait_until(lambda: service.worker.totals.store_down, 20, "the outage to be noticed")
        assert not service.report().ok
        waiting = service.consumer.states()[0].unacked
        database.start()
        receipts(peer, until=151, timeout_s=30)
        assert service.report().ok

    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.block)).scalar_one() == 151
    assert waiting > 0  # unacknowledged while the database was away
    store.close()
    database.stop()
    shutil.rmtree(directory)


@pytest.mark.slow
@pytest.mark.parametrize("ready_url", ["sqlite"], indirect=True)  # PostgreSQL's disk is another process's; the test above is its case
def test_a_full_disk_loses_nothing(cloud: TlsBroker, process: Process, store: Store) -> None:
    gateway = Gateway()
    limit = 400_000  # bytes that any file of the process may have: the write-ahead log meets it within some commits
    process.start(f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")

    sent = [gateway.block() for _ in range(300)]
    with gateway_on(cloud) as peer:
        for message in sent:
            peer.publish(message.topic, message.payload)
        wait_until(lambda: b"ingest_store_down" in process.log.read_bytes(), 40, "the disk to be full")
        process.signal(signal.SIGTERM)
        process.wait()
        promised = max((one.up_to for one in heard(peer)), default=0)
        stored = {row.seq for row in rows_in(store, schema.block)}
        assert set(range(1, promised + 1)) <= stored, "a receipt that was given speaks the truth after the disk was full"
        process.start()
        for message in sent:  # as a gateway does with what has no receipt; Mosquitto forgets some of what it sent beyond Receive Maximum
            peer.publish(message.topic, message.payload)
        receipts(peer, until=300, timeout_s=30)

    assert 0 <= len(stored) < 300
    assert sorted(row.seq for row in rows_in(store, schema.block)) == list(range(1, 301))


@pytest.mark.slow
def test_a_stop_takes_less_than_five_seconds_and_ends_well(cloud: TlsBroker, process: Process, store: Store) -> None:
    gateway = Gateway()
    process.start()
    with gateway_on(cloud) as peer:
        for _ in range(100):
            message = gateway.block()
            peer.publish(message.topic, message.payload)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        code = process.wait()
        took = time.monotonic() - began

    assert code == 0
    assert took < 5
    assert not process.socket.exists()


def test_a_dead_projection_stops_nobody(cloud: TlsBroker, ready_url: str, store: Store, free_port, monkeypatch) -> None:
    def bug(_self: RollupProjection) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(RollupProjection, "step", bug)
    nowhere = f'[influx]\nurl = "http://127.0.0.1:{free_port()}"\nbucket = "none"\napi = "v1"\n'
    text = config_text(cloud, ready_url).replace("rollup = false", "rollup = true") + nowhere
    config = parse(text, folder=cloud.folder, environment={})
    gateway = Gateway()
    with serving(config) as service, gateway_on(cloud) as peer:
        message = gateway.block()
        peer.publish(message.topic, message.payload)
        receipts(peer, until=1)
        wait_until(lambda: service.report().parts["projection influx"].ok is False, 10, "the sink's part to say so")
        wait_until(lambda: service.report().parts["projection rollup"].ok is False, 10, "the broken one's part to say so")
        report = service.report()
        states = {one.name: one.state for one in service._projection_states()}

    assert report.ok
    assert states["rollup"] is State.STOPPED
    assert count(store, schema.block) == 1


def test_from_the_broker_to_the_ledger_are_at_most_four_of_our_functions(cloud: TlsBroker, ready_url: str, store: Store) -> None:
    stacks: list[list[str]] = []
    message = Gateway().block()
    with serving(config_of(cloud, ready_url)) as service, gateway_on(cloud) as peer:

        def look(_connection, _cursor, statement: str, *_rest) -> None:
            if statement.lower().startswith("insert into block"):
                ours = [
                    one.name
                    for one in traceback.extract_stack()
                    if f"{os.sep}ingest{os.sep}" in one.filename and "tests" not in one.filename
                ]
                stacks.append(ours)

        event.listen(service.store.engine, "before_cursor_execute", look)
        peer.publish(message.topic, message.payload)
        receipts(peer, until=1)

    (stack,) = stacks
    carrying = ["on_message", *[name for name in stack if name not in {"_work", "run"}]]  # the loops around it carry no message
    assert carrying == ["on_message", "turn", "apply_batch", "write"]
