"""Recovery: at start and after a damaged file, make the outbox and its mirror agree. Not the detection of damage.

Invariant: afterwards every unreceipted fact of either file is in both, and every number that a lost file may have given out is a record, a
tombstone or receipted.
"""

from dataclasses import dataclass, replace

from edge.outbox.database import Database
from edge.outbox.lanes import CLOSED, Lanes, Stored, Stream
from edge.outbox.mirror import Mirror, MirrorFact, MirrorStream
from protocol import facts, frame
from protocol.facts import CHAIN_START
from protocol.frame import Frame, Kind
from protocol.reading import Stamp
from protocol.tombstone import Cause, Tombstone
from protocol.topics import Lane

__all__ = ["Recovered", "fill_mirror", "from_mirror"]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the mirror gave back."""

    facts: int = 0
    streams: int = 0


def from_mirror(database: Database, lanes: Lanes, mirror: Mirror, stamp: Stamp) -> Recovered:
    """Take back what only the mirror has; inside a transaction."""
    strangers = [one for one in mirror.streams() if one.id not in lanes.streams]
    for stranger in strangers:
        stream = Stream(stranger.id, stranger.lane, stranger.up_to + 1, stranger.up_to, stranger.up_to + 1, head=CHAIN_START, state=CLOSED)
        lanes.put_stream(stream)
        if stranger.lane == Lane.TELEMETRY:
            _bury(lanes, stream, stranger, stamp)
    restored = sum(_restore(database, lanes, fact) for fact in mirror.facts())
    return Recovered(restored, len(strangers))


def fill_mirror(lanes: Lanes, mirror: Mirror) -> None:
    """Give the mirror what only the outbox has, and take from it what the cloud has."""
    have = {(fact.stream, fact.seq) for fact in mirror.facts()}
    wanted = [
        MirrorFact(stored.stream, stored.seq, stored.data)
        for lane in (Lane.METERING, Lane.ALARM)
        for stored in lanes.scan(lane, 0, -1)
        if stored.kind == Kind.FACT and (stored.stream, stored.seq) not in have and stored.is_whole
    ]
    if wanted:
        mirror.put(wanted)
    for stream in lanes.streams.values():
        if stream.up_to and any(number == stream.id and seq <= stream.up_to for number, seq in have):
            mirror.receipted(stream.id, stream.up_to)
        mirror.reserve(stream.id, stream.lane, stream.next_seq)


def _bury(lanes: Lanes, stream: Stream, known: MirrorStream, stamp: Stamp) -> None:
    """One tombstone for every number that the lost file may have given out since the last receipt that the mirror heard of."""
    lanes.put_stream(replace(stream, next_seq=known.reserved_to + 1, contact_seq=known.reserved_to + 1))
    what = Tombstone(known.up_to + 1, known.reserved_to, Cause.CORRUPT, 0)
    if what.first <= what.last:
        lanes.add_tombstone(lanes.streams[stream.id], what, stamp)


def _restore(database: Database, lanes: Lanes, fact: MirrorFact) -> int:
    stream = lanes.streams.get(fact.stream)
    if stream is None or fact.seq <= stream.up_to:
        return 0
    stored = Stored(0, fact.stream, fact.seq, fact.seq, Kind.FACT, 0, fact.data)
    found = frame.decode(fact.data) if stored.is_whole else None
    if not isinstance(found, Frame):
        return 0
    if database.number(
        "select exists (select 1 from record where stream = ? and seq <= ? and last >= ?)", (fact.stream, fact.seq, fact.seq)
    ):
        return 0
    lanes.insert(stream.lane, stored)
    if fact.seq >= stream.next_seq:
        lanes.put_stream(replace(stream, next_seq=fact.seq + 1, contact_seq=stream.contact_seq, head=facts.fact_hash(found.body)))
    return 1
