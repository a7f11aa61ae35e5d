"""The outbox at its bounds: eviction with tombstones, space given back, a full disk. Facts stay whatever happens."""

import collections
import os
import random
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.outbox import Limits, OutboxFaultError, OutboxFullError
from edge.outbox.store import Store
from protocol.clock import ManualClock
from protocol.frame import Kind
from protocol.receipt import Receipt
from protocol.tombstone import Cause, Tombstone
from protocol.tombstone import decode as decode_tombstone
from protocol.topics import Lane
from tests.support.outbox import SMALL, assert_nothing_lost, decode, make_fact, make_row, open_store, profile, read_all, take_inventory

TIGHT = replace(SMALL, telemetry_bytes_max=400_000, reserve_bytes=400_000)


def noisy_rows(first: int, count: int):
    """Rows that do not compress: a block of sixty is some ten kilobytes."""
    rng = random.Random(first)
    width = len(profile().channels)
    return [make_row(n, codes=tuple(rng.randrange(-(2**40), 2**40) for _ in range(width))) for n in range(first, first + count)]


def wide_rows(first: int, count: int):
    """Rows of a model with a hundred channels: a block of sixty is some fifty kilobytes."""
    rng = random.Random(first)
    one = profile()
    wide = replace(one, channels=tuple(one.channels[0] for _ in range(100)))
    rows = []
    for counter in range(first, first + count):
        row = make_row(counter)
        codes = tuple(rng.randrange(-(2**60), 2**60) for _ in range(100))
        rows.append(replace(row, profile=wide, quality=bytes(100), reading=replace(row.reading, codes=codes)))
    return rows


def fill(store: Store, blocks: int, *, first: int = 1) -> int:
    """Append and seal blocks of sixty rows; returns the next counter."""
    for number in range(blocks):
        store.append_groups([noisy_rows(first + 60 * number, 60)])
        store.tick()
    return first + 60 * blocks


def tombstones(store: Store) -> list[Tombstone]:
    found = [decode_tombstone(decode(one).body) for one in read_all(store, Lane.TELEMETRY) if one.kind == Kind.TOMBSTONE]
    assert all(isinstance(one, Tombstone) for one in found)
    return found  # type: ignore[return-value]


def test_at_the_bound_the_oldest_telemetry_goes_and_one_tombstone_says_so(tmp_path):
    store = open_store(tmp_path, limits=TIGHT)
    store.append_fact(Lane.METERING, make_fact(1))

    end = fill(store, 80)

    stats = store.stats()
    assert stats.used_bytes <= TIGHT.telemetry_bytes_max
    assert stats.counts.evicted_blocks > 20
    (grave,) = tombstones(store)
    assert (grave.first, grave.last, grave.cause) == (1, stats.counts.evicted_blocks, Cause.EVICTED)
    assert grave.rows == stats.counts.evicted_rows == 60 * stats.counts.evicted_blocks
    store.close()
    found = take_inventory(tmp_path)  # also: the numbers are without a hole
    assert sorted(found.samples) == list(range(60 * stats.counts.evicted_blocks + 1, end)), "the newest are there"
    assert found.facts.keys() == {1}


def test_facts_are_never_evicted(tmp_path):
    store = open_store(tmp_path, limits=TIGHT)
    for number in range(300):
        store.append_fact(Lane.METERING, make_fact(number))

    fill(store, 60)

    assert len(read_all(store, Lane.METERING)) == 300
    store.close()


def test_a_tombstone_that_was_read_for_sending_keeps_its_bytes(tmp_path):
    store = open_store(tmp_path, limits=TIGHT)
    end = fill(store, 60)
    sent = {one.identity: one.data for one in read_all(store, Lane.TELEMETRY) if one.kind == Kind.TOMBSTONE}

    fill(store, 20, first=end)

    now = {one.identity: one.data for one in read_all(store, Lane.TELEMETRY) if one.kind == Kind.TOMBSTONE}
    assert len(sent) == 1
    assert len(now) == 2
    assert sent.items() <= now.items()
    store.close()
    take_inventory(tmp_path)


def test_a_tombstone_from_before_the_start_keeps_its_bytes(tmp_path):
    store = open_store(tmp_path, limits=TIGHT)
    end = fill(store, 60)
    store.close()
    before = take_inventory(tmp_path).buried

    again = open_store(tmp_path, limits=TIGHT)
    fill(again, 20, first=end)
    again.close()

    after = take_inventory(tmp_path).buried
    assert all(set(graves) <= set(after[stream]) for stream, graves in before.items())
    assert sum(map(len, after.values())) == 2


