"""Staging: samples that are durable but not yet in a block. Not numbered yet, so nothing here can leave a gap.

Samples that share a block's head form a *cohort*: one device, profile version, boot of ours and boot of the device. Invariant: a staged
row leaves only in the transaction that stores the block which holds it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge.condition import ConditionedRow
from edge.outbox.database import Database, to_signed, to_unsigned
from edge.outbox.dedupe import Dedupe
from native import crc32c
from protocol import block
from protocol.block import BLOCK_ROWS_MAX, Rows
from protocol.clock import ClockQuality
from protocol.reading import CODE_MAX, CODE_MIN, Quality, Stamp
from protocol.units import DeviceId

__all__ = ["STAGED_ROWS_MAX", "Cohort", "Staged", "StagedRow", "Staging", "body_of", "check_row", "pack_row", "unpack_row"]

STAGED_ROWS_MAX = 100_000  # 256 coolers for five minutes at 1 Hz; beyond it everything is sealed as it is
HELD = 0x80  # in a quality byte: a code was sent

_ROW = struct.Struct("<qqqqBBH")  # ts_ms, monotonic_ms, wall_ms, counter, clock quality, in session, channels


@dataclass(frozen=True, slots=True)
class Cohort:
    """What the samples of one block share; ``max_error`` is the profile's thinning bound per channel in codes."""

    device: DeviceId
    profile: str
    profile_version: int
    max_error: tuple[int, ...]
    boot: int
    source_boot: int
    counted: bool

    @property
    def crc(self) -> int:
        """Checksum of the content: a row's checksum begins with it, so a damaged cohort damages its rows visibly."""
        return int(crc32c.crc32c(repr(self).encode()))


@dataclass(frozen=True, slots=True)
class StagedRow:
    """One sample as it lies in staging."""

    ts_ms: int
    monotonic_ms: int
    wall_ms: int
    counter: int
    clock_quality: int
    in_session: bool
    quality: bytes
    codes: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Staged:
    """How much of a cohort waits: rows, the oldest one's monotonic time, and whether one of them is in a session."""

    rows: int
    oldest_ms: int
    in_session: bool


def check_row(row: ConditionedRow) -> None:
    """Raise ``ValueError`` for a row that contradicts itself: that is a bug of whoever conditioned it, and must not fail its neighbours."""
    codes, channels = row.reading.codes, len(row.profile.channels)
    if not len(codes) == len(row.quality) == channels:
        raise ValueError(f"{row.reading.device}: {len(codes)} codes and {len(row.quality)} qualities for {channels} channels")
    for at, (quality, code) in enumerate(zip(row.quality, codes, strict=True)):
        if quality >= Quality.COASTED or (code is None and quality == Quality.OK) or not CODE_MIN <= (code or 0) <= CODE_MAX:
            raise ValueError(f"{row.reading.device}: channel {at} has quality {quality} and code {code}")


def pack_row(row: StagedRow) -> bytes:
    """Return a row as stored."""
    held = bytes(quality if code is None else quality | HELD for quality, code in zip(row.quality, row.codes, strict=True))
    head = _ROW.pack(row.ts_ms, row.monotonic_ms, row.wall_ms, row.counter, row.clock_quality, row.in_session, len(row.codes))
    return head + held + struct.pack(f"<{len(row.codes)}q", *(code or 0 for code in row.codes))


def unpack_row(data: bytes) -> StagedRow:
    """Return a stored row whose checksum was right."""
    ts_ms, monotonic_ms, wall_ms, counter, clock_quality, in_session, channels = _ROW.unpack_from(data)
    held = data[_ROW.size : _ROW.size + channels]
    codes = struct.unpack_from(f"<{channels}q", data, _ROW.size + channels)
    return StagedRow(
        ts_ms=ts_ms,
        monotonic_ms=monotonic_ms,
        wall_ms=wall_ms,
        counter=counter,
        clock_quality=clock_quality,
        in_session=bool(in_session),
        quality=bytes(byte & ~HELD for byte in held),
        codes=tuple(code if byte & HELD else None for byte, code in zip(held, codes, strict=True)),
    )


def body_of(cohort: Cohort, rows: list[StagedRow]) -> bytes:
    """Return the body of a block frame with these rows."""
    quality = np.frombuffer(b"".join(row.quality for row in rows), dtype=np.uint8).reshape(len(rows), -1)
    codes = np.array([[code or 0 for code in row.codes] for row in rows], dtype=np.int64)
    refused = np.flatnonzero(quality.ravel() != Quality.OK)
    flat = [code for row in rows for code in row.codes]
    rejected = {int(cell): code for cell in refused if (code := flat[cell]) is not None}
    codes[quality != Quality.OK] = 0
    return block.encode(
        Rows(
            ts_ms=np.array([row.ts_ms for row in rows], dtype=np.int64),
            codes=codes,
            quality=quality,
            counters=np.array([row.counter for row in rows], dtype=np.int64) if cohort.counted else None,
            source_boot=cohort.source_boot,
            rejected=rejected,
        ),
        max_error=cohort.max_error,
    )


def stamp_of(cohort: Cohort, row: StagedRow) -> Stamp:
    """Return the stamp of a staged row."""
    return Stamp(cohort.boot, row.monotonic_ms, row.wall_ms, ClockQuality(row.clock_quality))


