"""Roll-up: one row a machine, channel and minute, so that a week of the fleet is read without opening a block. Not evidence: rebuildable.

Invariant: sums, counts and extremes are exact integers and do not depend on the order of blocks; a block counts once, because its
effect and the cursor move in one transaction.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog
from sqlalchemy import Connection, case, delete

from ingest.projection import (
    ProfileLookup,
    Reject,
    RejectReason,
    StoredBlock,
    advance,
    blocks_after,
    decode_rows,
    open_rejects,
    place_cursor,
    position,
    reject,
    resolve,
)
from ingest.schema import rollup_1m
from ingest.sql import upsert
from ingest.store import Store
from protocol.block import Rows
from protocol.clock import Clock
from protocol.profile import Profile
from protocol.reading import Quality
from protocol.refusal import Refusal

__all__ = ["CODE_ROLLED_MAX", "NAME", "Minute", "RollupProjection", "merge", "minutes", "rebuild"]

NAME = "rollup"
"""Name of the cursor."""

MINUTE_MS = 60_000
BLOCKS_A_STEP_MAX = 50  # about two thousand rows, some tens of milliseconds in which a SQLite store takes no other writer
CODE_ROLLED_MAX = 2**48  # no sensor has more bits; 2^15 such samples a minute still sum within the database's 64 bits

NEVER_MS = -(2**62)  # before any time stamp

log = structlog.get_logger(__name__)

Key = tuple[str, str, int]
"""(device, channel, minute in ms)."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What one minute of one channel was, in codes. ``lo``, ``hi`` and ``last`` are ``None`` while ``n`` is 0."""

    n: int
    total: int
    lo: int | None
    hi: int | None
    last: int | None
    last_ms: int
    invalid: int


def minutes(device: str, profile: Profile, rows: Rows) -> dict[Key, Minute]:
    """Return what a block adds to each minute that it touches. Cells beyond ``CODE_ROLLED_MAX`` count as invalid."""
    valid = (rows.quality == Quality.OK) & (rows.codes <= CODE_ROLLED_MAX) & (rows.codes >= -CODE_ROLLED_MAX)
    starts = rows.ts_ms - rows.ts_ms % MINUTE_MS
    found: dict[Key, Minute] = {}
    for start in np.unique(starts):
        inside = starts == start
        per_channel = _summarise(rows.codes[inside], valid[inside], rows.ts_ms[inside])
        for channel, minute in zip(profile.channels, per_channel, strict=True):
            found[device, channel.name, int(start)] = minute
    return found


def _summarise(codes: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], ts_ms: npt.NDArray[np.int64]) -> list[Minute]:
    """One minute of every channel. ``last`` is the newest sample; of two with one time, the larger: an order that needs no order."""
    count = valid.sum(axis=0)
    total = np.where(valid, codes, 0).sum(axis=0)
    lo = np.where(valid, codes, CODE_ROLLED_MAX).min(axis=0)
    hi = np.where(valid, codes, -CODE_ROLLED_MAX).max(axis=0)
    last_ms = np.where(valid, ts_ms[:, None], NEVER_MS).max(axis=0)
    last = np.where(valid & (ts_ms[:, None] == last_ms), codes, -CODE_ROLLED_MAX).max(axis=0)
    columns = (count.tolist(), total.tolist(), lo.tolist(), hi.tolist(), last.tolist(), last_ms.tolist())
    return [
        Minute(n, sum_, low, high, newest, newest_ms, len(ts_ms) - n) if n else Minute(0, 0, None, None, None, 0, len(ts_ms))
        for n, sum_, low, high, newest, newest_ms in zip(*columns, strict=True)
    ]


def merge(one: Minute, two: Minute) -> Minute:
    """Return both together; commutative and associative, as the database's own merge is."""
    if not one.n or not two.n:
        whole = one if one.n else two
        return Minute(whole.n, whole.total, whole.lo, whole.hi, whole.last, whole.last_ms, one.invalid + two.invalid)
    assert one.lo is not None
    assert two.lo is not None
    assert one.hi is not None
    assert two.hi is not None
    newest = max((one.last_ms, one.last), (two.last_ms, two.last))
    return Minute(
        one.n + two.n, one.total + two.total, min(one.lo, two.lo), max(one.hi, two.hi), newest[1], newest[0], one.invalid + two.invalid
    )


