"""Outbox as the agent and the uplink see it: calls from any thread, answers as Futures. Not the rules; those are in ``store``.

From a coroutine: ``await asyncio.wrap_future(outbox.append_rows(rows))``. From a thread: ``outbox.append_rows(rows).result(timeout)``.
Invariant: an answered Future means that the disk has it; a call that raises ``OutboxBusyError`` was not accepted at all.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from edge.condition import ConditionedRow
from edge.outbox.model import AppendResult, Host, Limits, OutboxStats, ReceiptEffect, Record
from edge.outbox.staging import check_row
from edge.outbox.store import Store
from edge.outbox.writer import Writer
from protocol.facts import Fact
from protocol.frame import Identity
from protocol.receipt import Receipt
from protocol.topics import Lane

__all__ = ["READ_RECORDS_MAX", "Outbox"]

READ_RECORDS_MAX = 64  # records in one read: 64 × 256 KiB is the most that one answer holds
CLOSE_S = 4.0  # below the agent's five seconds for everything


class Outbox:
    """The store of one gateway, open in this process only."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    @classmethod
    def open(cls, folder: Path, host: Host, limits: Limits) -> Self:
        """Open or create the store in ``folder`` (``outbox.db``, ``facts.db``, ``outbox.lock``, ``ballast``) and start its thread.

        A damaged file is set aside, its facts are restored from the other file, and the loss is reported by a fact and by tombstones.
        ``host.rng`` gives the stream numbers and should be ``random.SystemRandom()``. Blocks for a second or two.
        Raises ``OutboxLockedError``, ``OutboxError`` (another gateway's store, a newer schema) or ``OutboxFaultError`` (the disk).
        """
        stores: list[Store] = []

        def open_store() -> Store:
            stores.append(Store.open(folder, host, limits))
            return stores[0]

        writer = Writer(open_store, timer=host.timer, commit_interval_s=limits.commit_interval_ms / 1000)
        return cls(stores[0], writer)

    def append_rows(self, rows: Sequence[ConditionedRow]) -> Future[AppendResult]:
        """Stage samples with the next group commit (at most ``commit_interval_ms`` away); acknowledge the source when it is answered.

        A sample that was seen before (device, boot and counter; else device, its own time and content) is counted, not stored. Raises
        ``OutboxBusyError`` and, for a row that contradicts itself, ``ValueError``; the Future raises ``OutboxFaultError`` (nothing of the
        group is stored).
        """
        for row in rows:
            check_row(row)
        return self._writer.submit_rows(rows)

    def append_fact(self, lane: Lane, fact: Fact) -> Future[Identity]:
        """Append a fact to lane ``m`` or ``a``, in a commit of its own, before everything that waits. Same errors."""
        return self._writer.submit(lambda: self._store.append_fact(lane, fact), urgent=True)

    def seal_due(self) -> Future[int]:
        """Seal what is old or full enough and return how many blocks came of it. The thread does this by itself each quarter second."""
        return self._writer.submit(self._store.seal_due)

    def seal_all(self) -> Future[int]:
        """Seal everything that is staged (rows of an unfinished group are not)."""
        return self._writer.submit(self._store.seal_all)

    def read(self, lane: Lane, *, after: int = 0, limit: int = READ_RECORDS_MAX) -> Future[list[Record]]:
        """Return the oldest records of a lane whose ``id`` is above ``after``, in order of id.

        A row that fails its checksum is replaced on the way: a fact from its mirror, telemetry by a tombstone, which comes later.
        """
        return self._writer.submit(lambda: self._store.read(lane, after=after, limit=min(limit, READ_RECORDS_MAX)))

    def apply_receipt(self, receipt: Receipt) -> Future[ReceiptEffect]:
        """Forget what the cloud has committed. Cumulative and idempotent; nothing else deletes a fact."""
        return self._writer.submit(lambda: self._store.apply_receipt(receipt))

    def mark_refused(self, record: Record, why: str) -> Future[bool]:
        """Set a telemetry record that the broker will never take aside and tombstone it; false (and nothing done) for a fact."""
        return self._writer.submit(lambda: self._store.mark_refused(record, why))

    def limit_frame_bytes(self, frame_bytes_max: int) -> Future[None]:
        """Seal smaller blocks from now on: the broker takes no larger packet."""
        return self._writer.submit(lambda: self._store.limit_frame_bytes(frame_bytes_max))

    def on_record(self, callback: Callable[[Lane], object] | None) -> None:
        """Call ``callback`` in the writer thread after new records of a lane are on disk; it must only set a flag."""
        self._store.listener = callback

    def stats(self) -> OutboxStats:
        """Return what the store looks like now, without waiting."""
        return self._store.stats()

    @property
    def is_alive(self) -> bool:
        """Whether the writer thread runs: false is a bug, and the process must be restarted."""
        return self._writer.is_alive

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Commit what waits, close the files, free the lock; false when the disk took longer than ``timeout_s``. Blocks; idempotent."""
        return self._writer.close(timeout_s)
