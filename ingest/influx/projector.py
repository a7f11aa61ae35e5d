"""Projector: follows the stored blocks and writes them to InfluxDB. Not ingestion: when the sink is down, only the charts are late.

Hops from the store to the sink: ``InfluxProjection.step`` → ``block_lines`` → ``deliver`` → ``Sink.write``.
Invariant: the cursor moves after the sink's 204 and in one transaction with the rejects; a kill in between writes the same bytes again,
and the same points take their own place.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, select

from ingest.influx.deliver import Item, deliver
from ingest.influx.lines import CodesError, block_lines, prefix
from ingest.influx.sink import Fault, Sink, SinkError
from ingest.projection import (
    BLOCK_COLUMNS,
    ProfileLookup,
    ProjectionError,
    Reject,
    RejectReason,
    StoredBlock,
    advance,
    blocks_after,
    decode_rows,
    open_rejects,
    position,
    reject,
    resolve,
    stored_block,
)
from ingest.schema import block
from ingest.store import Store
from protocol.block import Rows
from protocol.clock import Clock
from protocol.profile import Profile
from protocol.refusal import Reason, Refusal
from protocol.series import CoolerTags
from provisioning import registry

__all__ = ["NAME", "UNASSIGNED", "InfluxProjection", "Totals"]

NAME = "influx"
"""Name of the cursor."""

UNASSIGNED = "unassigned"
"""The site of a machine that the registry does not know: a tag cannot be empty."""

BLOCKS_A_WRITE_MAX = 100  # six thousand lines of a session: what InfluxDB's own guide calls a good batch
WRITES_BEFORE_LARGER = 20  # a larger batch that is too large costs a whole time-out, so it is not tried after every success
BODY_BYTES_MAX = 8 * 1024 * 1024  # a third of the 25 MB that InfluxDB takes by default; one large block may pass it alone
DEVICES_REMEMBERED_MAX = 1024  # last blocks kept decoded (about 20 kB each) so that warming up asks the database once a machine
GAP_MS = 30_000  # a tracker coasts this long; a block that ended earlier would not change one value


log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Totals:
    """What this process has done since it started; for health pages and reports."""

    blocks: int = 0
    points: int = 0
    bytes: int = 0
    rejects: int = 0
    retried: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one step works on."""

    cursor: int | None
    blocks: Sequence[StoredBlock]
    items: Sequence[Item]
    rejects: Sequence[Reject]


