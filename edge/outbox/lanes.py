"""Lanes: streams, their numbers, and the records that wait for a receipt. Not staging, and not the decision when to send.

Every function that changes something runs inside a transaction of ``Store``. Invariant: every number of a stream from ``up_to + 1`` to
``next_seq - 1`` lies in exactly one record, and the chain of a fact lane has no hole but the disk's.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import apsw

from edge.outbox.database import Database
from edge.outbox.mirror import Mirror
from edge.outbox.model import LaneStats, Record
from native import crc32c
from protocol import facts, frame, tombstone
from protocol.facts import CHAIN_START, Fact, FactRecord
from protocol.frame import FRAME_BYTES_MAX, FrameHead, Identity, Kind
from protocol.reading import Stamp
from protocol.refusal import Refusal
from protocol.tombstone import Cause, Tombstone
from protocol.topics import Lane
from protocol.units import DeviceId, GatewayId

__all__ = ["CLOSED", "FORKED", "LANE_IDS", "OPEN", "READ_BYTES_MAX", "Lanes", "Stored", "Stream"]

FRAME_HEAD_BYTES_MAX = 192  # fixed parts, three names of at most 32 and a session
READ_BYTES_MAX = 1 << 20  # bytes in one read: sixteen of the largest frames are four times that, and no answer needs it
OPEN, CLOSED, FORKED = "open", "closed", "forked"
LANE_BITS = 60
LANE_IDS = {Lane.METERING: 0, Lane.ALARM: 1 << LANE_BITS, Lane.TELEMETRY: 2 << LANE_BITS}
"""The first record id of each lane: a lane's records lie together, oldest first, without an index of their own."""

QUARANTINE_ROWS_MAX = 128  # 128 × 256 KiB is half the reserve; a disk with more bad rows needs replacing, not a longer list


@dataclass(frozen=True, slots=True)
class Stream:
    """One numbering of one lane; see the schema for each field."""

    id: int
    lane: Lane
    next_seq: int
    up_to: int
    contact_seq: int
    head: bytes
    state: str = OPEN

    @property
    def crc(self) -> int:
        """Checksum of the row."""
        text = f"{self.id} {self.lane} {self.next_seq} {self.up_to} {self.contact_seq} {self.head.hex()} {self.state}"
        return int(crc32c.crc32c(text.encode()))


@dataclass(frozen=True, slots=True)
class Stored:
    """A record's row."""

    id: int
    stream: int
    seq: int
    last: int
    kind: int
    samples: int
    data: bytes

    @property
    def is_whole(self) -> bool:
        """Whether the frame's checksum is right and the frame is the one that belongs here."""
        top = frame.peek(self.data)
        return not isinstance(top, Refusal) and (top.stream, top.seq, top.kind) == (self.stream, self.seq, self.kind)