class Staging:
    """The staging table and what is known of it in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.dedupe = Dedupe(database)
        self._next_id = 1
        self._cohort_ids: dict[Cohort, int] = {}
        self.cohorts: dict[int, Cohort] = {}
        self.waiting: dict[int, Staged] = {}

    @property
    def total(self) -> int:
        """Rows that wait."""
        return sum(staged.rows for staged in self.waiting.values())

    def reload(self) -> None:
        """Take everything from the file again."""
        self.dedupe.reload()
        self.cohorts = dict(self._stored_cohorts())
        self._cohort_ids = {cohort: cohort_id for cohort_id, cohort in self.cohorts.items()}
        self._next_id = 1 + self._database.number("select max(id) from staging")
        self.waiting = {}
        for cohort_id, data in self._database.run("select cohort, data from staging order by id"):
            _, monotonic_ms, *_, in_session, _ = _ROW.unpack_from(data.ljust(_ROW.size, b"\0"))
            self._note(cohort_id, monotonic_ms, in_session=bool(in_session))

    def append(self, row: ConditionedRow) -> bool:
        """Stage a row unless it was seen before; inside a transaction."""
        reading = row.reading
        if not self.dedupe.is_new(reading):
            return False
        staged = StagedRow(
            ts_ms=reading.ts_ms,
            monotonic_ms=reading.stamp.monotonic_ms,
            wall_ms=reading.stamp.wall_ms,
            counter=reading.counter or 0,
            clock_quality=reading.stamp.quality,
            in_session=row.in_session,
            quality=row.quality,
            codes=reading.codes,
        )
        cohort = Cohort(
            device=reading.device,
            profile=row.profile.id,
            profile_version=row.profile.version,
            max_error=row.profile.max_error_codes,
            boot=reading.stamp.boot,
            source_boot=reading.source_boot,
            counted=reading.counter is not None,
        )
        cohort_id = self._cohort_id(cohort)
        data = pack_row(staged)
        self._database.run(
            "insert into staging (id, cohort, data, crc) values (?, ?, ?, ?)",
            (self._next_id, cohort_id, data, _checksum(self._next_id, cohort, data)),
        )
        self._next_id += 1
        self._note(cohort_id, staged.monotonic_ms, in_session=row.in_session)
        return True

    def finish(self) -> int:
        """End an append: write the dedupe's memory and return the id of the newest row."""
        self.dedupe.flush(self._next_id)
        return self._next_id - 1

    def holds(self, row_id: int) -> bool:
        """Tell whether a row is in the file: how an unknown commit is resolved."""
        return self._database.number("select count(*) from staging where id = ?", (row_id,)) == 1

    def rows(self, cohort_id: int, limit: int) -> Iterator[tuple[int, StagedRow | bytes]]:
        """The oldest rows of a cohort with their ids; bytes in place of a row that fails its checksum."""
        cohort = self.cohorts[cohort_id]
        query = "select id, data, crc from staging where cohort = ? order by id limit ?"
        for row_id, data, crc in list(self._database.run(query, (cohort_id, min(limit, BLOCK_ROWS_MAX)))):
            yield row_id, unpack_row(data) if _checksum(row_id, cohort, data) == crc else data

    def remove(self, cohort_id: int, up_to_id: int) -> None:
        """Take a cohort's rows out up to an id; inside the transaction that stored their block."""
        self._database.run("delete from staging where cohort = ? and id <= ?", (cohort_id, up_to_id))
        gone = self._database.changes
        staged = self.waiting.pop(cohort_id)
        if gone < staged.rows:
            # The next oldest is younger than what went; its own time is exact enough to be read when it matters.
            data = next(iter(self._database.run("select data from staging where cohort = ? order by id limit 1", (cohort_id,))))[0]
            self.waiting[cohort_id] = replace(staged, rows=staged.rows - gone, oldest_ms=_ROW.unpack_from(data)[1])
            return
        self._database.run("delete from cohort where id = ?", (cohort_id,))
        del self._cohort_ids[self.cohorts.pop(cohort_id)]

    def _note(self, cohort_id: int, monotonic_ms: int, *, in_session: bool) -> None:
        before = self.waiting.get(cohort_id)
        if before is None:
            self.waiting[cohort_id] = Staged(1, monotonic_ms, in_session)
        else:
            self.waiting[cohort_id] = Staged(before.rows + 1, before.oldest_ms, before.in_session or in_session)

    def _cohort_id(self, cohort: Cohort) -> int:
        known = self._cohort_ids.get(cohort)
        if known is not None:
            return known
        cohort_id = 1 + self._database.number("select max(id) from cohort")
        self._database.run(
            "insert into cohort (id, device, profile, profile_version, max_error, boot, source_boot, counted)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                cohort_id,
                cohort.device,
                cohort.profile,
                cohort.profile_version,
                struct.pack(f"<{len(cohort.max_error)}q", *cohort.max_error),
                to_signed(cohort.boot),
                to_signed(cohort.source_boot),
                int(cohort.counted),
            ),
        )
        self._cohort_ids[cohort] = cohort_id
        self.cohorts[cohort_id] = cohort
        return cohort_id

    def _stored_cohorts(self) -> Iterator[tuple[int, Cohort]]:
        query = "select id, device, profile, profile_version, max_error, boot, source_boot, counted from cohort"
        for cohort_id, device, profile, version, max_error, boot, source_boot, counted in self._database.run(query):
            bounds = struct.unpack(f"<{len(max_error) // 8}q", max_error)
            yield (
                cohort_id,
                Cohort(DeviceId(device), profile, version, bounds, to_unsigned(boot), to_unsigned(source_boot), bool(counted)),
            )


def _checksum(row_id: int, cohort: Cohort, data: bytes) -> int:
    return int(crc32c.crc32c(data, crc32c.crc32c(struct.pack("<q", row_id), cohort.crc)))