def test_no_clock_evicts_anything(tmp_path):
    clock = ManualClock()
    store = open_store(tmp_path, clock=clock)
    store.append_groups([[make_row(1)]])
    store.seal_all()

    for jump_ms in (-1_900_000_000_000, 10 * 31_536_000_000, 86_400_000):
        clock.step_wall(jump_ms)
        clock.advance(86_400_000 * 400)
        store.tick()

    assert store.stats().counts.evicted_blocks == 0
    assert len(read_all(store, Lane.TELEMETRY)) == 1
    store.close()


def test_space_is_given_back_after_the_backlog_is_receipted(tmp_path):
    roomy = replace(SMALL, telemetry_bytes_max=20_000_000)
    store = open_store(tmp_path, limits=roomy)
    for number in range(60):
        store.append_groups([wide_rows(1 + 60 * number, 60)])
        store.seal_all()
    store._database.checkpoint()
    full = (tmp_path / "outbox.db").stat().st_size
    lane = store.stats().lanes[Lane.TELEMETRY]

    store.apply_receipt(Receipt(lane.stream, lane.next_seq - 1))
    for _ in range(20):
        store.tick()
    store._database.checkpoint()

    assert store.stats().used_bytes < 200_000
    assert (tmp_path / "outbox.db").stat().st_size < full - 500_000
    store.close()


def test_nothing_to_evict_is_an_error_that_leaves_everything_as_it_was(tmp_path):
    store = open_store(tmp_path, limits=replace(SMALL, telemetry_bytes_max=200_000, reserve_bytes=0))
    numbers = iter(range(10_000))
    with pytest.raises(OutboxFullError, match="nothing left to evict"):
        collections.deque((store.append_fact(Lane.METERING, make_fact(number)) for number in numbers), maxlen=0)
    number = next(numbers) - 1

    assert len(read_all(store, Lane.METERING)) == number
    lane = store.stats().lanes[Lane.METERING]
    store.apply_receipt(Receipt(lane.stream, number // 2))
    store.append_fact(Lane.METERING, make_fact(number + 1))
    store.close()
    take_inventory(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Sixteen megabytes of their own."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small disk needs root to mount it")
    folder = tmp_path / f"disk-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    """Let somebody else take every byte that is left."""
    hog = folder / "others"
    with hog.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return hog


UNBOUND = Limits(telemetry_bytes_max=1_000_000_000, reserve_bytes=1_000_000, ballast_bytes=4 << 20)


@pytest.mark.slow
def test_a_full_disk_costs_the_oldest_telemetry_and_no_fact(small_disk):
    store = open_store(small_disk, limits=UNBOUND)
    facts, number = [], 0

    for number in range(280):  # more than the disk holds
        store.append_groups([wide_rows(1 + 60 * number, 60)])
        store.seal_all()
        if number % 5 == 0:
            store.append_fact(Lane.METERING, make_fact(number))
            facts.append(number)

    stats = store.stats()
    assert stats.counts.full > 0
    assert stats.counts.evicted_blocks > 20
    store.close()
    found = take_inventory(small_disk)
    assert_nothing_lost(found, rows=range(60 * stats.counts.evicted_blocks + 1, 60 * 280 + 1), facts_=facts)
    assert found.buried_rows == stats.counts.evicted_rows


def test_a_disk_that_others_fill_is_left_room_by_the_ballast_and_taken_back_later(small_disk):
    store = open_store(small_disk, limits=UNBOUND)
    store.append_groups([wide_rows(1, 60)])
    store.seal_all()
    hog = fill_disk(small_disk)

    for number in range(100):
        store.append_fact(Lane.METERING, make_fact(number))
        store.append_groups([wide_rows(1 + 60 * (1 + number), 60)])
        store.seal_all()

    assert store.stats().counts.ballast_freed == 1
    assert not (small_disk / "ballast").exists()
    hog.unlink()
    store.tick()
    assert (small_disk / "ballast").exists()
    store.close()
    assert take_inventory(small_disk).facts.keys() == set(range(100))


def test_a_disk_without_room_even_to_start_says_so(small_disk):
    fill_disk(small_disk)

    with pytest.raises(OutboxFaultError):
        open_store(small_disk / "new", limits=UNBOUND)
