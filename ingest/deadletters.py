"""Dead letters: messages that were refused, with the reason, for a person to look at and to try again. Not evidence.

Invariant: what is refused is written here in the same transaction that lets it be acked, once for the same bytes, topic and reason, up to
``DEAD_LETTERS_MAX``; beyond it only ``SHED`` is counted. The gateway still has what no receipt covered, so shedding loses nothing of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from ingest.arrivals import Incoming
from ingest.intake import Dead
from ingest.schema import DEAD_LETTER_BYTES_MAX, counter, dead_letter, parked
from ingest.sql import clean, upsert
from protocol import topics
from protocol.topics import Lane
from protocol.units import GatewayId

__all__ = ["DEAD_LETTERS_MAX", "DeadLetter", "Retry", "counts", "find", "forget", "newest", "resolve", "retryable", "shed", "write"]

DEAD_LETTERS_MAX = 4096  # open ones; at the largest size together 1 GiB
TOPIC_CHARS_MAX = 256  # the column's width; ours have at most 60
DETAIL_CHARS_MAX = 200  # the column's width
RETRIES_MAX = 500  # in one transaction, so that ingestion waits no longer than for an ordinary batch
SHED = "dead_letters_shed"
"""The row of ``counter`` that counts what was not written."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row as pages show it; ``data`` is left out of lists."""

    id: int
    received_ms: int
    last_ms: int
    times: int
    topic: str
    gateway: str
    reason: str
    detail: str
    size: int
    sha256: bytes
    resolved_ms: int | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Bytes to try again: a dead letter's own (``id``), or those of a parked frame (``parked``: gateway, stream, seq)."""

    message: Incoming
    id: int | None = None
    parked: tuple[str, int, int] | None = None


_SHOWN = tuple(dead_letter.c[name] for name in DeadLetter.__slots__)


def write(connection: Connection, dead: Sequence[Dead]) -> None:
    """Write refused messages down; the same one again only counts."""
    if not dead:
        return
    room = DEAD_LETTERS_MAX - connection.execute(select(func.count()).where(dead_letter.c.resolved_ms.is_(None))).scalar_one()
    statement = upsert(connection, dead_letter)
    again = {"times": dead_letter.c.times + 1, "last_ms": statement.excluded.last_ms}
    statement = statement.on_conflict_do_update(index_elements=["sha256", "topic", "reason"], set_=again)
    # One by one: the same message twice in a batch must count twice, and refused messages are rare.
    for one in dead[: max(room, 0)]:
        connection.execute(statement, _row(one))
    lost = len(dead) - max(room, 0)
    if lost > 0:
        bump = upsert(connection, counter).values(name=SHED, value=lost)
        total = counter.c.value + bump.excluded.value
        connection.execute(bump.on_conflict_do_update(index_elements=["name"], set_={"value": total}))


def _row(dead: Dead) -> dict[str, int | str | bytes | None]:
    payload = dead.message.payload
    return {
        "received_ms": dead.message.received_ms,
        "last_ms": dead.message.received_ms,
        "times": 1,
        "topic": clean(dead.message.topic, TOPIC_CHARS_MAX),
        "gateway": dead.gateway,
        "reason": dead.refusal.reason.value,
        "detail": clean(dead.refusal.detail, DETAIL_CHARS_MAX),
        "size": len(payload),
        "sha256": hashlib.sha256(payload).digest(),
        "data": None if dead.kept else payload[:DEAD_LETTER_BYTES_MAX],
        "resolved_ms": None,
    }


def newest(connection: Connection, *, limit: int, reason: str | None = None) -> list[DeadLetter]:
    """Open dead letters, newest first."""
    query = select(*_SHOWN).where(dead_letter.c.resolved_ms.is_(None))
    if reason is not None:
        query = query.where(dead_letter.c.reason == reason)
    return [
        DeadLetter(*row) for row in connection.execute(query.order_by(dead_letter.c.last_ms.desc(), dead_letter.c.id.desc()).limit(limit))
    ]


def find(connection: Connection, letter_id: int) -> tuple[DeadLetter, bytes | None] | None:
    """One dead letter and its bytes, also those that lie in ``parked``; ``None`` when there is none of that id."""
    row = connection.execute(select(*_SHOWN, dead_letter.c.data).where(dead_letter.c.id == letter_id)).first()
    if row is None:
        return None
    letter, data = DeadLetter(*row[:-1]), row[-1]
    if data is None:
        data = connection.execute(select(parked.c.data).where(parked.c.sha256 == letter.sha256)).scalar()
    return letter, data


def counts(connection: Connection) -> dict[str, int]:
    """Open dead letters by reason."""
    query = select(dead_letter.c.reason, func.count()).where(dead_letter.c.resolved_ms.is_(None)).group_by(dead_letter.c.reason)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def shed(connection: Connection) -> int:
    """How many were not written because ``DEAD_LETTERS_MAX`` were open."""
    return int(connection.execute(select(counter.c.value).where(counter.c.name == SHED)).scalar() or 0)


def retryable(connection: Connection, *, ids: Sequence[int] | None = None, reason: str | None = None) -> list[Retry]:
    """What can be tried again: whole dead letters, then parked frames; at most ``RETRIES_MAX``. ``ids`` or ``reason`` narrow it."""
    open_whole = dead_letter.c.resolved_ms.is_(None) & dead_letter.c.data.is_not(None) & (dead_letter.c.size <= DEAD_LETTER_BYTES_MAX)
    letters = select(dead_letter.c.id, dead_letter.c.topic, dead_letter.c.data, dead_letter.c.received_ms).where(open_whole)
    frames = select(parked)
    if ids is not None:
        letters = letters.where(dead_letter.c.id.in_(ids))
        frames = frames.where(parked.c.sha256.in_(select(dead_letter.c.sha256).where(dead_letter.c.id.in_(ids))))
    if reason is not None:
        letters, frames = letters.where(dead_letter.c.reason == reason), frames.where(parked.c.reason == reason)
    found = [Retry(Incoming(row.topic, row.data, row.received_ms), row.id) for row in connection.execute(letters.limit(RETRIES_MAX))]
    for row in connection.execute(frames.limit(RETRIES_MAX - len(found))):
        topic = topics.build(GatewayId(row.gateway), Lane(row.lane).leaf)
        found.append(Retry(Incoming(topic, row.data, row.received_ms), parked=(row.gateway, row.stream, row.seq)))
    return found


def resolve(connection: Connection, retry: Retry, *, now_ms: int) -> None:
    """A retry was accepted: the dead letter is closed, the parked frame is where it belongs and no longer parked."""
    sha256 = hashlib.sha256(retry.message.payload).digest()
    same = (dead_letter.c.sha256 == sha256) & dead_letter.c.resolved_ms.is_(None)
    connection.execute(update(dead_letter).where(same).values(resolved_ms=now_ms))
    if retry.parked is not None:
        gateway, stream, seq = retry.parked
        there = (parked.c.gateway == gateway) & (parked.c.stream == stream) & (parked.c.seq == seq) & (parked.c.sha256 == sha256)
        connection.execute(delete(parked).where(there))


def forget(connection: Connection, ids: Sequence[int], *, now_ms: int) -> int:
    """Close dead letters without a retry; what is parked stays parked. Returns how many were open."""
    chosen = dead_letter.c.id.in_(ids) & dead_letter.c.resolved_ms.is_(None)
    return connection.execute(update(dead_letter).where(chosen).values(resolved_ms=now_ms)).rowcount
