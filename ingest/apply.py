"""Apply: a batch of messages becomes rows, in the caller's transaction. Not the broker, not the commit and not what the rows mean.

    lock the arrival counter → registry → read → streams → intake → write → receipts

Invariant: applying the same messages again, in any batches, changes nothing but counters of duplicates; whatever was acked is either in
a table of evidence, in ``parked`` or in ``dead_letter``.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, tuple_, update

from ingest import deadletters, effects
from ingest.arrivals import Arrival, Incoming, Record, Refused, TombstoneArrival, Unreadable, gateway_in, read
from ingest.billing.hook import after_facts
from ingest.intake import FACT_LANES, Happening, Intake, Outcome, Stream, StreamKey
from ingest.positions import Position
from ingest.profiles import Profiles
from ingest.receipts import Addressed, addressed
from ingest.schema import ARRIVAL, block, conflict, counter, fact, gap, parked, stream, tombstone
from ingest.sql import insert_new, upsert
from protocol import frame, topics
from protocol.frame import Identity
from protocol.receipt import Gap
from protocol.refusal import Reason, Refusal
from protocol.topics import Lane
from protocol.units import GatewayId
from provisioning import registry
from provisioning.registry import Gateway

__all__ = ["Applied", "Reader", "apply_batch", "read_nothing"]

Reader = Callable[[Incoming, Mapping[str, Gateway]], Arrival]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did. ``receipts`` may be sent once the transaction is committed, and not before."""

    outcomes: tuple[Outcome, ...]
    receipts: tuple[Addressed, ...]
    refusals: Counter[Reason]
    happenings: tuple[Happening, ...]


def apply_batch(connection: Connection, messages: Sequence[Incoming], *, profiles: Profiles, now_ms: int, reader: Reader = read) -> Applied:
    """Read the messages and write all that they change. Raises only what the database raises, and bugs."""
    # First of all the lock: it makes the order of arrival numbers the order of commits, also between processes.
    locked = select(counter.c.value).where(counter.c.name == ARRIVAL).with_for_update()
    arrival = int(connection.execute(locked).scalar_one())
    gateways = registry.find_gateways(connection, {gateway_in(message.topic) for message in messages} - {""})
    arrivals = [reader(message, gateways) for message in messages]
    intake = Intake(profiles, arrival + 1, _load_streams(connection, messages, arrivals))
    outcomes = tuple(intake.enter(message, one) for message, one in zip(messages, arrivals, strict=True))
    write(connection, intake, old_arrival=arrival)
    after_facts(connection, [*intake.facts, *intake.conflicts], posted_ms=now_ms)
    return Applied(
        outcomes,
        tuple(addressed(key, one, now_ms=now_ms) for key, one in intake.streams.items() if one.touched),
        Counter(one.refusal.reason for one in intake.dead),
        tuple(intake.happenings.values()),
    )


def write(connection: Connection, intake: Intake, *, old_arrival: int) -> None:
    """Execute what an intake asks for."""
    for table, rows in ((block, intake.blocks), (fact, intake.facts)):
        if rows:
            connection.execute(insert(table), rows)
    for table, rows in ((tombstone, intake.tombstones), (conflict, intake.conflicts), (parked, intake.parked)):
        if rows:
            connection.execute(insert_new(connection, table), rows)
    _write_streams(connection, {key: one for key, one in intake.streams.items() if one.touched})
    deadletters.write(connection, intake.dead)
    effects.write(connection, intake)
    if intake.next_arrival != old_arrival + 1:
        connection.execute(update(counter).where(counter.c.name == ARRIVAL).values(value=intake.next_arrival - 1))


def read_nothing(message: Incoming, gateways: Mapping[str, Gateway]) -> Arrival:
    """A ``Reader`` for messages whose reading raised: parks what has a number and refuses the rest, without looking into it again."""
    topic, gateway = topics.parse(message.topic), gateway_in(message.topic)
    refusal = Refusal(Reason.INTERNAL, "reading it raised an exception")
    top = frame.peek(message.payload)
    lanes = {one.leaf: one for one in Lane}
    if topic is None or topic.leaf not in lanes or isinstance(top, Refusal) or top.seq < 1 or gateway not in gateways:
        return Refused(gateway, refusal)
    identity = Identity(GatewayId(gateway), top.stream, top.seq)
    return Unreadable(identity, lanes[topic.leaf], effects.sha256(message.payload), top.version, refusal)


