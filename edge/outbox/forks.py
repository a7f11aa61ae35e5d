"""Forks: the cloud knows numbers of a stream that this store never gave out: this gateway has had another life (a restored card, a clone).

From then on new numbers come from a new stream, and what the cloud cannot have seen moves there. Invariant: nothing is deleted because of a
fork; a record that both lives had may reach the cloud twice, under two identities, and facts carry their own ids for that.
"""

from dataclasses import replace

from edge.outbox.database import Database
from edge.outbox.lanes import CLOSED, FORKED, OPEN, Lanes, Stored, Stream
from protocol import facts, frame
from protocol.frame import Frame, Kind
from protocol.reading import Stamp
from protocol.receipt import Receipt
from protocol.topics import Lane

__all__ = ["FORK_BATCH", "is_fork", "move_some", "split"]

FORK_BATCH = 64  # blocks moved in one transaction; facts move at once, because their order is money's order


def is_fork(lanes: Lanes, stream: Stream, receipt: Receipt) -> bool:
    """Tell whether a receipt speaks of records that this store did not make."""
    if stream.state != OPEN or receipt.up_to <= stream.up_to:
        return False
    if receipt.up_to >= stream.next_seq:
        return True
    ours = lanes.hash_at(stream, receipt.up_to) if receipt.head and stream.lane != Lane.TELEMETRY else None
    return ours is not None and ours.hex() != receipt.head


def split(lanes: Lanes, stream: Stream) -> Stream:
    """Open a new stream beside a forked one; inside a transaction."""
    return lanes.add_stream(stream.lane, closed_as=FORKED)


def move_some(database: Database, lanes: Lanes, stamp: Stamp) -> list[Stored]:
    """Move records of forked streams to the open stream of their lane, in order; returns what was stored, nothing when all is done."""
    moved: list[Stored] = []
    for stream in [one for one in lanes.streams.values() if one.state == FORKED]:
        limit = FORK_BATCH if stream.lane == Lane.TELEMETRY else -1
        query = "select id, stream, seq, last, kind, samples, data from record where stream = ? and seq >= ? order by seq limit ?"
        rows = [Stored(*row) for row in database.run(query, (stream.id, stream.contact_seq, limit))]
        for old in rows:
            lanes.remove_range(stream, old.seq, old.last)
            new = _move(lanes, stream, old, stamp)
            if new is not None:
                moved.append(new)
        if len(rows) != limit:
            lanes.put_stream(replace(stream, state=CLOSED, next_seq=stream.contact_seq))
    return moved


def _move(lanes: Lanes, stream: Stream, old: Stored, stamp: Stamp) -> Stored | None:
    """Store a record under the open stream; a tombstone stays behind, because its numbers are the other life's."""
    found = frame.decode(old.data) if old.is_whole else None
    if not isinstance(found, Frame):
        lanes.set_aside(old.stream, old.seq, "corrupt", wall_ms=stamp.wall_ms, data=old.data)
        return None
    if old.kind == Kind.TOMBSTONE:
        return None
    if old.kind == Kind.FACT:
        record = facts.decode(found.body)
        assert isinstance(record, facts.FactRecord), "we wrote it"
        return lanes.add_fact(stream.lane, record.fact, found.head.stamp)
    identity = lanes.add_block(found.head, found.body, old.samples)
    assert identity is not None, "it was a frame before"
    return replace(old, stream=identity.stream, seq=identity.seq)
