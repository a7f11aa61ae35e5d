"""Files beside the database: the lock, the ballast, and damaged files that were set aside. Not the database's content.

Invariant: a damaged file is renamed, never written to again and never deleted while there is room for it.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from edge.outbox.model import OutboxLockedError

__all__ = ["ASIDE_MAX", "Ballast", "Lock", "drop_aside", "set_aside", "sync_folder"]

ASIDE_MAX = 2  # damaged files kept: the last two say whether the card or the power is to blame
PRIVATE = 0o600  # what patients' treatments leave behind is the owner's business only


class Lock:
    """Keeps a second process away for as long as this one lives; the kernel frees it when the process dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock or raise ``OutboxLockedError`` naming the holder."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise OutboxLockedError(f"{path.parent} is in use by process {holder}: stop it, or give this one its own data_dir") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Ballast:
    """Blocks of the partition that are ours to give up: on a full disk even a delete needs room for the log."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def is_there(self) -> bool:
        """Whether it can still be given up."""
        return self._path.exists()

    def ensure(self) -> bool:
        """Make it when the partition has twice the room; false when it is not there afterwards."""
        if self._size == 0 or self.is_there:
            return self.is_there
        space = os.statvfs(self._path.parent)
        if space.f_bavail * space.f_frsize < 2 * self._size:
            return False
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            try:
                os.posix_fallocate(fd, 0, self._size)
            finally:
                os.close(fd)
        except OSError:
            self._remove()  # half a ballast would be taken for a whole one
            return False
        return True

    def free(self) -> bool:
        """Give it up; false when it was not there."""
        was_there = self.is_there
        self._remove()
        return was_there

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a database and its log to ``*.damaged-N``; only the newest ``ASIDE_MAX`` are kept. Returns the new name."""
    older = _aside(path)
    for old in older[: max(0, len(older) - ASIDE_MAX + 1)]:
        _remove_pair(old)
    number = 1 + max((int(old.name.rpartition("-")[2]) for old in older), default=0)
    target = path.with_name(f"{path.name}.damaged-{number}")
    log = path.with_name(path.name + "-wal")
    if log.exists():
        log.rename(target.with_name(target.name + "-wal"))  # the log first: a database without its log is older, not wrong
    path.rename(target)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    sync_folder(path.parent)
    return target


def drop_aside(path: Path) -> int:
    """Delete all that was set aside for ``path`` to make room; returns how many."""
    found = _aside(path)
    for old in found:
        _remove_pair(old)
    return len(found)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _aside(path: Path) -> list[Path]:
    found = [one for one in path.parent.glob(path.name + ".damaged-*") if one.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda one: int(one.name.rpartition("-")[2]))


def _remove_pair(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