class RollupProjection:
    """See the module. One thread runs it."""

    def __init__(self, store: Store, *, profiles: ProfileLookup, clock: Clock) -> None:
        self._store, self._profiles, self._clock = store, profiles, clock
        self._parked_seen = False

    @property
    def name(self) -> str:
        """Name of its cursor."""
        return NAME

    def close(self) -> None:
        """Nothing to give back: the store belongs to the service."""

    def step(self) -> int:
        """Add the next blocks; with none left, take up left-out ones. See ``Projection.step``."""
        with self._store.reading() as connection:
            here = position(connection, NAME)
            blocks = blocks_after(connection, here or 0, BLOCKS_A_STEP_MAX)
        if not blocks:
            return self._retry()
        # Computed outside the transaction: SQLite has one writer, and ingestion must not wait for arithmetic.
        changes, rejects = self._changes(blocks)
        now_ms = self._clock.wall_ms()
        with self._store.transaction() as connection:
            if advance(connection, NAME, old=here, new=blocks[-1].arrival, now_ms=now_ms):
                _add(connection, changes)
                reject(connection, NAME, rejects, now_ms=now_ms)
        if rejects:
            log.warning("projection_left_out", projection=NAME, count=len(rejects), reason=rejects[0].reason, detail=rejects[0].detail)
        return len(blocks)

    def _retry(self) -> int:
        with self._store.reading() as connection:
            waiting = open_rejects(connection, NAME, self._profiles, parked=not self._parked_seen)
        for stored in waiting:
            changes, rejects = self._changes([stored])
            now_ms = self._clock.wall_ms()
            with self._store.transaction() as connection:
                if resolve(connection, NAME, stored.arrival, now_ms=now_ms):
                    _add(connection, changes)
                    reject(connection, NAME, rejects, now_ms=now_ms)
        self._parked_seen = self._parked_seen or not waiting
        return len(waiting)

    def _changes(self, blocks: Iterable[StoredBlock]) -> tuple[dict[Key, Minute], list[Reject]]:
        changes: dict[Key, Minute] = {}
        rejects: list[Reject] = []
        for stored in blocks:
            added = self._minutes(stored)
            if isinstance(added, Reject):
                rejects.append(added)
                continue
            for key, minute in added.items():
                changes[key] = merge(changes[key], minute) if key in changes else minute
        return changes, rejects

    def _minutes(self, stored: StoredBlock) -> dict[Key, Minute] | Reject:
        profile = self._profiles(stored.profile, stored.profile_version)
        if profile is None:
            return Reject(stored, RejectReason.UNKNOWN_PROFILE, f"{stored.profile} version {stored.profile_version}")
        rows = decode_rows(stored)
        if isinstance(rows, Refusal):
            return Reject(stored, RejectReason.UNREADABLE, str(rows))
        if rows.codes.shape[1] != len(profile.channels):
            return Reject(stored, RejectReason.UNREADABLE, f"{rows.codes.shape[1]} channels, the profile has {len(profile.channels)}")
        return minutes(stored.device, profile, rows)


def rebuild(connection: Connection, *, now_ms: int) -> None:
    """Empty the table and begin again from the first block; a sum cannot be rewound halfway."""
    connection.execute(delete(rollup_1m))
    place_cursor(connection, NAME, arrival=0, now_ms=now_ms)


def _add(connection: Connection, changes: dict[Key, Minute]) -> None:
    """Merge into the table. Sorted keys: two workers that touch the same rows lock them in one order."""
    if not changes:
        return
    statement = upsert(connection, rollup_1m)
    old, new = rollup_1m.c, statement.excluded
    newer = (new.n > 0) & ((old.n == 0) | (new.last_ms > old.last_ms) | ((new.last_ms == old.last_ms) & (new.last > old.last)))
    merged = statement.on_conflict_do_update(
        index_elements=["device", "channel", "minute_ms"],
        set_={
            "n": old.n + new.n,
            "total": old.total + new.total,
            "lo": case((old.lo.is_(None) | (new.lo < old.lo), new.lo), else_=old.lo),
            "hi": case((old.hi.is_(None) | (new.hi > old.hi), new.hi), else_=old.hi),
            "last": case((newer, new.last), else_=old.last),
            "last_ms": case((newer, new.last_ms), else_=old.last_ms),
            "invalid": old.invalid + new.invalid,
        },
    )
    rows = [
        {
            "device": device,
            "channel": channel,
            "minute_ms": minute_ms,
            "n": minute.n,
            "total": minute.total,
            "lo": minute.lo,
            "hi": minute.hi,
            "last": minute.last,
            "last_ms": minute.last_ms,
            "invalid": minute.invalid,
        }
        for (device, channel, minute_ms), minute in sorted(changes.items(), key=_key)
    ]
    connection.execute(merged, rows)


def _key(item: tuple[Key, Minute]) -> Key:
    return item[0]
