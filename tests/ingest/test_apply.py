from collections.abc import Sequence

import pytest

from ingest import schema
from ingest.intake import Outcome
from ingest.store import Store
from protocol import block, frame
from protocol.facts import AlarmRaised, CounterRead, TokenPresented
from protocol.receipt import Gap
from protocol.tombstone import Cause
from protocol.topics import Lane
from tests.ingest.applying import apply_in, kinds, receipt, receipt_of, rows_in
from tests.ingest.frames import PROFILE, START_MS, Gateway, rows_of, sha256


def test_a_block_becomes_a_row_that_holds_the_bytes_that_arrived(store: Store) -> None:
    message = Gateway().block()

    applied = apply_in(store, message)

    (row,) = rows_in(store, schema.block)
    assert applied.outcomes == (Outcome.STORED,)
    assert (row.arrival, row.gateway, row.stream, row.seq) == (1, "gw-test-1", 11, 1)
    assert (row.device, row.profile, row.profile_version, row.rows) == ("cooler-0001", PROFILE.id, PROFILE.version, 60)
    assert (row.t0_ms, row.t1_ms) == (START_MS + 60_000, START_MS + 119_000)
    assert (row.counter_first, row.counter_last, row.boot, row.source_boot) == (60, 119, "fffffffffffffffb", "0000000000000007")
    assert (row.data, row.sha256) == (message.payload, sha256(message))
    assert receipt_of(applied) == receipt(1)
    assert applied.receipts[0].gateway == "gw-test-1"


def test_a_duplicate_is_stored_once_and_receipted_again(store: Store) -> None:
    message = Gateway().block()

    first = apply_in(store, message)
    again = apply_in(store, message, message)

    assert again.outcomes == (Outcome.DUPLICATE, Outcome.DUPLICATE)
    assert receipt_of(again) == receipt_of(first)
    assert len(rows_in(store, schema.block)) == 1
    assert rows_in(store, schema.stream)[0].duplicates == 2
    assert rows_in(store, schema.device_seen)[0].blocks == 1
    assert rows_in(store, schema.dead_letter) == []


def test_a_duplicate_within_one_batch_is_stored_once(store: Store) -> None:
    message, fact = Gateway().block(), Gateway().fact()

    applied = apply_in(store, message, fact, message, fact)

    assert applied.outcomes == (Outcome.STORED, Outcome.STORED, Outcome.DUPLICATE, Outcome.DUPLICATE)
    assert (len(rows_in(store, schema.block)), len(rows_in(store, schema.fact))) == (1, 1)


def test_a_known_number_with_other_bytes_is_kept_and_told(store: Store) -> None:
    original, restored = Gateway(), Gateway()
    apply_in(store, original.block(rows=rows_of(1, 10)))

    applied = apply_in(store, restored.block(rows=rows_of(2, 10)), restored.block())

    assert applied.outcomes == (Outcome.CONFLICT, Outcome.STORED)
    assert receipt_of(applied).up_to == 2
    (conflict,) = rows_in(store, schema.conflict)
    assert (conflict.seq, conflict.kind, conflict.device, conflict.lane) == (1, "block", "cooler-0001", "t")
    assert kinds(store) == ["conflict"]
    (kept,) = [row for row in rows_in(store, schema.block) if row.seq == 1]
    assert block.decode(frame.decode(kept.data).body).counters[0] == 1  # type: ignore[union-attr,index]


def test_the_same_conflict_is_told_once(store: Store) -> None:
    apply_in(store, Gateway().block(rows=rows_of(1, 10)))
    restored = Gateway().block(rows=rows_of(2, 10))

    apply_in(store, restored)
    apply_in(store, restored, restored)

    assert len(rows_in(store, schema.conflict)) == 1
    assert kinds(store) == ["conflict"]


def test_a_restored_gateways_session_facts_are_kept_with_their_session(store: Store) -> None:
    apply_in(store, Gateway().fact(CounterRead("cooler-0001", "lifetime_s", 1)))

    applied = apply_in(store, Gateway().fact(TokenPresented("cooler-0002", 1, b"h" * 32, "APPLIED", "nfc", b"s" * 16)))

    assert applied.outcomes == (Outcome.CONFLICT,)
    (row,) = rows_in(store, schema.conflict)
    assert (row.kind, row.device, row.lane, row.session) == ("token_presented", "cooler-0002", "m", b"s" * 16)


