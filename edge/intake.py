"""Intake: from readings to the disk. Each cooler's gate, then the outbox, then (and only then) the live values. Not a source.

Invariant: ``settle`` returns when the rows are on disk; until then nobody may acknowledge, count or show them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from edge.condition import ConditionedRow, Conditioner
from edge.live import LiveBoard
from edge.outbox.model import AppendResult, OutboxBusyError, OutboxFaultError
from protocol.clock import Timer
from protocol.profile import Profile
from protocol.reading import Quality, Reading
from protocol.units import DeviceId

__all__ = ["Batch", "Intake", "RowStore"]

BUSY_S = 0.05  # a full queue to the disk empties with the next commit
RETRY_S = 1.0  # the disk is asked again each second: a source that is not acknowledged waits, it loses nothing


class RowStore(Protocol):
    """What is needed of the outbox."""

    def append_rows(self, rows: Sequence[ConditionedRow]) -> Future[AppendResult]:
        """Append rows; see ``edge.outbox.Outbox``."""
        ...


@dataclass(slots=True)
class Batch:
    """Rows on their way to the disk. ``future`` is ``None`` while the outbox's queue is full."""

    rows: list[ConditionedRow]
    future: Future[AppendResult] | None


class Intake:
    """All gates of a gateway; one per process, used on the event loop only."""

    def __init__(self, store: RowStore, devices: Mapping[DeviceId, Profile], *, live: LiveBoard, timer: Timer) -> None:
        self.conditioners = {device: Conditioner(profile) for device, profile in devices.items()}
        self.counts: Counter[str] = Counter()
        self.quality: Counter[Quality] = Counter()
        self.commit_s = 0.0
        """How long the last batch took to the disk."""
        self.fault = ""
        """What the disk said last, empty while it works."""
        self._store = store
        self._live = live
        self._timer = timer
        self._since_s: dict[int, float] = {}  # by id of each unsettled batch, oldest first; a source bounds how many it has

    def submit(self, readings: Sequence[Reading]) -> Batch:
        """Pass readings through their gates and offer them to the disk; never blocks."""
        rows = [self.conditioners[reading.device].take(reading) for reading in readings]
        batch = Batch(rows, self._offer(rows))
        self._since_s[id(batch)] = self._timer()
        return batch

    def forget(self, batch: Batch) -> None:
        """Nobody waits for this batch any more: its source ended. What reached the disk stays there."""
        self._since_s.pop(id(batch), None)

    @property
    def waits_s(self) -> float:
        """How long the oldest batch has been waiting for the disk; 0 when none does."""
        return self._timer() - next(iter(self._since_s.values())) if self._since_s else 0.0

    async def settle(self, batch: Batch) -> AppendResult:
        """Return when every row of the batch is on disk, however long that takes."""
        started_s = self._since_s.get(id(batch), self._timer())
        try:
            result = await self._until_stored(batch)
        finally:
            self.forget(batch)
        self.fault = ""
        self.commit_s = self._timer() - started_s
        self._note(batch.rows, result)
        return result

    async def _until_stored(self, batch: Batch) -> AppendResult:
        while True:
            try:
                if batch.future is not None:
                    return await asyncio.wrap_future(batch.future)
            except OutboxFaultError as error:
                self.counts["append_faults"] += 1
                self.fault = str(error)
            await asyncio.sleep(BUSY_S if batch.future is None else RETRY_S)
            batch.future = self._offer(batch.rows)

    def _offer(self, rows: list[ConditionedRow]) -> Future[AppendResult] | None:
        try:
            return self._store.append_rows(rows)
        except OutboxBusyError:
            self.counts["store_busy"] += 1
            return None

    def _note(self, rows: list[ConditionedRow], result: AppendResult) -> None:
        self.counts["rows_stored"] += result.accepted
        self.counts["rows_duplicate"] += result.duplicates
        for row in rows:
            if rejected := row.quality.strip(b"\0"):
                self.quality.update(Quality(one) for one in rejected if one)
            self._live.show(row)