def _load_streams(connection: Connection, messages: Sequence[Incoming], arrivals: Sequence[Arrival]) -> dict[StreamKey, Stream]:
    """The streams that the batch touches as they stand, with the hashes that duplicates are compared with."""
    records: dict[StreamKey, list[Record]] = {}
    first_ms: dict[StreamKey, int] = {}
    for message, one in zip(messages, arrivals, strict=True):
        if isinstance(one, Record):
            identity = one.identity if isinstance(one, Unreadable) else one.head.identity
            records.setdefault((identity.gateway, identity.stream), []).append(one)
            first_ms.setdefault((identity.gateway, identity.stream), message.received_ms)
    if not records:
        return {}
    found = {key: Stream(many[0].lane, Position(), first_ms[key], 0) for key, many in records.items()}
    wanted = list(records)
    for row in connection.execute(select(stream).where(tuple_(stream.c.gateway, stream.c.stream).in_(wanted))):
        position = Position(row.top)
        found[row.gateway, row.stream] = Stream(
            Lane(row.lane), position, row.first_ms, row.last_ms, row.records, row.duplicates, row.head, stored_up_to=row.up_to
        )
    gaps = select(gap).where(tuple_(gap.c.gateway, gap.c.stream).in_(wanted)).order_by(gap.c.gateway, gap.c.stream, gap.c.first)
    for row in connection.execute(gaps):
        found[row.gateway, row.stream].position.gaps.append(Gap(row.first, row.last))
    for key, loaded in found.items():
        loaded.stored_gaps = tuple(loaded.position.gaps)
        _load_known(connection, key, loaded, records[key])
    return found


def _load_known(connection: Connection, key: StreamKey, one: Stream, records: Sequence[Record]) -> None:
    """Hashes of the stored records that the batch may repeat; for facts also of their neighbours in the chain."""
    table = fact if one.lane in FACT_LANES else block
    seqs = {record.head.identity.seq for record in records if not isinstance(record, Unreadable | TombstoneArrival)}
    neighbours = {near for seq in seqs for near in (seq - 1, seq + 1)} if table is fact else set()
    asked = [seq for seq in seqs | neighbours if one.position.accounts(seq)]
    if not asked:
        return
    columns = (table.c.seq, table.c.sha256, *((fact.c.chain, fact.c.previous) if table is fact else ()))
    mine = (table.c.gateway == key[0]) & (table.c.stream == key[1]) & table.c.seq.in_(asked)
    for seq, sha256, *link in connection.execute(select(*columns).where(mine)):
        one.known[seq] = sha256
        if link:
            one.links[seq] = (link[0], link[1])


def _write_streams(connection: Connection, streams: Mapping[StreamKey, Stream]) -> None:
    if not streams:
        return
    for key, one in streams.items():
        _find_head(connection, key, one)
    statement = upsert(connection, stream)
    kept = ("up_to", "top", "head", "records", "duplicates", "first_ms", "last_ms")
    statement = statement.on_conflict_do_update(
        index_elements=["gateway", "stream"], set_={name: statement.excluded[name] for name in kept}
    )
    connection.execute(statement, [_stream_row(key, one) for key, one in streams.items()])
    gone = [(*key, one.first) for key, each in streams.items() for one in set(each.stored_gaps) - set(each.position.gaps)]
    came = [
        {"gateway": key[0], "stream": key[1], "first": one.first, "last": one.last}
        for key, each in streams.items()
        for one in set(each.position.gaps) - set(each.stored_gaps)
    ]
    for (gateway, number), firsts in _grouped(gone).items():
        mine = (gap.c.gateway == gateway) & (gap.c.stream == number) & gap.c.first.in_(firsts)
        connection.execute(gap.delete().where(mine))
    if came:
        connection.execute(insert(gap), came)


def _find_head(connection: Connection, key: StreamKey, one: Stream) -> None:
    """Set the hash of the fact at ``up_to``; empty where no fact is at it (telemetry, nothing yet, a tombstone, a parked frame)."""
    up_to = one.position.up_to
    if one.lane not in FACT_LANES or (up_to == one.stored_up_to and one.head):
        return
    link = one.links.get(up_to)
    chain = link[0] if link else None
    if chain is None and up_to:
        mine = (fact.c.gateway == key[0]) & (fact.c.stream == key[1]) & (fact.c.seq == up_to)
        chain = connection.execute(select(fact.c.chain).where(mine)).scalar()
    one.head = chain.hex() if chain else ""


def _stream_row(key: StreamKey, one: Stream) -> dict[str, int | str]:
    return {
        "gateway": key[0],
        "stream": key[1],
        "lane": one.lane.value,
        "up_to": one.position.up_to,
        "top": one.position.top,
        "head": one.head,
        "records": one.records,
        "duplicates": one.duplicates,
        "first_ms": one.first_ms,
        "last_ms": one.last_ms,
    }


def _grouped(gone: Sequence[tuple[str, int, int]]) -> dict[StreamKey, list[int]]:
    groups: dict[StreamKey, list[int]] = {}
    for gateway, number, first in gone:
        groups.setdefault((gateway, number), []).append(first)
    return groups