class InfluxProjection:
    """See the module. One thread runs it; ``totals`` may be read from any."""

    def __init__(self, store: Store, sink: Sink, *, profiles: ProfileLookup, clock: Clock) -> None:
        self._store, self._sink, self._profiles, self._clock = store, sink, profiles, clock
        self._newest: OrderedDict[tuple[str, str, int], tuple[StoredBlock, Rows | None]] = OrderedDict()
        self._expected: int | None = None
        self._parked_seen = False
        self._limit = BLOCKS_A_WRITE_MAX
        self._in_time = 0
        self.totals = Totals()

    @property
    def name(self) -> str:
        """Name of its cursor."""
        return NAME

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()

    def step(self) -> int:
        """Write the next blocks; with none left, take up left-out ones. See ``Projection.step``."""
        with self._store.reading() as connection:
            batch = self._read(connection)
        if not batch.blocks:
            return self._retry()
        rejects = [*batch.rejects, *self._write(batch.items)]
        newest = batch.blocks[-1].arrival
        with self._store.transaction() as connection:
            moved = advance(connection, NAME, old=batch.cursor, new=newest, now_ms=self._clock.wall_ms())
            if moved:
                reject(connection, NAME, rejects, now_ms=self._clock.wall_ms())
        if moved:
            self._expected = newest
            self.totals.blocks += len(batch.blocks)
            self.totals.rejects += len(rejects)
            if rejects:
                log.warning("projection_left_out", projection=NAME, count=len(rejects), reason=rejects[0].reason, detail=rejects[0].detail)
        return len(batch.blocks)

    def _read(self, connection: Connection) -> _Batch:
        here = position(connection, NAME)
        if here != self._expected:  # rewound by a person, or moved by another process: what was remembered is of another time
            self._newest.clear()
            self._expected = here
        items: list[Item] = []
        rejects: list[Reject] = []
        taken: list[StoredBlock] = []
        size = 0
        found = blocks_after(connection, here or 0, self._limit)
        sites = _Sites(connection, found)
        for stored in found:
            made = self._lines(connection, stored, sites, remember=True)
            taken.append(stored)
            if isinstance(made, Reject):
                rejects.append(made)
                continue
            items.append(made)
            size += len(made.lines)
            if size > BODY_BYTES_MAX:
                break
        return _Batch(here, taken, items, rejects)

    def _lines(self, connection: Connection, stored: StoredBlock, sites: "_Sites", *, remember: bool) -> Item | Reject:
        profile = self._profiles(stored.profile, stored.profile_version)
        if profile is None:
            return Reject(stored, RejectReason.UNKNOWN_PROFILE, f"{stored.profile} version {stored.profile_version}")
        rows = _rows(stored, len(profile.channels))
        usable = None if isinstance(rows, Refusal) else rows
        before = self._remembered(connection, stored, usable, profile) if remember else _before(connection, stored, profile)
        if isinstance(rows, Refusal):
            return Reject(stored, RejectReason.UNREADABLE, str(rows))
        tags = CoolerTags(stored.device, stored.gateway, profile.id, sites.of(stored))
        try:
            return Item(stored, block_lines(prefix(tags), profile, rows, before))
        except CodesError as error:
            return Reject(stored, RejectReason.NOT_WRITABLE, str(error))

    def _write(self, items: Sequence[Item]) -> list[Reject]:
        items = [item for item in items if item.lines]  # a block whose every cell is invalid has no line
        if not items:
            return []
        try:
            rejects = deliver(self._sink, items)
        except SinkError as error:
            if error.fault is Fault.TIMED_OUT:
                self._limit = max(1, self._limit // 2)  # a server this slow may answer a smaller batch in time
                self._in_time = 0
            raise ProjectionError(error.fault, error.detail, error.retry_after_s) from error
        self._in_time += 1
        if self._in_time >= WRITES_BEFORE_LARGER:
            self._limit, self._in_time = min(BLOCKS_A_WRITE_MAX, self._limit * 2), 0
        self.totals.points += sum(item.lines.count(b"\n") for item in items) - sum(bool(one.line) for one in rejects)
        self.totals.bytes += sum(len(item.lines) for item in items)
        return rejects

    def _retry(self) -> int:
        """Left-out blocks once more; each is its own transaction, and what is refused again is written down again."""
        with self._store.reading() as connection:
            waiting = open_rejects(connection, NAME, self._profiles, parked=not self._parked_seen)
            sites = _Sites(connection, waiting)
            made = [(stored, self._lines(connection, stored, sites, remember=False)) for stored in waiting]
        for stored, one in made:
            rejects = [one] if isinstance(one, Reject) else self._write([one])
            with self._store.transaction() as connection:
                if resolve(connection, NAME, stored.arrival, now_ms=self._clock.wall_ms()):
                    reject(connection, NAME, rejects, now_ms=self._clock.wall_ms())
                    self.totals.retried += 1
        # The profiles of a process never change, so the parked blocks are looked through until none of them is known, and then no more.
        self._parked_seen = self._parked_seen or not waiting
        return len(waiting)

    def _remembered(self, connection: Connection, stored: StoredBlock, rows: Rows | None, profile: Profile) -> Rows | None:
        """The block before ``stored``; remembers the machine's newest block (by sample time) of all that have gone by."""
        key = (stored.device, stored.profile, stored.profile_version)
        known = self._newest.pop(key, None)
        if known is None:
            found = _newest_before(connection, stored, ended_before_ms=None)
            known = (found, _rows_or_none(found, profile)) if found is not None else None
        if known is None:
            self._remember(key, (stored, rows))
            return None
        newest, newest_rows = known
        self._remember(key, (stored, rows) if stored.t1_ms >= newest.t1_ms else known)
        if newest.t1_ms >= stored.t0_ms:  # this one is late
            return _before(connection, stored, profile)
        return newest_rows if stored.t0_ms - newest.t1_ms <= GAP_MS else None

    def _remember(self, key: tuple[str, str, int], value: tuple[StoredBlock, Rows | None]) -> None:
        self._newest[key] = value
        if len(self._newest) > DEVICES_REMEMBERED_MAX:
            self._newest.popitem(last=False)


def _before(connection: Connection, stored: StoredBlock, profile: Profile) -> Rows | None:
    """The rows that ``_remembered`` would give, from the database alone."""
    found = _newest_before(connection, stored, ended_before_ms=stored.t0_ms)
    return _rows_or_none(found, profile) if found is not None and stored.t0_ms - found.t1_ms <= GAP_MS else None


def _newest_before(connection: Connection, stored: StoredBlock, *, ended_before_ms: int | None) -> StoredBlock | None:
    """The machine's block with the latest sample among those committed before ``stored``: the same one at every rebuild."""
    same = (
        (block.c.device == stored.device)
        & (block.c.profile == stored.profile)
        & (block.c.profile_version == stored.profile_version)
        & (block.c.arrival < stored.arrival)
    )
    if ended_before_ms is not None:
        same &= block.c.t1_ms < ended_before_ms
    query = select(*BLOCK_COLUMNS).where(same).order_by(block.c.t1_ms.desc(), block.c.arrival.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else stored_block(row)


def _rows(stored: StoredBlock, channels: int) -> Rows | Refusal:
    rows = decode_rows(stored)
    if isinstance(rows, Rows) and rows.codes.shape[1] != channels:
        return Refusal(Reason.BAD_COLUMNS, f"{rows.codes.shape[1]} channels, the profile has {channels}")
    return rows


def _rows_or_none(stored: StoredBlock, profile: Profile) -> Rows | None:
    rows = _rows(stored, len(profile.channels))
    return None if isinstance(rows, Refusal) else rows


class _Sites:
    """Where the machines of a batch stood, for two questions to the registry instead of two a block."""

    def __init__(self, connection: Connection, blocks: Sequence[StoredBlock]) -> None:
        self._stays = registry.stays(connection, {one.device for one in blocks})
        self._gateways = registry.find_gateways(connection, {one.gateway for one in blocks})

    def of(self, stored: StoredBlock) -> str:
        """The site of the machine's own stay when it measured, else its gateway's site, else ``UNASSIGNED``."""
        stay = registry.stay_at(self._stays.get(stored.device, ()), at_ms=stored.t0_ms)
        if stay is not None:
            return stay.site
        gateway = self._gateways.get(stored.gateway)
        return UNASSIGNED if gateway is None else gateway.site