class Lanes:
    """The stream and record tables and what is known of them in memory."""

    def __init__(self, database: Database, mirror: Mirror, *, gateway: GatewayId, rng: random.Random) -> None:
        self._database = database
        self._mirror = mirror
        self._gateway = gateway
        self._rng = rng
        self.streams: dict[int, Stream] = {}
        self.quarantined = 0
        self._open: dict[Lane, int] = {}
        self._next_id = dict(LANE_IDS)
        self._counts: dict[Lane, int] = dict.fromkeys(Lane, 0)

    def reload(self) -> None:
        """Take everything from the file again; ids that were handed out in this process are not handed out twice."""
        self.streams = {}
        for *fields, crc in self._database.run("select id, lane, next_seq, up_to, contact_seq, head, state, crc from stream"):
            stream = Stream(fields[0], Lane(fields[1]), *fields[2:])
            if stream.crc != crc:
                raise apsw.CorruptError(f"stream {stream.id} fails its checksum")
            self.streams[stream.id] = stream
        self._open = {stream.lane: stream.id for stream in self.streams.values() if stream.state == OPEN}
        self.quarantined = self._database.number("select count(*) from quarantine")
        for lane, base in LANE_IDS.items():
            end = base + (1 << LANE_BITS)
            newest = self._database.number("select max(id) from record where id >= ? and id < ?", (base, end))
            self._next_id[lane] = max(self._next_id[lane], newest + 1)
        self._counts = dict.fromkeys(Lane, 0)
        for stream in self.streams.values():
            # By stream, because that reads only the index: the table itself is as large as the backlog.
            self._counts[stream.lane] += self._database.number("select count(*) from record where stream = ?", (stream.id,))

    def ensure_streams(self) -> None:
        """Give every lane an open stream."""
        for lane in Lane:
            if lane not in self._open:
                self.add_stream(lane)

    def current(self, lane: Lane) -> Stream:
        """The open stream of a lane."""
        return self.streams[self._open[lane]]

    def add_stream(self, lane: Lane, *, closed_as: str = CLOSED) -> Stream:
        """Open a new stream; the one that was open is closed."""
        before = self._open.get(lane)
        if before is not None:
            self.put_stream(replace(self.streams[before], state=closed_as))
        number = self._rng.getrandbits(63)
        while number == 0 or number in self.streams:
            number = self._rng.getrandbits(63)
        stream = Stream(number, lane, next_seq=1, up_to=0, contact_seq=1, head=CHAIN_START)
        self.put_stream(stream)
        return stream

    def put_stream(self, stream: Stream) -> None:
        """Write a stream's row."""
        self._database.run(
            "insert into stream (id, lane, next_seq, up_to, contact_seq, head, state, crc) values (?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict (id) do update set next_seq = excluded.next_seq, up_to = excluded.up_to, contact_seq = excluded.contact_seq,"
            " head = excluded.head, state = excluded.state, crc = excluded.crc",
            (stream.id, stream.lane, stream.next_seq, stream.up_to, stream.contact_seq, stream.head, stream.state, stream.crc),
        )
        self.streams[stream.id] = stream
        if stream.state == OPEN:
            self._open[stream.lane] = stream.id

    def add_block(self, head: FrameHead, body: bytes, samples: int, *, frame_bytes_max: int = FRAME_BYTES_MAX) -> Identity | None:
        """Number and store a telemetry block (the identity in ``head`` is replaced); ``None`` when its frame would be over the limit."""
        stream = self.current(Lane.TELEMETRY)
        identity = Identity(self._gateway, stream.id, stream.next_seq)
        if len(body) + FRAME_HEAD_BYTES_MAX > frame_bytes_max:
            return None
        data = frame.encode(replace(head, identity=identity), body)
        self._mirror.reserve(stream.id, stream.lane, stream.next_seq)
        self.put_stream(replace(stream, next_seq=stream.next_seq + 1))
        self.insert(Lane.TELEMETRY, Stored(0, stream.id, identity.seq, identity.seq, Kind.BLOCK, samples, data))
        return identity

    def add_fact(self, lane: Lane, fact: Fact, stamp: Stamp) -> Stored:
        """Number, chain and store a fact."""
        stream = self.current(lane)
        body = facts.encode(FactRecord(fact, stream.head))
        device = getattr(fact, "device", None)
        session = getattr(fact, "session", b"")
        head = FrameHead(
            identity=Identity(self._gateway, stream.id, stream.next_seq),
            kind=Kind.FACT,
            stamp=stamp,
            device=DeviceId(device) if device else None,
            session=session if len(session) == frame.SESSION_BYTES else b"",
        )
        stored = Stored(0, stream.id, stream.next_seq, stream.next_seq, Kind.FACT, 0, frame.encode(head, body))
        self._mirror.reserve(stream.id, lane, stream.next_seq)
        self.put_stream(replace(stream, next_seq=stream.next_seq + 1, head=facts.fact_hash(body)))
        return self.insert(lane, stored)

    def add_tombstone(self, stream: Stream, what: Tombstone, stamp: Stamp) -> Stored:
        """Store a tombstone in place of numbers that were given out; whatever record has its first number is replaced."""
        identity = Identity(self._gateway, stream.id, what.first)
        data = frame.encode(FrameHead(identity, Kind.TOMBSTONE, stamp), tombstone.encode(what))
        self.remove_range(stream, what.first, what.last)
        return self.insert(stream.lane, Stored(0, stream.id, what.first, what.last, Kind.TOMBSTONE, what.rows, data))

    def insert(self, lane: Lane, stored: Stored) -> Stored:
        """Store a record as the newest of its lane."""
        stored = replace(stored, id=self._next_id[lane])
        self._database.run(
            "insert into record (id, stream, seq, last, kind, samples, data) values (?, ?, ?, ?, ?, ?, ?)",
            (stored.id, stored.stream, stored.seq, stored.last, int(stored.kind), stored.samples, stored.data),
        )
        self._next_id[lane] += 1
        self._counts[lane] += 1
        return stored

    def remove_range(self, stream: Stream, first: int, last: int) -> int:
        """Remove the records whose numbers all lie in a closed range; returns how many."""
        self._database.run("delete from record where stream = ? and seq >= ? and last <= ?", (stream.id, first, last))
        gone = self._database.changes
        self._counts[stream.lane] -= gone
        return gone

    def scan(self, lane: Lane, after: int, limit: int) -> Iterator[Stored]:
        """Rows of a lane above an id, oldest first, as they lie there."""
        base = LANE_IDS[lane]
        query = "select id, stream, seq, last, kind, samples, data from record where id > ? and id < ? order by id limit ?"
        for row in self._database.run(query, (max(after, base - 1), base + (1 << LANE_BITS), limit)):
            yield Stored(*row)

    def scan_all(self, after: int, limit: int) -> list[Stored]:
        """Rows of all lanes above an id."""
        query = "select id, stream, seq, last, kind, samples, data from record where id > ? order by id limit ?"
        return [Stored(*row) for row in self._database.run(query, (after, limit))]

    def read(self, lane: Lane, after: int, limit: int) -> tuple[list[Record], list[Stored]]:
        """Whole records above an id, and the rows in between that are not whole."""
        records: list[Record] = []
        bad: list[Stored] = []
        size = 0
        for stored in self.scan(lane, after, limit):
            if not stored.is_whole:
                bad.append(stored)
                continue
            identity = Identity(self._gateway, stored.stream, stored.seq)
            records.append(Record(stored.id, lane, identity, stored.last, Kind(stored.kind), stored.data))
            size += len(stored.data)
            if size >= READ_BYTES_MAX:
                break
        return records, bad

    def repair(self, bad: Stored, stamp: Stamp) -> bool:
        """Restore a damaged row from the mirror (true), or set it aside and put a tombstone in its place (false)."""
        stream = self.streams[bad.stream]
        copy = self._mirror.fact(bad.stream, bad.seq)  # whatever the row says that it is: that may be what the disk changed
        if copy is not None and replace(bad, kind=Kind.FACT, data=copy).is_whole:
            self._database.run("update record set kind = ?, last = seq, samples = 0, data = ? where id = ?", (int(Kind.FACT), copy, bad.id))
            return True
        self.set_aside(bad.stream, bad.seq, "corrupt", wall_ms=stamp.wall_ms, data=bad.data)
        self.add_tombstone(stream, Tombstone(bad.seq, max(bad.seq, bad.last), Cause.CORRUPT, max(0, bad.samples)), stamp)
        return False

    def set_aside(self, stream: int, seq: int, why: str, *, wall_ms: int, data: bytes) -> None:
        """Keep a row for a person; the oldest goes when there are too many."""
        self._database.run(
            "insert into quarantine (stream, seq, why, wall_ms, data) values (?, ?, ?, ?, ?)", (stream, seq, why, wall_ms, data)
        )
        newest = self._database.connection.last_insert_rowid()
        self._database.run("delete from quarantine where id <= ?", (newest - QUARANTINE_ROWS_MAX,))
        self.quarantined = min(self.quarantined + 1, QUARANTINE_ROWS_MAX)

    def receipted(self, stream_id: int, up_to: int) -> int:
        """Remove what the cloud has and remember it; returns how many records went."""
        stream = self.streams[stream_id]
        if stream.state == FORKED:
            up_to = min(up_to, stream.contact_seq - 1)  # what came later has the same numbers in two lives
        gone = self.remove_range(stream, 0, up_to)
        contact_seq = stream.contact_seq if stream.state == FORKED else stream.next_seq
        done = replace(stream, up_to=max(stream.up_to, up_to), contact_seq=contact_seq)
        if done != stream:
            self.put_stream(done)
        return gone

    def hash_at(self, stream: Stream, seq: int) -> bytes | None:
        """The hash of a fact that is still here, or of the newest; ``None`` when it is not known (any more)."""
        for kind, data in self._database.run("select kind, data from record where stream = ? and seq = ?", (stream.id, seq)):
            decoded = frame.decode(data) if kind == Kind.FACT else None
            return facts.fact_hash(decoded.body) if isinstance(decoded, frame.Frame) else None
        return stream.head if seq == stream.next_seq - 1 else None

    def holds(self, stored: Stored) -> bool:
        """Tell whether a record is in the file with these bytes: how an unknown commit is resolved."""
        query = "select exists (select 1 from record where stream = ? and seq = ? and data = ?)"
        return bool(self._database.number(query, (stored.stream, stored.seq, stored.data)))

    def waits(self, stream: Stream) -> bool:
        """Tell whether any record of a stream is left."""
        return bool(self._database.number("select exists (select 1 from record where stream = ?)", (stream.id,)))

    def forget(self, stream: Stream) -> None:
        """Remove a closed stream of which nothing is left."""
        self._database.run("delete from stream where id = ? and state = ?", (stream.id, CLOSED))
        self.streams.pop(stream.id, None)

    def stats(self) -> dict[Lane, LaneStats]:
        """What each lane looks like."""
        found = {}
        for lane, stream_id in self._open.items():
            one = self.streams[stream_id]
            found[lane] = LaneStats(one.id, one.next_seq, one.up_to, self._counts[lane], self._next_id[lane] - 1)
        return found
