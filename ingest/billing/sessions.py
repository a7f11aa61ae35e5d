"""Sessions in the cloud: what the facts of one session come to. The state is a function of the *set* of its facts; no posting happens here.

Facts may come late, doubled or in another order, and a restored disk may send a second version of some: all are read again each time and
replayed through the same table that the gateway ran (``protocol.session``). Invariant: any permutation and duplication of the same facts
gives the same ``Replayed``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Row, select

from ingest.billing.tables import billing_session
from ingest.schema import conflict, fact
from protocol import facts, frame
from protocol.facts import SessionClosed, SessionEvent, SessionOpened
from protocol.frame import Frame
from protocol.refusal import Refusal
from protocol.session import Event, Rules, Session, What, begin, step

__all__ = ["KINDS", "Opened", "Replayed", "followers", "read_fact", "replay", "root_of"]

KINDS = ("session_opened", "session_event", "session_closed")
LINKS_MAX = 8  # machine swaps in one treatment; more is a loop in the links


@dataclass(frozen=True, slots=True)
class Opened:
    """The first fact of a session, with the stamp that it came with."""

    fact: SessionOpened
    gateway: str
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """A session as the cloud sees it. ``state`` includes the sessions that continue it on other machines, after its own events."""

    opened: Opened
    state: Session
    agrees: bool


@dataclass(frozen=True, slots=True)
class _Facts:
    opened: Opened
    events: tuple[Event, ...]
    closed: tuple[SessionClosed, ...]


def replay(connection: Connection, session_id: bytes, rules: Rules) -> Replayed | None:
    """Return what a session comes to, or ``None`` while its first fact has not come (its events wait in the store)."""
    own = _load(connection, session_id)
    if own is None:
        return None
    state = _play(begin(session_id), own.events, 0, rules)
    newest = max(own.closed, key=lambda one: one.elapsed_ms, default=None)  # a session that staff resumed was closed twice
    agrees = newest is None or _says_the_same(newest, state)
    for follower in followers(connection, session_id):
        following = _load(connection, follower)
        if following is not None:
            state = _play(state, following.events, state.now_ms, rules)
    return Replayed(own.opened, state, agrees)


def root_of(connection: Connection, session_id: bytes) -> bytes:
    """Return the session that this one continues after machine swaps, or itself. A loop of links ends at its bound."""
    for _ in range(LINKS_MAX):
        own = _load(connection, session_id)
        if own is None or not own.opened.fact.continues or own.opened.fact.continues == session_id:
            return session_id
        session_id = own.opened.fact.continues
    return session_id


def followers(connection: Connection, session_id: bytes) -> list[bytes]:
    """Return the sessions that continue this one after machine swaps, first to last, as far as they are known."""
    found, links = [session_id], billing_session.c
    while len(found) <= LINKS_MAX:
        query = select(links.session).where(links.continues == found[-1]).order_by(links.opened_ms, links.session).limit(1)
        following = connection.execute(query).scalar_one_or_none()
        if following is None or following in found:
            break
        found.append(following)
    return found[1:]


def _play(state: Session, events: Iterable[Event], offset_ms: int, rules: Rules) -> Session:
    for event in events:
        state, _ = step(state, replace(event, at_ms=event.at_ms + offset_ms), rules)
    return state


def _load(connection: Connection, session_id: bytes) -> _Facts | None:
    """Read a session's facts from both tables of evidence, in an order that does not depend on when they came."""
    opened: list[Opened] = []
    events: set[tuple[int, int, Event]] = set()
    closed: set[SessionClosed] = set()
    for row in _rows(connection, session_id):
        one = read_fact(row.data)
        if isinstance(one, SessionOpened):
            opened.append(Opened(one, row.gateway, row.wall_ms))
        elif isinstance(one, SessionClosed):
            closed.add(one)
        elif isinstance(one, SessionEvent) and one.what in What._value2member_map_:
            events.add((one.at_ms, row.seq, Event(What(one.what), one.at_ms)))
    if not opened:
        return None
    ordered = sorted(events, key=lambda item: (item[0], item[1], item[2].what))
    distinct = dict.fromkeys(event for _, _, event in ordered)  # a restored disk sends the same event under another number
    return _Facts(opened[0], tuple(distinct), tuple(closed))


def _rows(connection: Connection, session_id: bytes) -> list[Row[tuple[str, int, int, int, bytes]]]:
    found: list[Row[tuple[str, int, int, int, bytes]]] = []
    for table in (fact, conflict):
        columns = (table.c.gateway, table.c.stream, table.c.seq, table.c.wall_ms, table.c.data)
        query = select(*columns).where((table.c.session == session_id) & table.c.kind.in_(KINDS))
        found.extend(connection.execute(query.order_by(table.c.gateway, table.c.stream, table.c.seq)))
    return found


def read_fact(data: bytes) -> object:
    """Return the fact in a stored frame. It was read before it was stored, so a refusal here means damage, and counts as no fact."""
    whole = frame.decode(data)
    if not isinstance(whole, Frame):
        return None
    record = facts.decode(whole.body)
    return None if isinstance(record, Refusal) else record.fact


def _says_the_same(summary: SessionClosed, state: Session) -> bool:
    """Compare the gateway's own summary with our replay."""
    return (summary.phase, summary.commit, summary.in_range_ms, summary.post_in_range_ms) == (
        state.phase.value,
        state.commit.value,
        state.in_range_ms,
        state.post_in_range_ms,
    )