def test_records_out_of_order_leave_gaps_until_they_are_all_there(store: Store) -> None:
    gateway = Gateway()
    one, two, three, four, five = (gateway.block() for _ in range(5))

    assert receipt_of(apply_in(store, two, five)) == receipt(0, Gap(1, 1), Gap(3, 4), seen=5)
    assert receipt_of(apply_in(store, one)) == receipt(2, Gap(3, 4), seen=5)
    assert receipt_of(apply_in(store, four)) == receipt(2, Gap(3, 3), seen=5)
    assert receipt_of(apply_in(store, three)) == receipt(5)
    assert rows_in(store, schema.gap) == []


def test_a_receipt_names_the_first_gaps_when_there_are_many(store: Store) -> None:
    gateway = Gateway()
    messages = [gateway.block(rows=rows_of(1, 1)) for _ in range(200)]

    first = receipt_of(apply_in(store, *messages[1::2]))
    second = receipt_of(apply_in(store, *messages[0:128:2]))

    assert (len(first.gaps), first.gaps[0], first.gaps[-1]) == (64, Gap(1, 1), Gap(127, 127))
    assert first.seen == 128  # number 129 is missing too and not named: nothing beyond 128 may be taken for committed
    assert (second.up_to, second.gaps[0], second.seen) == (128, Gap(129, 129), 200)
    assert len(rows_in(store, schema.gap)) == 36


def test_a_tombstone_accounts_for_its_range(store: Store) -> None:
    gateway = Gateway()
    first, last = gateway.block(), gateway.block(seq=7)

    receipt_before = receipt_of(apply_in(store, first, last))
    applied = apply_in(store, gateway.tombstone(2, 6))

    assert receipt_before.gaps == (Gap(2, 6),)
    assert applied.outcomes == (Outcome.TOMBSTONE,)
    assert receipt_of(applied) == receipt(7)
    (row,) = rows_in(store, schema.tombstone)
    assert (row.first, row.last, row.cause, row.rows) == (2, 6, Cause.EVICTED, 300)
    assert kinds(store) == []


def test_a_record_that_comes_after_its_tombstone_is_still_stored(store: Store) -> None:
    gateway = Gateway()
    late = gateway.block()
    apply_in(store, gateway.tombstone(1, 3))

    applied = apply_in(store, late)

    assert applied.outcomes == (Outcome.STORED,)
    assert len(rows_in(store, schema.block)) == 1
    assert receipt_of(applied).up_to == 3


def test_a_tombstone_on_a_fact_lane_is_told(store: Store) -> None:
    gateway = Gateway()

    apply_in(store, gateway.tombstone(1, 2, lane=Lane.METERING, cause=Cause.CORRUPT))

    assert kinds(store) == ["facts_lost"]


def test_facts_are_stored_with_their_chain_and_the_receipt_carries_the_head(store: Store) -> None:
    gateway = Gateway()
    one, two = gateway.fact(), gateway.fact()
    alarm = gateway.fact(AlarmRaised("cooler-0001", "no_flow", 1, "critical"), lane=Lane.ALARM)

    applied = apply_in(store, one, two, alarm)

    rows = {(row.lane, row.seq): row for row in rows_in(store, schema.fact)}
    assert rows["m", 2].previous == rows["m", 1].chain
    assert rows["a", 1].kind == "alarm_raised"
    assert {one.receipt.stream: one.receipt.head for one in applied.receipts} == {
        12: rows["m", 2].chain.hex(),
        2**63 - 1: rows["a", 1].chain.hex(),
    }
    assert kinds(store) == []


def test_the_head_is_that_of_the_last_contiguous_fact(store: Store) -> None:
    gateway = Gateway()
    one, two, three = gateway.fact(), gateway.fact(), gateway.fact()

    apply_in(store, one, three)
    head_one = rows_in(store, schema.stream)[0].head
    apply_in(store, two)
    head_three = rows_in(store, schema.stream)[0].head

    chains = {row.seq: row.chain.hex() for row in rows_in(store, schema.fact)}
    assert (head_one, head_three) == (chains[1], chains[3])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
@pytest.mark.parametrize("together", [True, False])
def test_a_broken_chain_is_told_and_the_fact_stored_in_any_order(store: Store, order: Sequence[int], *, together: bool) -> None:
    gateway = Gateway()
    messages = [gateway.fact(), gateway.fact(previous=b"x" * 32), gateway.fact()]
    shuffled = [messages[at] for at in order]

    for batch in [shuffled] if together else [[one] for one in shuffled]:
        apply_in(store, *batch)

    assert len(rows_in(store, schema.fact)) == 3
    assert [row.key for row in rows_in(store, schema.event)] == ["fork/gw-test-1/12/2"]


def test_a_first_fact_that_follows_something_is_a_fork(store: Store) -> None:
    apply_in(store, Gateway().fact(previous=b"x" * 32))

    assert kinds(store) == ["fork"]
