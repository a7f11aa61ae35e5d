"""Dedupe at the source: was this sample here before? Not the cloud's dedupe, which cannot see a redelivery by a clinic's broker.

A device that numbers its samples is remembered exactly, as runs of numbers; a device that only dates them, by digests of the newest.
Invariant: what is remembered changes only in the transaction that stores the sample; beyond the bounds a duplicate is kept, no sample lost.
"""

import hashlib
import struct
from bisect import bisect_right

from edge.outbox.database import Database, to_signed
from native import crc32c
from protocol.reading import Reading

__all__ = ["BOOTS_MAX", "DIGESTS_MAX", "RUNS_MAX", "Dedupe", "add_number", "pack_runs", "unpack_runs"]

RUNS_MAX = 64  # holes in the numbers of one boot of one device that are remembered
BOOTS_MAX = 8  # boots of one device that are remembered; a redelivery is seconds old, a log download one boot
DIGESTS_MAX = 65_536  # two hours of eight devices at 1 Hz

Runs = list[tuple[int, int]]
_RUN = struct.Struct("<qq")


def add_number(runs: Runs, number: int) -> bool:
    """Add a number to sorted closed runs, in place; false when it was in them."""
    at = bisect_right(runs, number, key=lambda run: run[0])
    before = runs[at - 1] if at else None
    after = runs[at] if at < len(runs) else None
    if before is not None and number <= before[1]:
        return False
    joins_before = before is not None and before[1] + 1 == number
    joins_after = after is not None and number + 1 == after[0]
    first = before[0] if before is not None and joins_before else number
    last = after[1] if after is not None and joins_after else number
    runs[at - joins_before : at + joins_after] = [(first, last)]
    return True


def pack_runs(runs: Runs) -> bytes:
    """Return runs as stored, after their checksum."""
    data = b"".join(_RUN.pack(*run) for run in runs)
    return crc32c.crc32c(data).to_bytes(4, "little") + data


def unpack_runs(data: bytes) -> Runs:
    """Return stored runs; none when the disk changed them, since a duplicate is better than a lost sample."""
    if len(data) % _RUN.size != 4 or crc32c.crc32c(data[4:]) != int.from_bytes(data[:4], "little"):
        return []
    return [(first, last) for first, last in _RUN.iter_unpack(data[4:])]


class Dedupe:
    """What was seen, in the store's own tables."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._runs: dict[tuple[str, int], Runs] = {}
        self._dirty: set[tuple[str, int]] = set()
        self.forgotten = 0

    def reload(self) -> None:
        """Forget the copy in memory: the transaction that changed it did not happen, or the file is another one."""
        self._runs.clear()
        self._dirty.clear()

    def is_new(self, reading: Reading) -> bool:
        """Tell whether the sample is new and remember it; inside the append transaction."""
        if reading.counter is not None:
            key = (reading.device, to_signed(reading.source_boot))
            runs = self._load(key)
            if not add_number(runs, reading.counter):
                return False
            self._dirty.add(key)
            return True
        if reading.ts_ms == reading.stamp.wall_ms:
            return True  # dated by us at arrival: two equal samples of one millisecond are two samples
        return self._is_new_digest(reading)

    def flush(self, used: int) -> None:
        """Write what ``is_new`` remembered; ``used`` grows with every call that appends."""
        for key in self._dirty:
            runs = self._runs[key]
            if len(runs) > RUNS_MAX:
                self.forgotten += len(runs) - RUNS_MAX
                del runs[: len(runs) - RUNS_MAX]  # the oldest hole: late samples in it are kept twice at worst
            self._database.run(
                "insert into seen_counter (device, source_boot, used, runs) values (?, ?, ?, ?)"
                " on conflict (device, source_boot) do update set used = excluded.used, runs = excluded.runs",
                (*key, used, pack_runs(runs)),
            )
        self._dirty.clear()

    def _load(self, key: tuple[str, int]) -> Runs:
        if key not in self._runs:
            row = next(iter(self._database.run("select runs from seen_counter where device = ? and source_boot = ?", key)), None)
            self._runs[key] = unpack_runs(row[0]) if row else []
            if row is None:
                self._forget_boots(key[0])
        return self._runs[key]

    def _forget_boots(self, device: str) -> None:
        """Leave room for one more boot of a device."""
        for (boot,) in list(
            self._database.run(
                "select source_boot from seen_counter where device = ? order by used desc limit -1 offset ?", (device, BOOTS_MAX - 1)
            )
        ):
            self._database.run("delete from seen_counter where device = ? and source_boot = ?", (device, boot))
            self._runs.pop((device, boot), None)
            self._dirty.discard((device, boot))
            self.forgotten += 1

    def _is_new_digest(self, reading: Reading) -> bool:
        text = f"{reading.device} {reading.ts_ms} {reading.source_boot} {reading.codes}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        self._database.run("insert or ignore into seen_digest (digest) values (?)", (digest,))
        if not self._database.changes:
            return False
        newest = self._database.connection.last_insert_rowid()
        self._database.run("delete from seen_digest where id <= ?", (newest - DIGESTS_MAX,))
        return True
