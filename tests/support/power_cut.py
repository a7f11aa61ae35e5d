"""A power cut in memory: an SQLite VFS that keeps what was not synced volatile and loses a random half of its sectors at the N-th call.

SQLite's own test method (https://sqlite.org/testing.html, crash testing); cuts of real file systems agreed with it on FULL and NORMAL.
"""

# ruff: noqa: N802, ARG002, FBT001 - the names and arguments are those of apsw's interface

import os
import random
from contextlib import suppress

import apsw

SECTOR_BYTES = 512  # what a disk writes at once; anything larger can tear


class PowerCut:
    """The state of one machine: ``at`` counts down with each write and sync, then everything fails until ``land``."""

    def __init__(self, seed: int, at: int) -> None:
        self.rng = random.Random(seed)
        self.at = at
        self.calls = 0
        self.is_dead = False
        self.volatile: dict[str, list[tuple[int, bytes]]] = {}
        self.forget_syncs = False
        self.syncs = 0
        self.fail_sync = 0
        """The number of a sync that does its work and reports a failure all the same, and so does the next: that of closing."""

    def tick(self) -> None:
        if self.is_dead:
            raise apsw.IOError("no power")
        self.calls += 1
        if self.calls >= self.at:
            self.is_dead = True
            raise apsw.IOError("power cut")

    def land(self) -> None:
        """What the disk holds after the cut: of every write that was not synced, each sector with probability one half."""
        self.is_dead = True
        for name, writes in self.volatile.items():
            if not writes:
                continue
            fd = os.open(name, os.O_RDWR | os.O_CREAT)
            for offset, data in writes:
                for start in range(0, len(data), SECTOR_BYTES):
                    if self.rng.random() < 0.5:
                        os.pwrite(fd, data[start : start + SECTOR_BYTES], offset + start)
            os.close(fd)
        self.volatile.clear()


class _File(apsw.VFSFile):
    def __init__(self, machine: PowerCut, name: apsw.URIFilename | str | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        text = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._machine = machine
        self._writes = machine.volatile.setdefault(text, [])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._machine.tick()
        self._writes.append((offset, bytes(data)))

    def xRead(self, amount: int, offset: int) -> bytes:
        try:
            found = bytearray(super().xRead(amount, offset))
        except apsw.IOError:
            found = bytearray()
        found.extend(bytes(amount - len(found)))
        for start, data in self._writes:
            first, last = max(start, offset), min(start + len(data), offset + amount)
            if first < last:
                found[first - offset : last - offset] = data[first - start : last - start]
        return bytes(found)

    def xFileSize(self) -> int:
        return max([super().xFileSize(), *(offset + len(data) for offset, data in self._writes)])

    def xTruncate(self, size: int) -> None:
        self._machine.tick()
        self._flush()
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self._machine.tick()
        if not self._machine.forget_syncs:
            self._flush()
        self._machine.syncs += 1
        if self._machine.syncs - self._machine.fail_sync in {0, 1} and self._machine.fail_sync:
            raise apsw.IOError("the disk says no")

    def _flush(self) -> None:
        for offset, data in self._writes:
            super().xWrite(data, offset)
        self._writes.clear()


class PowerCutVfs(apsw.VFS):
    """Register one, set ``machine`` before each run, ``unregister`` at the end."""

    NAME = "icecap-power-cut"

    def __init__(self) -> None:
        super().__init__(self.NAME, "")
        self.machine = PowerCut(0, 1 << 60)

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _File:
        return _File(self.machine, name, flags)

    def xDelete(self, filename: str, sync_folder: bool) -> None:
        if self.machine.is_dead:
            raise apsw.IOError("no power")
        self.machine.volatile.pop(filename, None)
        with suppress(apsw.IOErrorDeleteNoEntError if hasattr(apsw, "IOErrorDeleteNoEntError") else apsw.IOError):
            super().xDelete(filename, sync_folder)
