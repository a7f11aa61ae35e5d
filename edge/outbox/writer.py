"""Writer: the one thread that owns the store. It groups rows into commits and lets facts go first. Not the store's rules.

Invariant: a Future is answered only after the store's call returned, so an answer means a commit.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edge.condition import ConditionedRow
from edge.outbox.model import AppendResult, OutboxBusyError, OutboxError
from protocol.clock import Timer

__all__ = ["GROUP_ROWS_MAX", "JOBS_MAX", "ROWS_WAITING_MAX", "GroupStore", "Writer"]

JOBS_MAX = 1024  # calls that wait for the disk; at 50 ms a commit that is under a minute, beyond it the caller must slow down
ROWS_WAITING_MAX = 8192  # samples that wait for the disk: 8 coolers at 1 Hz for a quarter of an hour, ~4 MB
GROUP_ROWS_MAX = 256  # rows in one commit: a fact never waits for more than this, and 50 ms a sync still takes 3,000 rows a second
TICK_S = 0.25  # how often ages, bounds and the scrub are looked at

T = TypeVar("T")


class GroupStore(Protocol):
    """What the thread needs of the store."""

    def append_groups(self, groups: Sequence[Sequence[ConditionedRow]]) -> list[AppendResult]:
        """Append all groups in one transaction."""
        ...

    def tick(self) -> None:
        """Do what is due."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


@dataclass(slots=True)
class _Rows:
    rows: Sequence[ConditionedRow]
    future: Future[AppendResult]


class Writer:
    """Runs calls on the store, one at a time, in its own thread."""

    def __init__(self, open_store: Callable[[], GroupStore], *, timer: Timer, commit_interval_s: float) -> None:
        self._timer = timer
        self._interval_s = commit_interval_s
        self._condition = threading.Condition()
        self._urgent: deque[Callable[[], None]] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._rows: deque[_Rows] = deque()
        self._rows_waiting = 0
        self._rows_since_s = 0.0
        self._tick_at_s = 0.0
        self._closing = False
        opened: Future[None] = Future()
        self._store: GroupStore
        self._thread = threading.Thread(target=self._run, args=(open_store, opened), name="outbox-writer", daemon=True)
        self._thread.start()
        opened.result()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs; false after ``close`` and after a bug in it."""
        return self._thread.is_alive()

    def submit(self, call: Callable[[], T], *, urgent: bool = False) -> Future[T]:
        """Run ``call`` on the thread, an urgent one before all others. Raises ``OutboxBusyError`` when ``JOBS_MAX`` calls wait."""
        future: Future[T] = Future()

        def job() -> None:
            _answer(future, call)

        with self._condition:
            self._refuse_when_closing()
            if len(self._jobs) + len(self._urgent) >= JOBS_MAX:
                raise OutboxBusyError(f"{JOBS_MAX} calls wait for the disk")
            (self._urgent if urgent else self._jobs).append(job)
            self._condition.notify()
        return future

    def submit_rows(self, rows: Sequence[ConditionedRow]) -> Future[AppendResult]:
        """Append rows with the next group. Raises ``OutboxBusyError`` when ``ROWS_WAITING_MAX`` rows wait."""
        future: Future[AppendResult] = Future()
        with self._condition:
            self._refuse_when_closing()
            if self._rows_waiting + len(rows) > ROWS_WAITING_MAX or len(self._rows) >= ROWS_WAITING_MAX:
                raise OutboxBusyError(f"{self._rows_waiting} rows wait for the disk")
            if not self._rows:
                self._rows_since_s = self._timer()
            self._rows.append(_Rows(rows, future))
            self._rows_waiting += len(rows)
            self._condition.notify()
        return future

    def close(self, timeout_s: float) -> bool:
        """Finish what waits, close the store and end the thread; false when that took longer than ``timeout_s``."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _refuse_when_closing(self) -> None:
        if self._closing or not self._thread.is_alive():
            raise OutboxError("the outbox is closed")

    def _run(self, open_store: Callable[[], GroupStore], opened: Future[None]) -> None:
        try:
            self._store = open_store()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            opened.set_exception(error)
            return
        opened.set_result(None)
        try:
            while self._step():
                pass
        finally:
            self._store.close()

    def _step(self) -> bool:
        """Run one call or one group, and the tick when its time has come; false when closing and nothing is left."""
        with self._condition:
            job, group = self._take()
            if job is None and group is None:
                if self._closing:
                    return False
                self._condition.wait(self._wait_s())
                job, group = self._take()
        if job is not None:
            job()
        elif group is not None:
            self._append(group)
        if self._timer() >= self._tick_at_s:  # also between calls: a busy store must seal and evict like an idle one
            self._store.tick()
            self._tick_at_s = self._timer() + TICK_S
        return True

    def _take(self) -> tuple[Callable[[], None] | None, list[_Rows] | None]:
        """What to do now, under the lock: facts, then rows whose time has come, then everything else."""
        if self._urgent:
            return self._urgent.popleft(), None
        if self._rows and (self._closing or self._rows_waiting >= GROUP_ROWS_MAX or self._due_in_s() <= 0):
            return None, self._take_group()
        if self._jobs:
            return self._jobs.popleft(), None
        return None, None

    def _take_group(self) -> list[_Rows]:
        group: list[_Rows] = []
        size = 0
        while self._rows and (not group or size + len(self._rows[0].rows) <= GROUP_ROWS_MAX):
            entry = self._rows.popleft()
            self._rows_waiting -= len(entry.rows)
            if entry.future.set_running_or_notify_cancel():
                group.append(entry)
                size += len(entry.rows)
        return group

    def _due_in_s(self) -> float:
        return self._rows_since_s + self._interval_s - self._timer()

    def _wait_s(self) -> float:
        return min(TICK_S, max(0.0, self._due_in_s())) if self._rows else TICK_S

    def _append(self, group: list[_Rows]) -> None:
        if not group:
            return
        try:
            results = self._store.append_groups([entry.rows for entry in group])
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait for the rows
            for entry in group:
                entry.future.set_exception(error)
            return
        for entry, result in zip(group, results, strict=True):
            entry.future.set_result(result)


def _answer(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - it belongs to the caller
        future.set_exception(error)
    else:
        future.set_result(result)
