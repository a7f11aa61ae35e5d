"""Power cuts at every write and sync of a working outbox: what was acknowledged is there, and nothing is there twice.

``ICECAP_POWER_CUTS=2000000`` runs the night's number; the default is a slice that fits into a change.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from edge.outbox import Outbox, OutboxError, OutboxFaultError, Record
from edge.outbox.store import Store
from edge.outbox.writer import Writer
from protocol import block, facts
from protocol.frame import Kind
from protocol.receipt import Receipt
from protocol.topics import Lane
from tests.support.outbox import (
    BOOT,
    Inventory,
    assert_nothing_lost,
    decode,
    make_fact,
    make_rows,
    open_store,
    read_all,
    take_inventory,
)
from tests.support.power_cut import PowerCut, PowerCutVfs
from tests.support.services import wait_until

CUTS = int(os.environ.get("ICECAP_POWER_CUTS", "250"))
STEPS = 24


@pytest.fixture(scope="module")
def vfs() -> Iterator[PowerCutVfs]:
    one = PowerCutVfs()
    yield one
    one.unregister()


class Life:
    """One life of a gateway: what it offered, what the store acknowledged, what the cloud receipted."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.offered = 0
        self.rows: list[int] = []
        self.facts: list[int] = []
        self.receipted_facts: set[int] = set()
        self.receipted_rows: set[int] = set()

    def live(self, store: Store) -> None:
        """Do what a gateway does, a few steps of it."""
        for _ in range(STEPS):
            choice = self.rng.random()
            if choice < 0.5:
                self._append(store)
            elif choice < 0.75:
                number = len(self.facts) + self.rng.randrange(1 << 30)
                store.append_fact(self.rng.choice((Lane.METERING, Lane.ALARM)), make_fact(number))
                self.facts.append(number)
            elif choice < 0.9:
                store.seal_all()
            else:
                self._receipt(store)

    def _append(self, store: Store) -> None:
        count = self.rng.randrange(1, 8)
        rows = make_rows(range(self.offered + 1, self.offered + 1 + count))
        self.offered += count
        results = store.append_groups([rows])
        assert (results[0].accepted, results[0].duplicates) == (count, 0)
        self.rows += [row.reading.counter or 0 for row in rows]

    def _receipt(self, store: Store) -> None:
        lane = self.rng.choice(list(Lane))
        waiting = read_all(store, lane)
        if not waiting:
            return
        chosen = self.rng.randrange(len(waiting))
        inventory = _contents(waiting[: chosen + 1])
        # The cloud has these before it sends the receipt, so whatever becomes of the receipt, they are not lost.
        self.receipted_rows |= set(inventory.blocked)
        self.receipted_facts |= inventory.facts.keys()
        store.apply_receipt(Receipt(waiting[chosen].identity.stream, waiting[chosen].last))


def _contents(records: list[Record]) -> Inventory:
    found = Inventory()
    for record in records:
        body = decode(record).body
        rows = block.decode(body) if record.kind == Kind.BLOCK else None
        if isinstance(rows, block.Rows) and rows.counters is not None:
            found.blocked += rows.counters.tolist()
        fact = facts.decode(body) if record.kind == Kind.FACT else None
        if isinstance(fact, facts.FactRecord) and isinstance(fact.fact, facts.Audit):
            found.facts[fact.fact.detail.get("number", -1)] = record.data
    return found


def cut_once(vfs: PowerCutVfs, folder: Path, *, seed: int, at: int, forget_syncs: bool = False) -> bool:
    """One life that ends at the ``at``-th write or sync, and the check of what is left; true when the cut came before the life's end."""
    shutil.rmtree(folder, ignore_errors=True)
    vfs.machine = PowerCut(seed, at)
    vfs.machine.forget_syncs = forget_syncs
    life = Life(seed)
    store = None
    try:
        store = open_store(folder, vfs=vfs.NAME, seed=seed)
        life.live(store)
    except (OutboxError, apsw.Error):
        assert vfs.machine.is_dead, "the store failed without a cause"
    was_cut = vfs.machine.is_dead
    vfs.machine.is_dead = True
    if store is not None:
        store.close()
    vfs.machine.land()

    open_store(folder, boot=BOOT + 1, seed=seed + 1).close()

    found = take_inventory(folder)
    kept = [row for row in life.rows if row not in life.receipted_rows]
    assert_nothing_lost(found, rows=kept, facts_=[one for one in life.facts if one not in life.receipted_facts])
    assert set(found.samples) <= set(range(1, life.offered + 1)), "a sample that was never offered"
    assert "outbox_file_damaged" not in found.events, "a power cut is no damage"
    return was_cut


