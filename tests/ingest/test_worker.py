import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from ingest import schema, worker
from ingest.apply import Applied, Reader, apply_batch
from ingest.arrivals import Incoming, read
from ingest.profiles import Profiles
from ingest.receipts import Addressed
from ingest.source import Delivery
from ingest.store import Store, StoreDownError
from ingest.worker import Worker
from protocol.clock import ManualClock
from protocol.refusal import Reason
from tests.ingest.applying import rows_in
from tests.ingest.frames import START_MS, Gateway


class MemorySource:
    """A source that keeps what is not acknowledged, as the interface says."""

    def __init__(self, store: Store, *batches: Sequence[Incoming]) -> None:
        self.store = store
        self.batches = deque(
            [[Delivery(message, (at, number)) for number, message in enumerate(batch)] for at, batch in enumerate(batches)]
        )
        self.log: list[object] = []

    def receive(self, timeout_s: float) -> Sequence[Delivery]:  # noqa: ARG002 - the interface's
        return self.batches.popleft() if self.batches else []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        with self.store.reading() as connection:
            stored = connection.execute(select(func.count()).select_from(schema.block)).scalar_one()
        self.log.append(("ack", [one.handle for one in deliveries], stored))

    def receipt(self, addressed: Addressed) -> None:
        self.log.append(("receipt", addressed.receipt.up_to))


def worker_on(store: Store, source: MemorySource) -> Worker:
    clock = ManualClock(START_MS)
    return Worker(store, source, profiles=Profiles(), clock=clock, timer=lambda: clock.monotonic / 1000, rng=random.Random(1))


def test_acknowledged_after_the_commit_in_order_and_receipted_after_that(store: Store) -> None:
    gateway = Gateway()
    source = MemorySource(store, [gateway.block() for _ in range(3)], [gateway.block()])
    one = worker_on(store, source)

    one.turn()
    one.turn()

    assert source.log == [
        ("ack", [(0, 0), (0, 1), (0, 2)], 3),
        ("receipt", 3),
        ("ack", [(1, 0)], 4),
        ("receipt", 4),
    ]
    assert one.totals.messages == {"stored": 4}


def test_a_message_that_makes_us_fail_is_parked_and_the_others_go_on(store: Store, monkeypatch) -> None:
    gateway = Gateway()
    messages = [gateway.block(device=f"cooler-{at:04d}") for at in range(1, 6)]

    def fragile(connection: Connection, batch: Sequence[Incoming], *, reader: Reader = read, **given: Any) -> Applied:
        if messages[2] in batch and reader is read:
            raise ZeroDivisionError("a bug of ours")
        return apply_batch(connection, batch, reader=reader, **given)

    monkeypatch.setattr(worker, "apply_batch", fragile)
    source = MemorySource(store, messages)
    one = worker_on(store, source)

    one.turn()

    assert sorted(row.seq for row in rows_in(store, schema.block)) == [1, 2, 4, 5]
    (parked,) = rows_in(store, schema.parked)
    assert (parked.seq, parked.reason, parked.data) == (3, Reason.INTERNAL, messages[2].payload)
    assert source.log[0] == ("ack", [(0, at) for at in range(5)], 4)
    assert source.log[-1] == ("receipt", 5)
    assert (one.totals.poison, one.totals.refusals) == (1, {"internal": 1})


def test_a_database_that_is_down_is_asked_again_and_nothing_is_acked_meanwhile(store: Store, monkeypatch) -> None:
    failures = 3
    source = MemorySource(store, [Gateway().block()])
    one = worker_on(store, source)
    transaction = store.transaction
    waits: list[float] = []

    def fails():
        nonlocal failures
        if failures:
            failures -= 1
            assert source.log == []
            raise StoreDownError("gone")
        return transaction()

    monkeypatch.setattr(store, "transaction", fails)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    monkeypatch.setattr(one._stop, "wait", wait)

    one.turn()

    assert len(waits) == 3
    assert all(0 <= wait <= worker.BACK_OFF_S_MAX for wait in waits)
    assert source.log == [("ack", [(0, 0)], 1), ("receipt", 1)]
    assert (one.totals.store_failures, one.totals.store_down) == (3, False)


def test_told_to_stop_while_the_database_is_down_it_leaves_everything_to_the_broker(store: Store, monkeypatch) -> None:
    source = MemorySource(store, [Gateway().block()])
    one = worker_on(store, source)

    def fails():
        raise StoreDownError("gone")

    monkeypatch.setattr(store, "transaction", fails)
    one.stop()

    one.turn()

    assert source.log == []


def test_what_fails_even_unread_is_no_messages_fault(store: Store, monkeypatch) -> None:
    def broken(*_given, **_named):
        raise ZeroDivisionError("every message")

    monkeypatch.setattr(worker, "apply_batch", broken)
    source = MemorySource(store, [Gateway().block()])

    with pytest.raises(ZeroDivisionError):
        worker_on(store, source).turn()

    assert source.log == []


def test_a_lost_session_is_an_event_and_a_first_one_is_not(store: Store) -> None:
    one = worker_on(store, MemorySource(store))
    for present in (False, True, False):
        one.note_session("ingest-p03", present)

    one.turn()

    (row,) = rows_in(store, schema.consumer_session)
    assert (row.client_id, row.lost) == ("ingest-p03", 1)
    assert [row.kind for row in rows_in(store, schema.event)] == ["session_lost"]
    assert one.totals.sessions_lost == 1
