"""The outbox in normal work: append, dedupe, seal, number, chain, receipt, reopen. Real files."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.outbox import Outbox, OutboxBusyError, OutboxError, OutboxLockedError, Record
from edge.outbox import writer as writer_module
from edge.outbox.database import Database
from edge.outbox.dedupe import BOOTS_MAX, RUNS_MAX, add_number, pack_runs, unpack_runs
from edge.outbox.staging import check_row
from protocol import block, facts
from protocol.clock import ClockQuality, ManualClock
from protocol.frame import Kind
from protocol.reading import Quality, Stamp
from protocol.receipt import Gap, Receipt
from protocol.topics import Lane
from tests.support.outbox import BOOT, COOLER, GATEWAY, SMALL, decode, host, make_fact, make_row, make_rows, open_store, profile, read_all


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outbox"


@pytest.fixture
def store(folder):
    one = open_store(folder)
    yield one
    one.close()


def counters_of(record: Record) -> list[int]:
    counters = rows_of(record).counters
    assert counters is not None
    return [int(one) for one in counters]


def rows_of(record: Record) -> block.Rows:
    found = block.decode(decode(record).body)
    assert isinstance(found, block.Rows)
    return found


def test_a_sealed_block_holds_the_rows_that_were_appended(store):
    rows = make_rows(range(1, 61))

    assert store.append_groups([rows])[0].accepted == 60
    assert store.seal_due() == 1

    (record,) = read_all(store, Lane.TELEMETRY)
    frame, found = decode(record), rows_of(record)
    assert frame.head.device == COOLER
    assert (frame.head.profile, frame.head.profile_version) == (profile().id, profile().version)
    assert frame.head.stamp == rows[0].reading.stamp
    assert found.ts_ms.tolist() == [row.reading.ts_ms for row in rows]
    assert found.counters is not None
    assert found.counters.tolist() == list(range(1, 61))
    assert found.codes.tolist() == [list(row.reading.codes) for row in rows]
    assert found.source_boot == 5
    assert store.stats().staged == 0


def test_sealing_all_leaves_nothing_staged_however_much_there_is(store):
    store.append_groups([make_rows(range(1, 151))])

    assert store.seal_all() == 3
    assert [rows_of(one).ts_ms.size for one in read_all(store, Lane.TELEMETRY)] == [60, 60, 30]


def test_rejected_codes_and_reasons_are_in_the_block(store):
    channels = len(profile().channels)
    codes = (None, 850, *range(2, channels))
    quality = bytes([Quality.MISSING, Quality.SENTINEL, *[Quality.OK] * (channels - 2)])

    store.append_groups([[make_row(1, codes=codes, quality=quality)]])
    store.seal_all()

    found = rows_of(read_all(store, Lane.TELEMETRY)[0])
    assert found.quality[0].tobytes() == quality
    assert found.rejected == {1: 850}
    assert found.codes[0].tolist() == [0, 0, *range(2, channels)]


def test_rows_without_a_counter_make_a_block_without_counters(store):
    store.append_groups([[make_row(None, ts_ms=5), make_row(None, ts_ms=6)]])
    store.seal_all()

    found = rows_of(read_all(store, Lane.TELEMETRY)[0])
    assert found.counters is None
    assert found.ts_ms.tolist() == [5, 6]


def test_blocks_of_two_coolers_and_two_boots_are_kept_apart(store):
    rows = [*make_rows([1, 2]), *make_rows([1, 2], device="cooler-0002"), *make_rows([1], source_boot=6)]

    store.append_groups([rows])

    assert store.seal_all() == 3
    heads = [(decode(one).head.device, rows_of(one).source_boot) for one in read_all(store, Lane.TELEMETRY)]
    assert heads == [(COOLER, 5), ("cooler-0002", 5), (COOLER, 6)]


def test_numbers_are_dense_and_each_lane_has_its_own_stream(store):
    for number in range(3):
        store.append_fact(Lane.METERING, make_fact(number))
    store.append_fact(Lane.ALARM, make_fact(9))
    for counter in (1, 2):
        store.append_groups([[make_row(counter)]])
        store.seal_all()

    seqs = {lane: [one.identity.seq for one in read_all(store, lane)] for lane in Lane}
    assert seqs == {Lane.METERING: [1, 2, 3], Lane.ALARM: [1], Lane.TELEMETRY: [1, 2]}
    assert len({store.stats().lanes[lane].stream for lane in Lane}) == 3


def test_each_fact_carries_the_hash_of_the_one_before_also_across_a_reopen(store, folder):
    store.append_fact(Lane.METERING, make_fact(1))
    store.append_fact(Lane.METERING, make_fact(2))
    store.close()
    again = open_store(folder, boot=BOOT + 1)
    again.append_fact(Lane.METERING, make_fact(3))

    bodies = [decode(one).body for one in read_all(again, Lane.METERING)]
    again.close()

    previous = facts.CHAIN_START
    for body in bodies:
        record = facts.decode(body)
        assert isinstance(record, facts.FactRecord)
        assert record.previous == previous
        previous = facts.fact_hash(body)


def test_a_fact_in_the_telemetry_lane_is_a_bug(store):
    with pytest.raises(ValueError, match="lanes m and a"):
        store.append_fact(Lane.TELEMETRY, make_fact(1))


def test_a_redelivered_row_is_counted_and_not_stored(store, folder):
    store.append_groups([make_rows(range(1, 11))])

    first = store.append_groups([make_rows(range(5, 13))])[0]
    store.seal_all()
    store.close()
    again = open_store(folder)  # the memory of what was seen is in the file
    second = again.append_groups([make_rows(range(1, 14))])[0]
    again.close()

    assert (first.accepted, first.duplicates) == (2, 6)
    assert (second.accepted, second.duplicates) == (1, 12)


def test_the_same_number_of_another_boot_or_device_is_another_row(store):
    rows = [make_row(7), make_row(7, source_boot=6), make_row(7, device="cooler-0002")]

    assert store.append_groups([rows])[0].accepted == 3


def test_a_row_with_only_the_devices_time_is_known_by_its_content(store):
    row, other = make_row(None, ts_ms=1000), make_row(None, ts_ms=1000, codes=tuple(range(len(profile().channels), 0, -1)))

    result = store.append_groups([[row, row, other]])[0]

    assert (result.accepted, result.duplicates) == (2, 1)


def test_equal_samples_of_one_millisecond_without_any_identity_are_all_kept(store):
    stamp = Stamp(BOOT, 1000, 2000, ClockQuality.SYNCED)

    result = store.append_groups([[make_row(None, ts_ms=2000, stamp=stamp) for _ in range(20)]])[0]

    assert result.accepted == 20


@given(st.lists(st.integers(0, 60)))
def test_runs_remember_exactly_the_numbers_that_were_added(numbers):
    runs, seen = [], set()

    for number in numbers:
        assert add_number(runs, number) == (number not in seen)
        seen.add(number)

    assert [n for first, last in runs for n in range(first, last + 1)] == sorted(seen)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(runs))
    assert unpack_runs(pack_runs(runs)) == runs


def test_damaged_runs_are_forgotten_rather_than_believed():
    data = bytearray(pack_runs([(1, 1000)]))
    data[9] ^= 4

    assert unpack_runs(bytes(data)) == []


def test_the_memory_of_the_dedupe_is_bounded_and_prefers_a_duplicate_to_a_loss(store):
    with_holes = make_rows(range(1, 4 * RUNS_MAX, 2))

    store.append_groups([with_holes])
    for boot in range(100, 100 + 2 * BOOTS_MAX):
        store.append_groups([make_rows([1], source_boot=boot)])
    oldest = store.append_groups([[with_holes[0]]])[0]

    runs = store._database.number("select max(length(runs)) from seen_counter")
    assert runs <= 4 + 16 * RUNS_MAX
    assert store._database.number("select count(*) from seen_counter") <= BOOTS_MAX
    assert store.stats().counts.dedupe_forgotten > 0
    assert oldest.accepted == 1


def test_a_row_that_contradicts_itself_is_refused_before_the_queue():
    with pytest.raises(ValueError, match="qualities"):
        check_row(make_row(1, codes=(1, 2), quality=b"\0\0\0"))
    with pytest.raises(ValueError, match="channel 0"):
        check_row(replace(make_row(1, codes=(None,) * len(profile().channels)), quality=bytes(len(profile().channels))))


def test_a_cohort_is_sealed_when_it_is_full_old_or_older_in_a_session(folder):
    clock = ManualClock()
    store = open_store(folder, clock=clock)

    def stamp():
        return Stamp(BOOT, clock.monotonic, clock.wall, clock.trust)

    store.append_groups([[make_row(1, stamp=stamp())]])
    clock.advance(299_999)
    assert store.seal_due() == 0
    clock.advance(1)
    assert store.seal_due() == 1
    store.append_groups([[make_row(2, stamp=stamp(), in_session=True)]])
    clock.advance(59_999)
    assert store.seal_due() == 0
    clock.advance(1)
    assert store.seal_due() == 1
    store.append_groups([[make_row(n, stamp=stamp()) for n in range(3, 62)]])
    assert store.seal_due() == 0
    store.append_groups([[make_row(62, stamp=stamp())]])
    assert store.seal_due() == 1
    store.close()


def test_sealing_goes_by_monotonic_time_whatever_the_wall_clock_does(folder):
    clock = ManualClock()
    store = open_store(folder, clock=clock)
    store.append_groups([[make_row(1, stamp=Stamp(BOOT, clock.monotonic, clock.wall, clock.trust))]])

    for year in (-50, 10, 40):
        clock.step_wall(year * 31_536_000_000)
        assert store.seal_due() == 0

    store.close()


def test_rows_that_an_earlier_process_staged_are_sealed_at_once_and_unmixed(store, folder):
    store.append_groups([make_rows([1, 2])])
    store.close()
    again = open_store(folder, boot=BOOT + 1)
    again.append_groups([[make_row(3, stamp=Stamp(BOOT + 1, ManualClock().monotonic, 6, ClockQuality.SYNCED))]])

    assert again.seal_due() == 1
    assert rows_of(read_all(again, Lane.TELEMETRY)[0]).ts_ms.size == 2
    assert again.stats().staged == 1
    again.close()


def test_a_block_over_the_frame_limit_is_cut_in_halves_in_order(store):
    rng = np.random.default_rng(4)
    rows = [make_row(n, codes=tuple(int(x) for x in rng.integers(-(2**60), 2**60, len(profile().channels)))) for n in range(1, 61)]
    store.limit_frame_bytes(3000)

    store.append_groups([rows])
    store.seal_all()

    records = read_all(store, Lane.TELEMETRY)
    assert len(records) > 1
    assert max(len(one.data) for one in records) <= 3000
    assert [n for one in records for n in counters_of(one)] == list(range(1, 61))


def test_a_receipt_deletes_up_to_its_number_once_and_for_ever(store):
    for number in range(1, 6):
        store.append_fact(Lane.METERING, make_fact(number))
    stream = store.stats().lanes[Lane.METERING].stream

    first = store.apply_receipt(Receipt(stream, 3))
    again = store.apply_receipt(Receipt(stream, 3))
    older = store.apply_receipt(Receipt(stream, 1, gaps=(Gap(2, 3),), seen=5))

    assert (first.deleted, again.deleted, older.deleted) == (3, 0, 0)
    assert [one.identity.seq for one in read_all(store, Lane.METERING)] == [4, 5]
    assert store.stats().lanes[Lane.METERING].up_to == 3


def test_a_receipt_with_gaps_deletes_nothing_beyond_them(store):
    for number in range(1, 6):
        store.append_fact(Lane.METERING, make_fact(number))
    stream = store.stats().lanes[Lane.METERING].stream

    store.apply_receipt(Receipt(stream, 1, gaps=(Gap(2, 3),), seen=5))

    assert [one.identity.seq for one in read_all(store, Lane.METERING)] == [2, 3, 4, 5]


def test_a_receipt_for_a_stream_that_is_not_ours_changes_nothing(store):
    store.append_fact(Lane.METERING, make_fact(1))

    effect = store.apply_receipt(Receipt(12345, 99))

    assert effect.lane is None
    assert len(read_all(store, Lane.METERING)) == 1
    assert store.stats().counts.receipts_foreign == 1


def test_a_second_process_is_told_who_has_the_store(store, folder):
    with pytest.raises(OutboxLockedError, match=str(os.getpid())):
        open_store(folder)


def test_the_lock_of_a_killed_process_is_free(folder):
    code = (
        "import sys; from pathlib import Path; from tests.support.outbox import open_store; "
        "store = open_store(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    with pytest.raises(OutboxLockedError, match=str(process.pid)):
        open_store(folder)

    process.kill()
    process.communicate()

    open_store(folder).close()


def test_another_gateways_store_is_refused_and_untouched(store, folder):
    store.append_fact(Lane.METERING, make_fact(1))
    store.close()

    with pytest.raises(OutboxError, match=f"belongs to {GATEWAY}"):
        open_store(folder, gateway="gw-other")

    again = open_store(folder)
    assert len(read_all(again, Lane.METERING)) == 1
    again.close()


def test_a_schema_from_the_future_is_refused_unless_it_says_that_we_can_read_it(store, folder):
    store.append_fact(Lane.METERING, make_fact(1))
    store.close()
    connection = apsw.Connection(str(folder / "outbox.db"))
    connection.execute("pragma user_version = 2")
    connection.execute("update meta set value = '2' where key = 'readable_by'")

    connection.close()
    with pytest.raises(OutboxError, match="newer program"):
        open_store(folder)
    connection = apsw.Connection(str(folder / "outbox.db"))
    connection.execute("update meta set value = '1' where key = 'readable_by'")
    connection.close()

    again = open_store(folder)
    assert len(read_all(again, Lane.METERING)) == 1
    again.close()


def test_an_upgrade_that_fails_leaves_the_old_schema_and_the_backlog(store, folder, monkeypatch):
    store.append_fact(Lane.METERING, make_fact(1))
    store.close()
    from edge.outbox import database

    scripts = {kind: list(database._scripts(kind)) for kind in ("outbox", "mirror")}
    broken = [*scripts["outbox"], "create table extra (id integer) strict; insert into missing values (1)"]
    monkeypatch.setattr(database, "_scripts", lambda kind: iter(broken if kind == "outbox" else scripts[kind]))
    with pytest.raises(OutboxError):
        open_store(folder)
    better = [*scripts["outbox"], "create table extra (id integer) strict"]
    monkeypatch.setattr(database, "_scripts", lambda kind: iter(better if kind == "outbox" else scripts[kind]))

    again = open_store(folder)

    assert len(read_all(again, Lane.METERING)) == 1
    assert again._database.number("pragma user_version") == 2
    assert again._database.number("select count(*) from extra") == 0
    again.close()


def test_a_changed_profile_leaves_the_backlog_as_it_was(store, folder):
    store.append_groups([make_rows([1, 2])])
    store.close()
    again = open_store(folder)
    newer = replace(profile(), version=9)
    again.append_groups([[replace(make_row(3), profile=newer)]])

    again.seal_all()

    versions = [decode(one).head.profile_version for one in read_all(again, Lane.TELEMETRY)]
    assert versions == [profile().version, 9]
    again.close()


def test_the_file_is_opened_the_way_that_survives_power_cuts(store):
    pragmas = {
        name: next(iter(store._database.run(f"pragma {name}")))[0]
        for name in ("journal_mode", "synchronous", "locking_mode", "auto_vacuum", "mmap_size", "cell_size_check")
    }

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "auto_vacuum": 2,
        "mmap_size": 0,
        "cell_size_check": 1,
    }
    assert apsw.SQLITE_VERSION_NUMBER >= 3_051_003


def test_files_are_the_owners_alone(store, folder):
    assert folder.stat().st_mode & 0o077 == 0


# The thread in front of the store.


@pytest.fixture
def outbox(folder):
    one = Outbox.open(folder, host(), replace(SMALL, commit_interval_ms=50))
    yield one
    assert one.close()


def test_rows_of_many_callers_share_a_commit(outbox):
    before = outbox.stats().counts.commits

    futures = [outbox.append_rows([make_row(n)]) for n in range(1, 101)]

    assert all(one.result(5).accepted == 1 for one in futures)
    assert outbox.stats().counts.commits - before <= 3


def test_a_fact_does_not_wait_for_the_rows_before_it(folder):
    outbox = Outbox.open(folder, host(), replace(SMALL, commit_interval_ms=1000))
    rows = outbox.append_rows([make_row(1)])

    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)

    assert not rows.done()
    assert outbox.close()
    assert rows.result(0).accepted == 1


def test_closing_commits_what_waits(folder):
    outbox = Outbox.open(folder, host(), replace(SMALL, commit_interval_ms=1000))
    futures = [outbox.append_rows([make_row(n)]) for n in range(1, 50)]

    assert outbox.close()

    assert all(one.result(0).accepted == 1 for one in futures)
    again = open_store(folder)
    assert again.stats().staged == 49
    again.close()
    with pytest.raises(OutboxError, match="closed"):
        outbox.append_rows([make_row(50)])


def hold(outbox: Outbox) -> tuple[threading.Event, Future[bool]]:
    """Keep the writer thread busy until the event is set."""
    begun, gate = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return gate.wait(5)

    blocked = outbox._writer.submit(wait)
    assert begun.wait(5)
    return gate, blocked


def test_a_full_queue_says_busy_and_accepts_nothing_of_the_call(outbox, monkeypatch):
    gate, blocked = hold(outbox)
    monkeypatch.setattr(writer_module, "ROWS_WAITING_MAX", 10)
    monkeypatch.setattr(writer_module, "JOBS_MAX", 3)

    kept = outbox.append_rows(make_rows(range(1, 9)))
    with pytest.raises(OutboxBusyError):
        outbox.append_rows(make_rows(range(9, 13)))
    jobs = [outbox.seal_due() for _ in range(3)]
    with pytest.raises(OutboxBusyError):
        outbox.append_fact(Lane.METERING, make_fact(1))
    gate.set()

    assert blocked.result(5)
    assert kept.result(5).accepted == 8
    assert [one.result(5) for one in jobs] == [0, 0, 0]
    assert outbox.append_rows(make_rows(range(9, 13))).result(5).accepted == 4


def test_a_cancelled_call_that_has_not_begun_is_not_done(outbox):
    gate, blocked = hold(outbox)
    rows = outbox.append_rows([make_row(1)])

    assert rows.cancel()
    gate.set()
    blocked.result(5)

    assert outbox.append_rows([make_row(1)]).result(5).accepted == 1


def test_an_error_of_one_call_reaches_its_caller_and_the_thread_lives_on(outbox):
    with pytest.raises(ValueError, match="lanes m and a"):
        outbox.append_fact(Lane.TELEMETRY, make_fact(1)).result(5)

    assert outbox.is_alive
    assert outbox.append_fact(Lane.ALARM, make_fact(1)).result(5).seq == 1


def test_listeners_hear_of_new_records_after_they_are_on_disk(outbox):
    heard: list[Lane] = []
    outbox.on_record(heard.append)

    outbox.append_fact(Lane.ALARM, make_fact(1)).result(5)
    outbox.append_rows([make_row(1)]).result(5)
    outbox.seal_all().result(5)

    assert heard == [Lane.ALARM, Lane.TELEMETRY]


def test_the_thread_seals_by_itself(folder):
    outbox = Outbox.open(folder, host(), replace(SMALL, seal_rows=2, commit_interval_ms=1))
    outbox.append_rows(make_rows([1, 2])).result(5)

    deadline = time.monotonic() + 5
    while not outbox.read(Lane.TELEMETRY).result(5):
        assert time.monotonic() < deadline
    assert outbox.close()


def test_an_open_that_fails_raises_in_the_caller_and_leaves_no_thread(folder, store):
    with pytest.raises(OutboxLockedError):
        Outbox.open(folder, host(), SMALL)


def test_the_kind_of_each_record_is_told(store):
    store.append_fact(Lane.ALARM, make_fact(1))
    store.append_groups([[make_row(1)]])
    store.seal_all()

    assert [one.kind for lane in Lane for one in read_all(store, lane)] == [Kind.FACT, Kind.BLOCK]


def test_a_database_that_is_closed_is_not_used_by_mistake(tmp_path):
    with pytest.raises(AssertionError, match="not open"):
        Database(tmp_path / "x.db", kind="outbox", pages_max=100).run("select 1")


def test_stats_are_plain_values(store):
    assert json.dumps({lane: one.records for lane, one in store.stats().lanes.items()})