@pytest.mark.slow
def test_no_power_cut_loses_what_was_acknowledged(vfs, tmp_path):
    seed_base = int(os.environ.get("ICECAP_SEED", "1"))
    cuts = 0
    for number in range(CUTS):
        seed = seed_base + number // 300
        at = 1 + (number * 7) % 300
        try:
            cuts += cut_once(vfs, tmp_path / "store", seed=seed, at=at)
        except AssertionError as error:
            raise AssertionError(f"ICECAP_SEED={seed} cut at {at}: {error}") from error
    assert cuts > CUTS // 2, "most lives must be cut short, or the sweep tests nothing"


def test_the_power_cut_finds_a_store_that_does_not_sync(vfs, tmp_path):
    lost = 0
    for number in range(60):
        try:
            cut_once(vfs, tmp_path / "store", seed=3, at=20 + number * 4, forget_syncs=True)
        except (AssertionError, OutboxError, apsw.Error):
            lost += 1
    assert lost > 10


def test_a_commit_whose_sync_failed_after_the_data_landed_has_one_effect(vfs, tmp_path):
    """SQLite says rolled back, the disk has it: only reading back tells, and doing it again would number a fact twice."""
    resolved = 0
    for number in range(8, 60):
        folder = tmp_path / str(number)
        vfs.machine = PowerCut(number, 1 << 60)
        vfs.machine.fail_sync = number
        store = None
        try:
            store = open_store(folder, vfs=vfs.NAME, seed=number)
        except OutboxError:
            continue  # a store that cannot open says so; nothing was acknowledged
        offered = iter(range(1, 10_000))
        for fact in range(12):
            rows = make_rows([next(offered), next(offered)])
            assert store.append_groups([rows])[0].accepted == 2
            store.append_fact(Lane.METERING, make_fact(fact))
            store.seal_all()
        resolved += store.counts.commits_unknown
        store.close()

        found = take_inventory(folder)

        assert sorted(found.samples) == list(range(1, 25))
        assert found.facts.keys() == set(range(12))
    assert resolved > 10, "the sweep must meet commits"


def test_a_disk_that_goes_away_and_comes_back_costs_nothing_and_no_restart(vfs, tmp_path):
    vfs.machine = PowerCut(1, 1 << 60)
    stores: list[Store] = []

    def open_it() -> Store:
        stores.append(open_store(tmp_path, vfs=vfs.NAME))
        return stores[0]

    writer = Writer(open_it, timer=time.monotonic, commit_interval_s=0.001)
    outbox = Outbox(stores[0], writer)
    assert outbox.append_rows(make_rows([1, 2])).result(5).accepted == 2
    vfs.machine.is_dead = True

    with pytest.raises(OutboxFaultError):
        outbox.append_rows(make_rows([3, 4])).result(5)
    with pytest.raises(OutboxFaultError):
        outbox.append_fact(Lane.METERING, make_fact(1)).result(5)
    wait_until(lambda: not outbox.stats().ready)
    assert outbox.is_alive
    vfs.machine.is_dead = False
    wait_until(lambda: outbox.stats().ready)

    assert outbox.append_rows(make_rows([3, 4])).result(5).accepted == 2
    outbox.append_fact(Lane.METERING, make_fact(1)).result(5)
    assert outbox.close()
    found = take_inventory(tmp_path)
    assert sorted(found.samples) == [1, 2, 3, 4]
    assert found.facts.keys() == {1}
