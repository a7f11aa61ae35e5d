"""Rows, stores and a checker for the tests of the outbox: one checker for power cuts, kills, full disks and flipped bits."""

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from edge.condition import ConditionedRow
from edge.outbox import Host, Limits, Record
from edge.outbox.staging import unpack_row
from edge.outbox.store import Store
from protocol import block, facts, frame, tombstone
from protocol.clock import Clock, ManualClock
from protocol.facts import CHAIN_START, Audit, Fact
from protocol.frame import Frame, Kind
from protocol.profile import Profile, builtin
from protocol.reading import Quality, Reading, Stamp
from protocol.topics import Lane
from protocol.units import DeviceId, GatewayId

GATEWAY = GatewayId("gw-clinic-7")
COOLER = DeviceId("cooler-0001")
BOOT = 0xB007_0000_0000_0001
SMALL = Limits(telemetry_bytes_max=2_000_000, reserve_bytes=2_000_000, ballast_bytes=0)
"""Limits for stores that tests make by the hundred: no ballast to allocate."""


def profile() -> Profile:
    return builtin("icecap-cooler")


def host(*, clock: Clock | None = None, boot: int = BOOT, seed: int = 1, gateway: str = GATEWAY) -> Host:
    return Host(GatewayId(gateway), boot, clock or ManualClock(), time.monotonic, random.Random(seed))


def make_row(
    counter: int | None,
    *,
    device: str = COOLER,
    ts_ms: int | None = None,
    source_boot: int = 5,
    stamp: Stamp | None = None,
    codes: tuple[int | None, ...] | None = None,
    quality: bytes | None = None,
    in_session: bool = False,
) -> ConditionedRow:
    """A believable row; every code follows from the counter, so that a mixed-up row is seen."""
    one = profile()
    stamp = stamp or Stamp(BOOT, ManualClock().monotonic, ManualClock().wall, ManualClock().trust)
    at = counter or 0
    codes = codes if codes is not None else tuple(at * 3 + channel for channel in range(len(one.channels)))
    quality = quality if quality is not None else bytes(Quality.OK if code is not None else Quality.MISSING for code in codes)
    reading = Reading(DeviceId(device), ts_ms if ts_ms is not None else stamp.wall_ms + 1000 * at, stamp, codes, counter, source_boot)
    return ConditionedRow(reading, one, quality, in_session=in_session)


def make_rows(counters: Iterable[int], **options: object) -> list[ConditionedRow]:
    return [make_row(counter, **options) for counter in counters]  # type: ignore[arg-type]


def make_fact(number: int) -> Fact:
    return Audit(event="test", detail={"number": number})


def open_store(folder: Path, *, limits: Limits = SMALL, vfs: str | None = None, **options: object) -> Store:
    return Store.open(folder, host(**options), limits, vfs=vfs)  # type: ignore[arg-type]


def read_all(store: Store, lane: Lane) -> list[Record]:
    """Everything in a lane, page by page; a page can be empty only at the end or when rows were repaired."""
    found: list[Record] = []
    repaired = -1
    while True:
        page = store.read(lane, after=found[-1].id if found else 0, limit=64)
        now = store.counts.corrupt_rows
        if not page and repaired == now:
            return found
        repaired = now
        found += page


def decode(record: Record) -> Frame:
    found = frame.decode(record.data)
    assert isinstance(found, Frame), found
    return found


@dataclass(slots=True)
class Inventory:
    """What a store holds, decoded: samples by counter, facts by number, and the numbers of each stream."""

    staged: list[int] = field(default_factory=list)
    blocked: list[int] = field(default_factory=list)
    facts: dict[int, bytes] = field(default_factory=dict)
    buried: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    buried_rows: int = 0
    numbers: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    @property
    def samples(self) -> list[int]:
        return self.staged + self.blocked


def take_inventory(folder: Path) -> Inventory:
    """Read the files of a closed store without any of its code but the codecs; asserts their inner consistency."""
    connection = apsw.Connection(str(folder / "outbox.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert next(iter(connection.execute("pragma integrity_check")))[0] == "ok"
        found = Inventory()
        for (data,) in connection.execute("select data from staging order by id"):
            found.staged.append(unpack_row(data).counter)
        for row in list(connection.execute("select id, lane, next_seq, up_to, head, state from stream")):
            _read_stream(connection, found, row)
        return found
    finally:
        connection.close()


def _read_stream(connection: apsw.Connection, found: Inventory, row: tuple[int, str, int, int, bytes, str]) -> None:
    stream, lane, next_seq, up_to, head, state = row
    expected, previous = up_to + 1, None
    query = "select seq, last, kind, data from record where stream = ? order by seq"
    for seq, last, kind, data in connection.execute(query, (stream,)):
        one = frame.decode(data)
        assert isinstance(one, Frame), one
        assert (one.head.identity.stream, one.head.identity.seq, one.head.kind) == (stream, seq, kind)
        # A tombstone that was receipted in part begins below up_to; every later number follows without a hole.
        assert seq == expected or (kind == Kind.TOMBSTONE and seq < expected), f"stream {stream}: {seq} follows {expected - 1}"
        expected = last + 1
        found.numbers.setdefault(stream, []).append((seq, last))
        if kind == Kind.BLOCK:
            rows = block.decode(one.body)
            assert isinstance(rows, block.Rows), rows
            assert rows.counters is not None
            found.blocked += rows.counters.tolist()
        elif kind == Kind.TOMBSTONE:
            grave = tombstone.decode(one.body)
            assert isinstance(grave, tombstone.Tombstone), grave
            assert (grave.first, grave.last) == (seq, last)
            found.buried.setdefault(stream, []).append((seq, last))
            found.buried_rows += grave.rows
        else:
            record = facts.decode(one.body)
            assert isinstance(record, facts.FactRecord), record
            assert previous is None or record.previous == previous, f"stream {stream}: chain broken at {seq}"
            assert seq > 1 or record.previous == CHAIN_START
            if isinstance(record.fact, Audit):
                found.events.append(record.fact.event)
                if record.fact.event == "test":
                    assert record.fact.detail["number"] not in found.facts, f"fact {record.fact.detail} is stored twice"
                    found.facts[record.fact.detail["number"]] = data
        previous = facts.fact_hash(one.body) if kind == Kind.FACT else None
    assert expected == next_seq, f"stream {stream} ({lane}): numbers end at {expected - 1}, next is {next_seq}"
    assert previous is None or previous == head or state != "open", f"stream {stream}: head is not the newest fact"


def assert_nothing_lost(found: Inventory, *, rows: Sequence[int], facts_: Sequence[int]) -> None:
    """Every acknowledged sample and fact is there, and no sample twice."""
    missing = set(rows) - set(found.samples)
    assert not missing, f"{len(missing)} acknowledged samples lost, first {min(missing)}"
    assert len(found.samples) == len(set(found.samples)), "a sample is stored twice"
    missing_facts = set(facts_) - found.facts.keys()
    assert not missing_facts, f"facts lost: {sorted(missing_facts)}"
