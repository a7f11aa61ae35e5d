"""Projection: the cursor loop that everything rebuildable shares. Not a place for effects: each projection has its own.

    step(): read the cursor → read the blocks after it → do the effect → move the cursor from where it was read

Invariant: the cursor only moves from the value that the step began with, so a rewind, a second worker or a crash in between costs a
repetition of the effect, never a hole.
"""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import structlog
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from ingest.errors import IngestError
from ingest.schema import ARRIVAL, block, counter, cursor, projection_reject
from ingest.sql import insert_new
from ingest.store import StoreDownError
from protocol import block as block_codec
from protocol import frame
from protocol.block import Rows
from protocol.clock import Timer
from protocol.profile import Profile
from protocol.refusal import Refusal

__all__ = [
    "BLOCK_COLUMNS",
    "ProfileLookup",
    "Projection",
    "ProjectionError",
    "Reject",
    "RejectReason",
    "Runner",
    "State",
    "Status",
    "StoredBlock",
    "advance",
    "blocks_after",
    "decode_rows",
    "full_jitter_s",
    "newest_arrival",
    "open_rejects",
    "place_cursor",
    "position",
    "reject",
    "resolve",
    "stored_block",
    "waiting_rejects",
]

BACK_OFF_S = 0.5  # the first wait is up to this
BACK_OFF_S_MAX = 60.0  # after an outage of hours the sink is found again within a minute
POLL_S = 0.25  # how late a block may be on a chart when the projection is up to date
LINE_CHARS_MAX = 4096  # of a refused line kept for a person; a line of 128 channels has about 5,000
DETAIL_CHARS_MAX = 400  # the column's width
RETRIES_A_STEP_MAX = 100  # parked blocks taken up again in one step, so that new ones are not kept waiting

log = structlog.get_logger(__name__)


class RejectReason(StrEnum):
    """Why a block, or a line of it, was left out of a projection. The names are on pages for ever."""

    UNKNOWN_PROFILE = "unknown_profile"
    UNREADABLE = "unreadable"
    NOT_WRITABLE = "not_writable"
    REFUSED_BY_SERVER = "refused_by_server"
    RETRY = "retry"
    """Somebody asked to try it again: the projection takes it up on its next idle turn."""


