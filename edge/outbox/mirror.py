"""Mirror: every unreceipted fact once more, in a second small file. Not read in normal work; it is what survives a damaged outbox.

Invariant: a fact is answered as stored only after both files have it, unless the second file itself fails, and that is counted. A number of
a stream is given out only below what the mirror has reserved, so a lost outbox's numbers can be accounted for.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw

from edge.outbox.database import DAMAGE, PAGE_BYTES, Database
from edge.outbox.files import set_aside
from edge.outbox.model import Counts, OutboxError
from protocol.topics import Lane

__all__ = ["RESERVE_STEP", "Mirror", "MirrorFact", "MirrorStream"]

RESERVE_STEP = 4096  # numbers reserved at once: one small commit in days
BYTES_MAX = 64 << 20  # facts of years; the outbox's own reserve is as large

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MirrorStream:
    """A stream as the mirror knows it."""

    id: int
    lane: Lane
    up_to: int
    reserved_to: int


@dataclass(frozen=True, slots=True)
class MirrorFact:
    """A fact's frame and where it belongs."""

    stream: int
    seq: int
    data: bytes


class Mirror:
    """The second file. No call raises for a failing disk: the outbox goes on, the failure is counted, ``is_ready`` is false."""

    def __init__(self, path: Path, counts: Counts, *, vfs: str | None = None) -> None:
        self._path = path
        self._counts = counts
        self._database = Database(path, kind="mirror", pages_max=BYTES_MAX // PAGE_BYTES, vfs=vfs)
        self._reserved: dict[int, int] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the file is open."""
        return self._database.is_open

    def open(self) -> None:
        """Open it; a damaged one is set aside and made anew (the outbox fills it again)."""
        try:
            self._open()
        except DAMAGE:
            self._database.close()
            with suppress(OSError):
                set_aside(self._path)
                self._counts.files_quarantined += 1
            self._open_or_fail()
        except (apsw.Error, OutboxError):
            self._fail()

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def streams(self) -> list[MirrorStream]:
        """All streams that it knows."""

        def read() -> list[MirrorStream]:
            rows = self._database.run("select id, lane, up_to, reserved_to from stream")
            return [MirrorStream(stream, Lane(lane), up_to, reserved) for stream, lane, up_to, reserved in rows]

        return self._try(read, [])

    def facts(self) -> list[MirrorFact]:
        """All facts, in order."""

        def read() -> list[MirrorFact]:
            return [MirrorFact(*row) for row in self._database.run("select stream, seq, data from fact order by stream, seq")]

        return self._try(read, [])

    def fact(self, stream: int, seq: int) -> bytes | None:
        """The frame of one fact."""

        def read() -> bytes | None:
            row = next(iter(self._database.run("select data from fact where stream = ? and seq = ?", (stream, seq))), None)
            return bytes(row[0]) if row else None

        return self._try(read, None)

    def put(self, facts: Sequence[MirrorFact]) -> None:
        """Store facts; again is harmless."""

        def write() -> None:
            with self._database.transaction():
                for fact in facts:
                    self._database.run(
                        "insert or replace into fact (stream, seq, data) values (?, ?, ?)", (fact.stream, fact.seq, fact.data)
                    )

        self._try(write, None)

    def reserve(self, stream: int, lane: Lane, seq: int) -> None:
        """Make sure that ``seq`` is below what is reserved."""
        if seq <= self._reserved.get(stream, 0):
            return
        reserved = seq + RESERVE_STEP

        def write() -> None:
            with self._database.transaction():
                self._database.run(
                    "insert into stream (id, lane, up_to, reserved_to) values (?, ?, 0, ?)"
                    " on conflict (id) do update set reserved_to = excluded.reserved_to",
                    (stream, lane, reserved),
                )
            self._reserved[stream] = reserved

        self._try(write, None)

    def receipted(self, stream: int, up_to: int) -> None:
        """Forget the facts of a stream up to a number that the cloud has."""

        def write() -> None:
            with self._database.transaction():
                self._database.run("update stream set up_to = max(up_to, ?) where id = ?", (up_to, stream))
                self._database.run("delete from fact where stream = ? and seq <= ?", (stream, up_to))

        self._try(write, None)

    def moved(self, stream: int, from_seq: int) -> None:
        """Forget the facts of a stream from a number on: they have other numbers now."""

        def write() -> None:
            self._database.run("delete from fact where stream = ? and seq >= ?", (stream, from_seq))

        self._try(write, None)

    def forget(self, stream: int) -> None:
        """Forget a stream that is closed and all receipted."""

        def write() -> None:
            with self._database.transaction():
                self._database.run("delete from fact where stream = ?", (stream,))
                self._database.run("delete from stream where id = ?", (stream,))
            self._reserved.pop(stream, None)

        self._try(write, None)

    def _try(self, call: Callable[[], T], otherwise: T) -> T:
        """Run a call; a failing disk is counted and closes the file until ``open`` is called again."""
        if not self.is_ready:
            return otherwise
        try:
            return call()
        except apsw.Error:
            self._fail()
            return otherwise

    def _open_or_fail(self) -> None:
        try:
            self._open()
        except (apsw.Error, OutboxError):
            self._fail()

    def _open(self) -> None:
        self._database.open()
        self._database.run("insert or ignore into meta (key, value) values ('readable_by', '1')")
        answer = str(next(iter(self._database.run("pragma quick_check(1)")))[0])
        if answer != "ok":
            raise apsw.CorruptError(answer)
        self._reserved = {stream.id: stream.reserved_to for stream in self.streams()}

    def _fail(self) -> None:
        self._counts.mirror_faults += 1
        self._database.close()
