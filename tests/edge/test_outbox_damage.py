"""Damaged files: flipped bits, cut files, a lost mirror. What is whole flows on, facts survive, the rest is accounted for."""

import random
from pathlib import Path

import apsw
import pytest

from edge.outbox import Record
from edge.outbox.store import Store
from protocol import facts
from protocol.frame import Kind
from protocol.receipt import Receipt
from protocol.tombstone import Cause, Tombstone
from protocol.tombstone import decode as decode_tombstone
from protocol.topics import Lane
from tests.support.outbox import BOOT, decode, make_fact, make_row, make_rows, open_store, read_all, take_inventory

FACTS = range(1, 11)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed store with ten facts, five blocks of ten rows and three staged rows."""
    store = open_store(tmp_path)
    for number in FACTS:
        store.append_fact(Lane.METERING, make_fact(number))
    for number in range(5):
        store.append_groups([make_rows(range(10 * number + 1, 10 * number + 11))])
        store.seal_all()
    store.append_groups([make_rows([51, 52, 53])])
    store.close()
    return tmp_path


def edit(folder: Path, sql: str, *values: object, name: str = "outbox.db") -> None:
    connection = apsw.Connection(str(folder / name))
    connection.execute(sql, values)
    connection.close()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def damage_row(folder: Path, lane: Lane, seq: int, *, at: int = 60) -> None:
    connection = apsw.Connection(str(folder / "outbox.db"))
    query = "select record.id, data from record join stream on stream.id = record.stream where lane = ? and seq = ?"
    ((row_id, data),) = connection.execute(query, (lane, seq))
    connection.execute("update record set data = ? where id = ?", (flip(data, at), row_id))
    connection.close()


def grave_of(record: Record) -> Tombstone:
    found = decode_tombstone(decode(record).body)
    assert isinstance(found, Tombstone)
    return found


def audit_events(store: Store) -> list[str]:
    found = [facts.decode(decode(one).body) for one in read_all(store, Lane.ALARM)]
    return [one.fact.event for one in found if isinstance(one, facts.FactRecord) and isinstance(one.fact, facts.Audit)]


@pytest.mark.parametrize("at", [0, 4, 9, 20, 30, 60, -2])
def test_a_flipped_bit_in_a_block_costs_that_block_and_is_accounted_for(folder, at):
    damage_row(folder, Lane.TELEMETRY, 3, at=at)

    store = open_store(folder)
    records = read_all(store, Lane.TELEMETRY)

    assert [one.identity.seq for one in records if one.kind == Kind.BLOCK] == [1, 2, 4, 5]
    (grave,) = [grave_of(one) for one in records if one.kind == Kind.TOMBSTONE]
    assert (grave.first, grave.last, grave.cause, grave.rows) == (3, 3, Cause.CORRUPT, 10)
    assert store.stats().quarantined == 1
    assert audit_events(store) == ["outbox_rows_corrupt"]
    store.close()
    take_inventory(folder)


def test_a_flipped_bit_in_a_fact_is_restored_from_the_mirror(folder):
    whole = take_inventory(folder).facts
    damage_row(folder, Lane.METERING, 4)

    store = open_store(folder)
    read_all(store, Lane.METERING)
    store.close()

    assert take_inventory(folder).facts == whole
    assert store.stats().counts.restored_facts == 1


def test_a_fact_that_is_damaged_in_both_files_is_accounted_for_and_the_others_flow(folder):
    damage_row(folder, Lane.METERING, 4)
    edit(folder, "update fact set data = x'00' where seq = 4", name="facts.db")

    store = open_store(folder)
    records = read_all(store, Lane.METERING)

    assert sorted(one.identity.seq for one in records) == list(FACTS)
    assert [one.identity.seq for one in records if one.kind == Kind.TOMBSTONE] == [4]
    store.close()


def test_a_flipped_bit_in_a_staged_row_costs_that_row_and_is_reported(folder):
    connection = apsw.Connection(str(folder / "outbox.db"))
    ((row_id, data),) = connection.execute("select id, data from staging order by id limit 1 offset 1")
    connection.execute("update staging set data = ? where id = ?", (flip(data, 40), row_id))
    connection.close()

    store = open_store(folder)
    store.seal_all()

    assert store.stats().counts.corrupt_staged == 1
    assert audit_events(store) == ["outbox_staged_corrupt"]
    store.close()
    found = take_inventory(folder)
    assert sorted(found.samples) == [*range(1, 52), 53]


def test_a_changed_cooler_of_staged_rows_is_damage_too(folder):
    edit(folder, "update cohort set device = 'cooler-0002'")

    store = open_store(folder)
    store.seal_all()

    assert store.stats().counts.corrupt_staged == 3
    store.close()


def test_a_changed_number_never_leads_to_two_records_of_one_number(folder):
    edit(folder, "update stream set next_seq = 2 where lane = 't'")

    store = open_store(folder)
    store.append_groups([[make_row(60)]])
    store.seal_all()

    assert store.stats().counts.files_quarantined == 1
    assert len(read_all(store, Lane.METERING)) == len(FACTS)
    store.close()


def damage_header(path: Path) -> None:
    path.write_bytes(b"no database at all".ljust(4096, b"!") + path.read_bytes()[4096:])


def damage_schema(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:600] = bytes(500)
    path.write_bytes(data)


def damage_length(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_trees(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 12] = b"\xff" * 12
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_header, damage_schema, damage_length, damage_trees])
def test_a_damaged_file_is_set_aside_its_facts_survive_and_its_numbers_are_accounted_for(folder, damage):
    before = take_inventory(folder)
    damage(folder / "outbox.db")

    store = open_store(folder, boot=BOOT + 1, seed=2)
    store.append_groups([make_rows(range(100, 110))])
    store.seal_all()
    facts_kept = {one.identity.seq: one.data for one in read_all(store, Lane.METERING)}
    telemetry = read_all(store, Lane.TELEMETRY)

    assert set(before.facts.values()) == set(facts_kept.values())
    old = [one for one in telemetry if one.identity.stream in before.numbers]
    (grave,) = [grave_of(one) for one in old]
    assert grave.cause == Cause.CORRUPT
    assert (grave.first, grave.last >= 5) == (1, True)
    new = [one for one in telemetry if one not in old]
    assert [one.kind for one in new] == [Kind.BLOCK]
    assert "outbox_file_damaged" in audit_events(store)
    assert list(folder.glob("outbox.db.damaged-*"))
    store.close()
    take_inventory(folder)


def test_a_restored_fact_can_be_receipted_under_its_old_number(folder):
    damage_header(folder / "outbox.db")
    store = open_store(folder, seed=2)
    first = read_all(store, Lane.METERING)[0]

    store.apply_receipt(Receipt(first.identity.stream, 10))
    store.tick()

    assert read_all(store, Lane.METERING) == []
    assert first.identity.stream not in store._lanes.streams, "a closed stream of which nothing is left is forgotten"
    store.close()
    again = open_store(folder, seed=3)
    assert read_all(again, Lane.METERING) == [], "the mirror has forgotten it too"
    again.close()


def test_damage_that_shows_while_running_is_handled_without_a_restart(folder):
    store = open_store(folder)
    store._database.checkpoint()
    with (folder / "outbox.db").open("r+b") as file:
        size = file.seek(0, 2)
        for page in range(1, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 16)
    store._database.connection.execute("pragma shrink_memory")
    store._database.close()  # what another process's write would do to the page cache
    store._database.open()

    identity = store.append_fact(Lane.METERING, make_fact(99))

    assert store.stats().counts.files_quarantined == 1
    records = read_all(store, Lane.METERING)
    assert len([one for one in records if one.identity.stream == identity.stream]) == 1
    assert len(records) == len(FACTS) + 1
    store.close()


@pytest.mark.parametrize("damage", [damage_header, damage_length, damage_trees, Path.unlink])
def test_a_damaged_mirror_is_made_again_from_the_outbox(folder, damage):
    damage(folder / "facts.db")

    store = open_store(folder)
    store.append_fact(Lane.METERING, make_fact(11))
    store.close()
    damage_header(folder / "outbox.db")
    again = open_store(folder, seed=2)
    again.close()

    assert take_inventory(folder).facts.keys() == set(range(1, 12))


def test_a_lost_tail_of_the_outbox_is_repaired_from_the_mirror(folder):
    """What a flipped bit in the write-ahead log does: SQLite drops what follows it, without a word."""
    old = (folder / "outbox.db").read_bytes()
    store = open_store(folder)
    for number in (11, 12):
        store.append_fact(Lane.METERING, make_fact(number))
    store.close()
    (folder / "outbox.db").write_bytes(old)

    again = open_store(folder)
    again.append_fact(Lane.METERING, make_fact(13))
    again.close()

    assert take_inventory(folder).facts.keys() == set(range(1, 14))


def test_random_flips_anywhere_never_stop_the_store_nor_lose_a_fact(folder, tmp_path):
    whole = (folder / "outbox.db").read_bytes()
    kept = take_inventory(folder).facts
    for seed in range(60):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (folder / "outbox.db").write_bytes(data)
        for leftover in folder.glob("*-wal"):
            leftover.unlink()

        store = open_store(folder, seed=seed + 10)
        store.append_groups([make_rows([1000 + seed])])
        store.seal_all()
        have = {one.data for one in read_all(store, Lane.METERING)}
        store.close()

        assert set(kept.values()) <= have, f"seed {seed}"


def test_a_check_that_has_no_time_is_made_up_for_by_the_scrub(folder, monkeypatch):
    damage_row(folder, Lane.TELEMETRY, 2)
    monkeypatch.setattr("edge.outbox.store.CHECK_S", -1.0)
    monkeypatch.setattr("edge.outbox.database.CHECK_STEPS", 1)

    store = open_store(folder)
    for _ in range(5):
        store.tick()

    assert store.stats().counts.scrubbed >= 15
    assert store.stats().counts.corrupt_rows == 1
    store.close()


def test_only_the_newest_damaged_files_are_kept(folder):
    for _ in range(4):
        damage_header(folder / "outbox.db")
        open_store(folder).close()

    assert sorted(one.name for one in folder.glob("outbox.db.damaged-?")) == ["outbox.db.damaged-3", "outbox.db.damaged-4"]


# Another life of the same gateway.


def test_a_receipt_from_another_life_opens_a_new_stream_and_moves_what_the_cloud_cannot_have(folder):
    """A card restored from an image: the cloud has numbers that this store has not given out yet, or gave to other records."""
    store = open_store(folder)
    old = store.stats().lanes[Lane.METERING].stream
    store.apply_receipt(Receipt(old, 4))
    store.append_fact(Lane.METERING, make_fact(11))

    effect = store.apply_receipt(Receipt(old, 30))
    store.append_fact(Lane.METERING, make_fact(12))

    assert effect.forked
    assert store.stats().lanes[Lane.METERING].stream != old
    assert "outbox_forked" in audit_events(store)
    store.close()
    found = take_inventory(folder)
    assert found.facts.keys() == {11, 12}, "1 to 10 the cloud had or has; 11 was made after its last word and goes under a new number"
    again = open_store(folder)
    assert {one.identity.stream for one in read_all(again, Lane.METERING)} == {again.stats().lanes[Lane.METERING].stream}
    again.close()


def test_a_head_that_is_not_ours_is_another_life_too(folder):
    store = open_store(folder)
    stream = store.stats().lanes[Lane.METERING]

    second = facts.fact_hash(decode(read_all(store, Lane.METERING)[1]).body)
    same = store.apply_receipt(Receipt(stream.stream, 2, head=second.hex()))
    other = store.apply_receipt(Receipt(stream.stream, 5, head="ab" * 32))

    assert (same.forked, other.forked) == (False, True)
    store.close()
    take_inventory(folder)


def test_a_fork_of_telemetry_moves_blocks_in_steps_and_loses_none(folder, monkeypatch):
    monkeypatch.setattr("edge.outbox.forks.FORK_BATCH", 2)
    store = open_store(folder)
    stream = store.stats().lanes[Lane.TELEMETRY].stream

    store.apply_receipt(Receipt(stream, 100))
    for _ in range(5):
        store.tick()

    records = read_all(store, Lane.TELEMETRY)
    assert {one.identity.stream for one in records} == {store.stats().lanes[Lane.TELEMETRY].stream}
    store.close()
    assert sorted(take_inventory(folder).samples) == list(range(1, 54))