class ProjectionError(IngestError):
    """The world failed (sink down, not authorised); nothing was lost and the cursor did not move."""

    def __init__(self, reason: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retry_after_s = reason, detail, retry_after_s


class Projection(Protocol):
    """Something that follows the stored blocks."""

    @property
    def name(self) -> str:
        """Name of its cursor."""
        ...

    def step(self) -> int:
        """Do the next piece of work; return how many records were passed, 0 when there is nothing to do.

        Raises ``ProjectionError`` or ``StoreDownError`` when the world fails.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A row of ``block``, as much of it as projections use."""

    arrival: int
    gateway: str
    stream: int
    seq: int
    device: str
    profile: str
    profile_version: int
    t0_ms: int
    t1_ms: int
    data: bytes


BLOCK_COLUMNS = tuple(block.c[name] for name in StoredBlock.__slots__)

ProfileLookup = Callable[[str, int], Profile | None]
"""Profile of an id and version, or ``None`` when this process does not know it: ``ingest.profiles.Profiles.find``."""


def decode_rows(stored: StoredBlock) -> Rows | Refusal:
    """Return the rows in a stored frame, or why they cannot be read."""
    envelope = frame.decode(stored.data)
    return envelope if isinstance(envelope, Refusal) else block_codec.decode(envelope.body)


def stored_block(row: Row[tuple[object, ...]]) -> StoredBlock:
    """Return a row of ``BLOCK_COLUMNS`` as its type."""
    return StoredBlock(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def blocks_after(connection: Connection, arrival: int, limit: int) -> list[StoredBlock]:
    """Return the next ``limit`` blocks in the order in which they were committed."""
    query = select(*BLOCK_COLUMNS).where(block.c.arrival > arrival).order_by(block.c.arrival).limit(limit)
    return [stored_block(row) for row in connection.execute(query)]


def newest_arrival(connection: Connection) -> int:
    """Return the number of the newest committed record, 0 before the first."""
    return int(connection.execute(select(counter.c.value).where(counter.c.name == ARRIVAL)).scalar() or 0)


def position(connection: Connection, name: str) -> int | None:
    """Return how far a projection is, ``None`` when it has never run."""
    return connection.execute(select(cursor.c.arrival).where(cursor.c.name == name)).scalar()


def advance(connection: Connection, name: str, *, old: int | None, new: int, now_ms: int) -> bool:
    """Move a cursor from ``old`` to ``new``; ``False`` when it no longer stands at ``old`` and nothing was changed."""
    if old is None:
        made = insert_new(connection, cursor).values(name=name, arrival=new, updated_ms=now_ms).returning(cursor.c.name)
        return connection.execute(made).first() is not None
    here = (cursor.c.name == name) & (cursor.c.arrival == old)
    return connection.execute(update(cursor).where(here).values(arrival=new, updated_ms=now_ms)).rowcount == 1


def place_cursor(connection: Connection, name: str, *, arrival: int, now_ms: int) -> None:
    """Put a cursor somewhere whatever it says now; open rejects beyond it are closed, since their blocks will come by again."""
    connection.execute(delete(cursor).where(cursor.c.name == name))
    connection.execute(insert(cursor).values(name=name, arrival=arrival, updated_ms=now_ms))
    beyond = (projection_reject.c.projection == name) & (projection_reject.c.arrival > arrival) & projection_reject.c.resolved_ms.is_(None)
    connection.execute(update(projection_reject).where(beyond).values(resolved_ms=now_ms))


@dataclass(frozen=True, slots=True)
class Reject:
    """What was left out and why."""

    stored: StoredBlock
    reason: RejectReason
    detail: str
    line: str = ""


def reject(connection: Connection, name: str, rejects: Iterable[Reject], *, now_ms: int) -> None:
    """Write down what a projection left out."""
    rows = [
        {
            "projection": name,
            "arrival": one.stored.arrival,
            "gateway": one.stored.gateway,
            "stream": one.stored.stream,
            "seq": one.stored.seq,
            "reason": one.reason.value,
            "detail": one.detail[:DETAIL_CHARS_MAX],
            "line": one.line[:LINE_CHARS_MAX],
            "created_ms": now_ms,
        }
        for one in rejects
    ]
    if rows:
        connection.execute(insert(projection_reject), rows)


def open_rejects(connection: Connection, name: str, known: ProfileLookup, *, parked: bool) -> list[StoredBlock]:
    """Return left-out blocks to try again: those that a person asked for and, with ``parked``, those whose profile is known by now."""
    reasons = [RejectReason.RETRY.value] + ([RejectReason.UNKNOWN_PROFILE.value] if parked else [])
    table = projection_reject.c
    wanted = (table.projection == name) & table.resolved_ms.is_(None) & table.reason.in_(reasons)
    found: list[StoredBlock] = []
    for arrival, reason in connection.execute(select(table.arrival, table.reason).where(wanted).order_by(table.arrival, table.reason)):
        if found and found[-1].arrival == arrival:
            continue
        row = connection.execute(select(*BLOCK_COLUMNS).where(block.c.arrival == arrival)).first()
        stored = stored_block(row) if row is not None else None
        if stored is not None and (reason == RejectReason.RETRY or known(stored.profile, stored.profile_version) is not None):
            found.append(stored)
        if len(found) == RETRIES_A_STEP_MAX:
            break
    return found


def resolve(connection: Connection, name: str, arrival: int, *, now_ms: int) -> bool:
    """Close the open rejects of one block; ``False`` when somebody else has."""
    same = (projection_reject.c.projection == name) & (projection_reject.c.arrival == arrival) & projection_reject.c.resolved_ms.is_(None)
    return connection.execute(update(projection_reject).where(same).values(resolved_ms=now_ms)).rowcount > 0


def waiting_rejects(connection: Connection, name: str) -> int:
    """Return how many rejects of a projection are open."""
    mine = (projection_reject.c.projection == name) & projection_reject.c.resolved_ms.is_(None)
    return int(connection.execute(select(func.count()).select_from(projection_reject).where(mine)).scalar_one())


def full_jitter_s(rng: random.Random, failures: int) -> float:
    """Return the wait after so many failures in a row: anything up to a bound that doubles, so that clients do not march in step."""
    return rng.uniform(0, min(BACK_OFF_S_MAX, BACK_OFF_S * 2 ** min(failures - 1, 20)))


class State(StrEnum):
    """What a projection is doing."""

    STARTING = "starting"
    WORKING = "working"
    UP_TO_DATE = "up_to_date"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Status:
    """What health pages show of a projection."""

    name: str
    state: State = State.STARTING
    passed: int = 0
    failures: int = 0
    reason: str = ""
    detail: str = ""


class Runner:
    """Runs one projection in the calling thread until told to stop. A failing sink makes it wait, never end; a bug ends it."""

    def __init__(self, projection: Projection, *, timer: Timer, rng: random.Random, stop: threading.Event, poll_s: float = POLL_S) -> None:
        self._projection, self._timer, self._rng, self._stop, self._poll_s = projection, timer, rng, stop, poll_s
        self._status = Status(projection.name)
        self._failing_since_s = 0.0

    @property
    def status(self) -> Status:
        """A snapshot; safe from any thread."""
        return self._status

    def run(self) -> None:
        """Work until the stop event is set."""
        try:
            while not self._stop.is_set():
                self._stop.wait(self._turn())
        finally:
            self._status = replace(self._status, state=State.STOPPED)
            self._projection.close()

    def _turn(self) -> float:
        """One step; returns how long to wait before the next."""
        try:
            passed = self._projection.step()
        except (ProjectionError, StoreDownError) as error:
            return self._failed(error)
        if self._status.failures:
            log.info("projection_recovered", projection=self._projection.name, after_s=round(self._timer() - self._failing_since_s, 1))
        state = State.WORKING if passed else State.UP_TO_DATE
        self._status = Status(self._projection.name, state, self._status.passed + passed)
        return 0.0 if passed else self._poll_s

    def _failed(self, error: ProjectionError | StoreDownError) -> float:
        reason = error.reason if isinstance(error, ProjectionError) else "store_down"
        failures = self._status.failures + 1
        if failures == 1:
            self._failing_since_s = self._timer()
        if failures == 1 or reason != self._status.reason:  # once when it goes away, not at every try
            log.warning("projection_waits", projection=self._projection.name, reason=reason, detail=str(error))
        self._status = replace(self._status, state=State.WAITING, failures=failures, reason=reason, detail=str(error))
        wait_s = full_jitter_s(self._rng, failures)
        asked = error.retry_after_s if isinstance(error, ProjectionError) else None
        return wait_s if asked is None else asked + wait_s
