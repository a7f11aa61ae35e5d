"""Guard: runs work in transactions and answers what a failing disk does to them. Not the work.

A COMMIT that fails with an I/O error is *unknown*: SQLite says that it was rolled back, and after a power cut the rows can be there. So the
file is closed, opened, its log written home and synced (what the page cache shows may not be on the disk), and then it is read back.
Invariant: work that returned once through ``durably`` is on the disk exactly once.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import apsw

from edge.outbox.database import DAMAGE, DISK, Database
from edge.outbox.model import Counts, OutboxFaultError, OutboxFullError
from protocol.clock import Timer

__all__ = ["Guard", "Remedies"]

ATTEMPTS_MAX = 5  # damage, fullness and a failing sync may come one after another; a disk that goes on failing is for the caller
REOPEN_S = 1.0  # between looks at a disk that is gone

T = TypeVar("T")


class Remedies:
    """What the store does about a sick file; overridden by ``Store``."""

    def reload(self) -> None:
        """Take what is kept in memory from the file again."""
        raise NotImplementedError

    def replace_damaged(self, why: str) -> None:
        """Set the file aside and go on with a fresh one."""
        raise NotImplementedError

    def make_room(self, attempt: int) -> bool:
        """Free space; false when there is nothing left to free."""
        raise NotImplementedError


class _Done(Generic[T]):
    """A result, so that ``None`` is one too."""

    def __init__(self, value: T) -> None:
        self.value = value


class Guard:
    """Transactions on one database with their remedies."""

    def __init__(self, database: Database, counts: Counts, timer: Timer, remedies: Remedies) -> None:
        self._database = database
        self._counts = counts
        self._timer = timer
        self._remedies = remedies
        self._retry_at_s = float("-inf")

    def durably(self, work: Callable[[], T], landed: Callable[[T], bool] | None = None) -> T:
        """Run ``work`` in one transaction and return its result once it is on the disk.

        ``landed`` tells, after an unknown commit, whether the result is in the file; without it ``work`` is simply run again, so it must
        find nothing more to do then. Raises ``OutboxFaultError`` or ``OutboxFullError``; errors of ``work`` itself pass and roll back.
        """
        for attempt in range(ATTEMPTS_MAX):
            self.ensure_open()
            done: _Done[T] | None = None
            try:
                with self._database.transaction():
                    done = _Done(work())
            except apsw.Error as error:
                self._remedy(error, attempt)
                if done is not None and self._did_land(done.value, landed):
                    return done.value
            except BaseException:
                self._remedies.reload()
                raise
            else:
                self._counts.commits += 1
                return done.value
        raise OutboxFaultError(f"{self._database.path}: {ATTEMPTS_MAX} attempts failed")

    def _remedy(self, error: apsw.Error, attempt: int) -> None:
        """Do what helps against ``error``, or raise what the caller must hear."""
        if isinstance(error, DAMAGE):
            self._remedies.replace_damaged(str(error))
        elif isinstance(error, DISK):
            self.reopen()
        elif isinstance(error, apsw.FullError):
            self._remedies.reload()
            self._counts.full += 1
            if not self._remedies.make_room(attempt):
                raise OutboxFullError(f"{self._database.path}: no room, and nothing left to evict") from error
        else:
            self._remedies.reload()
            raise error

    def _did_land(self, result: T, landed: Callable[[T], bool] | None) -> bool:
        """Resolve a commit whose outcome is unknown."""
        self._counts.commits_unknown += 1
        return landed is not None and self.reading(lambda: landed(result))

    def reading(self, work: Callable[[], T]) -> T:
        """Run work that only reads."""
        for _ in range(ATTEMPTS_MAX):
            self.ensure_open()
            try:
                return work()
            except DAMAGE as error:
                self._remedies.replace_damaged(str(error))
            except DISK:
                self.reopen()
        raise OutboxFaultError(f"{self._database.path}: {ATTEMPTS_MAX} attempts failed")

    def ensure_open(self) -> None:
        """Open the file again when an earlier try failed, at most once in ``REOPEN_S``."""
        if self._database.is_open:
            return
        if self._timer() < self._retry_at_s:
            raise OutboxFaultError(f"{self._database.path} cannot be opened")
        self.reopen()

    def reopen(self) -> None:
        """Close, open, and force everything that is in the log onto the disk."""
        self._database.close()
        try:
            self._database.open()
            try:
                self._database.checkpoint()
            except apsw.FullError:
                self._remedies.make_room(1)
                self._database.checkpoint()
            self._remedies.reload()
        except DAMAGE as error:
            self._remedies.replace_damaged(str(error))
        except (apsw.Error, OSError) as error:
            self._database.close()
            self._retry_at_s = self._timer() + REOPEN_S
            raise OutboxFaultError(f"{self._database.path}: {error}") from error
        self._counts.reopened += 1
