"""Store: the outbox without threads. Every call is one durable step; whoever calls owns it alone. Not the queue before it (``writer``).

Invariant: what a call returned is on the disk, in the main file and, for facts, in the mirror; what it raised for left nothing behind.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import apsw

from edge.condition import ConditionedRow
from edge.outbox import forks, recovery, sealing
from edge.outbox.database import DAMAGE, PAGE_BYTES, Database
from edge.outbox.eviction import Eviction
from edge.outbox.files import Ballast, Lock, drop_aside, set_aside, sync_folder
from edge.outbox.guard import Guard, Remedies
from edge.outbox.lanes import Lanes, Stored
from edge.outbox.mirror import Mirror, MirrorFact
from edge.outbox.model import AppendResult, Counts, Host, Limits, OutboxError, OutboxFaultError, OutboxStats, ReceiptEffect, Record
from edge.outbox.staging import Staging
from protocol.facts import Audit, Fact
from protocol.frame import FRAME_BYTES_MAX, Identity, Kind
from protocol.reading import Stamp
from protocol.receipt import Receipt
from protocol.tombstone import Cause, Tombstone
from protocol.topics import Lane

__all__ = ["Store"]

CHECK_S = 1.0  # of the three seconds in which a start must accept samples; what it does not reach is scrubbed later
SCRUB_ROWS = 64  # rows looked at in one tick: a month's backlog in half an hour, at a hundredth of a card's speed
VACUUM_PAGES = 64  # given back in one tick, so that no commit waits for it
FREE_PAGES_KEPT = 256  # 1 MiB stays in the file: tomorrow's rows go there without growing it
EVICT_TICKS_MAX = 32  # batches in one tick
ROOM_BYTES = 262_144  # evicted at once on a full disk: one commit of the largest kind


class Store(Remedies):
    """The files of one gateway, open."""

    def __init__(self, folder: Path, host: Host, limits: Limits, *, vfs: str | None) -> None:
        self._folder = folder
        self._host = host
        self._limits = limits
        self.counts = Counts()
        self.listener: Callable[[Lane], object] | None = None
        pages_max = (limits.telemetry_bytes_max + limits.reserve_bytes) // PAGE_BYTES
        self._database = Database(folder / "outbox.db", kind="outbox", pages_max=pages_max, vfs=vfs)
        self._mirror = Mirror(folder / "facts.db", self.counts, vfs=vfs)
        self._ballast = Ballast(folder / "ballast", limits.ballast_bytes)
        self._lanes = Lanes(self._database, self._mirror, gateway=host.gateway, rng=host.rng)
        self._staging = Staging(self._database)
        self._eviction = Eviction(self._database, self._lanes)
        self._guard = Guard(self._database, self.counts, host.timer, self)
        self._lock = Lock(folder / "outbox.lock")
        self._scrub_at: int | None = None
        self._stats = OutboxStats({}, 0, 0, 0, limits.telemetry_bytes_max, ready=False)

    @classmethod
    def open(cls, folder: Path, host: Host, limits: Limits, *, vfs: str | None = None) -> Self:
        """Open or create the store in ``folder``; see ``Outbox.open``. ``vfs`` names an apsw VFS."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            store = cls(folder, host, limits, vfs=vfs)
        except OSError as error:
            raise OutboxFaultError(f"{folder}: {error}") from error
        try:
            store._start()
        except BaseException:
            store.close()
            raise
        return store

    def append_groups(self, groups: Sequence[Sequence[ConditionedRow]]) -> list[AppendResult]:
        """Stage the rows of all groups in one transaction."""
        last_id = 0

        def work() -> list[AppendResult]:
            nonlocal last_id
            results = []
            for rows in groups:
                accepted = sum([self._staging.append(row) for row in rows])
                results.append(AppendResult(accepted, len(rows) - accepted))
            last_id = self._staging.finish()
            return results

        def landed(results: list[AppendResult]) -> bool:
            return not any(one.accepted for one in results) or self._staging.holds(last_id)

        results = self._guard.durably(work, landed)
        self.counts.appended += sum(one.accepted for one in results)
        self.counts.duplicates += sum(one.duplicates for one in results)
        self._look()
        return results

    def append_fact(self, lane: Lane, fact: Fact) -> Identity:
        """Number, chain and store a fact in both files. ``ValueError`` for the telemetry lane: facts are not telemetry."""
        if lane == Lane.TELEMETRY:
            raise ValueError("facts travel in lanes m and a")
        stored = self._guard.durably(lambda: self._lanes.add_fact(lane, fact, self._stamp()), self._lanes.holds)
        self._mirror.put([MirrorFact(stored.stream, stored.seq, stored.data)])
        self.counts.facts += 1
        self._announce(lane)
        return Identity(self._host.gateway, stored.stream, stored.seq)

    def seal_due(self) -> int:
        """Seal the cohorts that are full or old enough; returns how many blocks came of it."""
        return self._seal(sealing.due(self._staging, self._limits, boot=self._host.boot, now_ms=self._host.clock.monotonic_ms()))

    def seal_all(self) -> int:
        """Seal everything that is staged."""
        blocks = 0
        while self._staging.waiting:
            blocks += self._seal(list(self._staging.waiting))
        return blocks

    def read(self, lane: Lane, *, after: int, limit: int) -> list[Record]:
        """Whole records above an id; rows that are not whole are replaced on the way."""
        records, bad = self._guard.reading(lambda: self._lanes.read(lane, after, limit))
        if bad:
            self._repair(bad)  # a fact that is whole again keeps its place: a reader that had passed it would never come back
            records, _ = self._guard.reading(lambda: self._lanes.read(lane, after, limit))
        for record in records:
            if record.kind == Kind.TOMBSTONE:
                self._eviction.freeze(record.identity.stream)
        return records

    def apply_receipt(self, receipt: Receipt) -> ReceiptEffect:
        """Forget what the cloud has; open a new stream when the receipt proves another life of this gateway."""
        stream = self._guard.reading(lambda: self._lanes.streams.get(receipt.stream))
        if stream is None:
            self.counts.receipts_foreign += 1
            self._look()
            return ReceiptEffect(lane=None)
        forked = self._guard.reading(lambda: forks.is_fork(self._lanes, stream, receipt))

        def work() -> int:
            if forked:
                forks.split(self._lanes, stream)
            return self._lanes.receipted(stream.id, receipt.up_to)

        deleted = self._guard.durably(work)
        self.counts.receipted += deleted
        if deleted and stream.lane != Lane.TELEMETRY:
            self._mirror.receipted(stream.id, self._lanes.streams[stream.id].up_to)
        if forked:
            self.counts.forks += 1
            self._move_forked()
            self._report("outbox_forked", up_to=receipt.up_to, next_seq=stream.next_seq)
        self._look()
        return ReceiptEffect(lane=stream.lane, deleted=deleted, forked=forked)

    def mark_refused(self, record: Record, why: str) -> bool:
        """Set a block aside that no broker takes and tombstone it; false for anything else."""
        if record.lane != Lane.TELEMETRY or record.kind != Kind.BLOCK:
            return False

        def work() -> bool:
            for stored in self._lanes.scan(record.lane, record.id - 1, 1):
                if stored.id == record.id:
                    stamp = self._stamp()
                    self._lanes.set_aside(stored.stream, stored.seq, why, wall_ms=stamp.wall_ms, data=stored.data)
                    what = Tombstone(stored.seq, stored.last, Cause.REFUSED, stored.samples)
                    self._lanes.add_tombstone(self._lanes.streams[stored.stream], what, stamp)
                    return True
            return False

        done = self._guard.durably(work)
        self.counts.refused += done
        self._announce(record.lane)
        return done

    def limit_frame_bytes(self, frame_bytes_max: int) -> None:
        """Seal no larger frames from now on."""
        self._limits = replace(self._limits, frame_bytes_max=min(frame_bytes_max, FRAME_BYTES_MAX))

    def tick(self) -> None:
        """Do what is due: seal, evict, give space back, look for damage, mend the mirror. A failing disk is left for the next time."""
        try:
            self._guard.ensure_open()
            self.seal_due()
            self._evict_to_bound()
            self._move_forked()
            if self._database.free_pages() > FREE_PAGES_KEPT:
                self._guard.reading(lambda: self._database.vacuum(VACUUM_PAGES))
            if not self._ballast.is_there and self._ballast.ensure():
                self._database.hold_size(None)
            self._scrub()
            self._forget_streams()
            if not self._mirror.is_ready:
                self._mirror.open()
                self._guard.reading(lambda: recovery.fill_mirror(self._lanes, self._mirror))
        except OutboxError:
            self._stats = replace(self._stats, ready=False)
        except apsw.Error:
            self._database.close()  # a look at the file failed: the next call opens it anew and reads back
            self._stats = replace(self._stats, ready=False)
        else:
            self._look()

    def stats(self) -> OutboxStats:
        """The picture that the last call left."""
        return self._stats

    def close(self) -> None:
        """Close the files and free the lock; idempotent."""
        self._database.close()
        self._mirror.close()
        self._lock.release()

    def reload(self) -> None:
        """See ``Remedies``."""
        self._eviction.freeze()
        self._lanes.reload()
        self._staging.reload()

    def replace_damaged(self, why: str) -> None:
        """See ``Remedies``. The mirror gives the facts back, tombstones account for the rest, a fact reports it."""
        self._database.close()
        self.counts.files_quarantined += 1
        try:
            set_aside(self._database.path)
            self._database.open()
            self._adopt()
        except (OSError, apsw.Error) as error:
            self._database.close()
            raise OutboxFaultError(f"{self._database.path} is damaged ({why}) and cannot be replaced: {error}") from error
        self._report("outbox_file_damaged", restored_facts=self.counts.restored_facts)

    def make_room(self, attempt: int) -> bool:
        """See ``Remedies``: evict; then give up what is ours beside the database."""
        if attempt == 0 and self._evict_quietly():
            return True
        freed = drop_aside(self._database.path) + drop_aside(self._folder / "facts.db")
        has_ballast = self._ballast.free()
        self.counts.ballast_freed += has_ballast
        freed += has_ballast
        with suppress(apsw.Error):
            # The log starts again in the blocks that it has, and the file stays below what the ballast left: nothing meets the disk's end.
            self._database.checkpoint(keep_log=True)
            if has_ballast or not self._database.is_held:
                self._database.hold_size(self._limits.ballast_bytes // 4 if has_ballast else 0)
        return bool(freed + self._evict_quietly())

    def _start(self) -> None:
        self._mirror.open()
        self._ballast.ensure()
        try:
            self._database.open()
            checked = self._database.check(self._host.timer, CHECK_S)
            self._adopt()
            self._scrub_at = None if checked else 0
        except DAMAGE as error:
            self.replace_damaged(str(error))
        except apsw.Error as error:
            raise OutboxFaultError(f"{self._database.path}: {type(error).__name__}: {error}") from error
        sync_folder(self._folder)
        self._look()

    def _adopt(self) -> None:
        """Take over a file that is open and sound: check whose it is, and make it agree with the mirror."""
        self._check_gateway()
        with self._database.transaction():
            self._database.run("delete from cohort where id not in (select cohort from staging)")
            self.reload()
            got = recovery.from_mirror(self._database, self._lanes, self._mirror, self._stamp())
            self._lanes.ensure_streams()  # last: a new number must not be one that the mirror knows
        self.counts.restored_facts += got.facts
        recovery.fill_mirror(self._lanes, self._mirror)

    def _check_gateway(self) -> None:
        for (name,) in self._database.run("select value from meta where key = 'gateway'"):
            if name != self._host.gateway:
                raise OutboxError(
                    f"{self._database.path} belongs to {name}, not to {self._host.gateway}: use that gateway's name or another data_dir"
                )
            return
        with self._database.transaction():
            self._database.run("insert into meta (key, value) values ('gateway', ?), ('readable_by', '1')", (self._host.gateway,))

    def _seal(self, cohort_ids: Sequence[int]) -> int:
        blocks = 0
        for start in range(0, len(cohort_ids), sealing.COHORTS_IN_COMMIT):
            part = cohort_ids[start : start + sealing.COHORTS_IN_COMMIT]
            sealed = self._guard.durably(
                lambda part=part: sealing.seal(  # type: ignore[misc]
                    self._staging, self._lanes, part, limits=self._limits, now=self._stamp()
                )
            )
            blocks += sealed.blocks
            self.counts.sealed_blocks += sealed.blocks
            self.counts.sealed_rows += sealed.rows
            self.counts.corrupt_staged += sealed.corrupt
            if sealed.corrupt:
                self._report("outbox_staged_corrupt", rows=sealed.corrupt)
        if blocks:
            self._announce(Lane.TELEMETRY)
        return blocks

    def _repair(self, bad: Sequence[Stored]) -> None:
        restored = self._guard.durably(lambda: sum([self._lanes.repair(one, self._stamp()) for one in bad]))
        self.counts.restored_facts += restored
        self.counts.corrupt_rows += len(bad)
        for lane in Lane:
            self._announce(lane)
        self._report("outbox_rows_corrupt", rows=len(bad), restored=restored)

    def _evict_to_bound(self) -> None:
        for _ in range(EVICT_TICKS_MAX):
            over = self._database.used_bytes() - self._limits.telemetry_bytes_max
            if over <= 0:
                return
            evicted = self._guard.durably(lambda over=over: self._eviction.evict(self._stamp(), over))  # type: ignore[misc]
            self._note_evicted(evicted.blocks, evicted.rows)
            if not evicted.blocks:
                return

    def _evict_quietly(self) -> int:
        """Evict on a disk that is full already: what does not fit leaves everything as it was."""
        try:
            with self._database.transaction():
                evicted = self._eviction.evict(self._stamp(), ROOM_BYTES)
        except apsw.Error:
            self.reload()
            return 0
        self._note_evicted(evicted.blocks, evicted.rows)
        return evicted.blocks

    def _note_evicted(self, blocks: int, rows: int) -> None:
        self.counts.evicted_blocks += blocks
        self.counts.evicted_rows += rows
        if blocks:
            self._announce(Lane.TELEMETRY)

    def _move_forked(self) -> None:
        forked = {stream.id: stream.contact_seq for stream in self._lanes.streams.values() if stream.state == "forked"}
        if not forked:
            return
        moved = self._guard.durably(lambda: forks.move_some(self._database, self._lanes, self._stamp()))
        self._mirror.put([MirrorFact(one.stream, one.seq, one.data) for one in moved if one.kind == Kind.FACT])
        for stream_id, contact_seq in forked.items():
            self._mirror.moved(stream_id, contact_seq)
        for lane in Lane:
            self._announce(lane)

    def _scrub(self) -> None:
        """Look at some rows that the check at start did not reach."""
        if self._scrub_at is None:
            return
        after = self._scrub_at
        rows = self._guard.reading(lambda: self._lanes.scan_all(after, SCRUB_ROWS))
        self.counts.scrubbed += len(rows)
        self._scrub_at = rows[-1].id if rows else None
        if bad := [row for row in rows if not row.is_whole]:
            self._repair(bad)

    def _forget_streams(self) -> None:
        for stream in [one for one in self._lanes.streams.values() if one.state == "closed"]:
            if not self._guard.reading(lambda stream=stream: self._lanes.waits(stream)):  # type: ignore[misc]
                self._mirror.forget(stream.id)  # first: what only the mirror knows would come back at the next start
                self._guard.durably(lambda stream=stream: self._lanes.forget(stream))  # type: ignore[misc]

    def _report(self, event: str, **detail: int) -> None:
        self.append_fact(Lane.ALARM, Audit(event=event, detail=detail))

    def _announce(self, lane: Lane) -> None:
        self._look()
        if self.listener is not None:
            self.listener(lane)

    def _stamp(self) -> Stamp:
        return Stamp(self._host.boot, self._host.clock.monotonic_ms(), self._host.clock.wall_ms(), self._host.clock.quality())

    def _look(self) -> None:
        """Take the picture that other threads see."""
        self.counts.dedupe_forgotten = self._staging.dedupe.forgotten
        used_bytes = self._stats.used_bytes
        is_open = self._database.is_open
        if is_open:
            with suppress(apsw.Error):  # what was done is done; a picture a moment old will do
                used_bytes = self._database.used_bytes()
        self._stats = OutboxStats(
            lanes=self._lanes.stats(),
            staged=self._staging.total,
            quarantined=self._lanes.quarantined,
            used_bytes=used_bytes,
            bytes_max=self._limits.telemetry_bytes_max,
            ready=is_open,
            counts=replace(self.counts),
        )
