"""Eviction: when the store is at its bound the oldest telemetry blocks go, and a tombstone says so. Facts never go.

Invariant: a tombstone grows only while it was neither sent nor found on disk at start: bytes that may have left keep their meaning.
"""

from dataclasses import dataclass

from edge.outbox.database import Database
from edge.outbox.lanes import LANE_IDS, Lanes
from protocol.frame import Kind
from protocol.reading import Stamp
from protocol.tombstone import Cause, Tombstone
from protocol.topics import Lane

__all__ = ["EVICT_BATCH", "Evicted", "Eviction"]

EVICT_BATCH = 64  # blocks in one transaction: its log stays under the ballast even for the largest blocks


@dataclass(frozen=True, slots=True)
class Evicted:
    """How much went."""

    blocks: int = 0
    rows: int = 0


class Eviction:
    """Evicts, and remembers which tombstones may still grow."""

    def __init__(self, database: Database, lanes: Lanes) -> None:
        self._database = database
        self._lanes = lanes
        self._growing: dict[int, Tombstone] = {}

    def freeze(self, stream: int | None = None) -> None:
        """Let the tombstone of a stream (of all streams) grow no more."""
        if stream is None:
            self._growing.clear()
        else:
            self._growing.pop(stream, None)

    def evict(self, stamp: Stamp, bytes_wanted: int) -> Evicted:
        """Replace the oldest blocks by tombstones, at most a batch; inside a transaction."""
        base = LANE_IDS[Lane.TELEMETRY]
        query = "select stream, seq, samples, length(data) from record where id >= ? and kind = ? order by id limit ?"
        oldest: list[tuple[int, int, int]] = []
        for stream, seq, samples, size in self._database.run(query, (base, int(Kind.BLOCK), EVICT_BATCH)):
            oldest.append((stream, seq, samples))
            bytes_wanted -= size
            if bytes_wanted <= 0:
                break
        ranges: list[tuple[int, int, int, int]] = []
        for stream, seq, samples in oldest:
            if ranges and ranges[-1][0] == stream and ranges[-1][2] + 1 == seq:
                _, first, _, before = ranges[-1]
                ranges[-1] = (stream, first, seq, before + samples)
            else:
                ranges.append((stream, seq, seq, samples))
        for one in ranges:
            self._bury(*one, stamp=stamp)
        return Evicted(len(oldest), sum(one[3] for one in ranges))

    def _bury(self, stream_id: int, first: int, last: int, rows: int, *, stamp: Stamp) -> None:
        grown = self._growing.get(stream_id)
        if grown is not None and grown.last + 1 == first:
            first, rows = grown.first, rows + grown.rows
        what = Tombstone(first, last, Cause.EVICTED, min(rows, 2**32 - 1))  # the wire has 32 bits: 17 years of 8 coolers
        self._lanes.add_tombstone(self._lanes.streams[stream_id], what, stamp)
        self._growing[stream_id] = what
