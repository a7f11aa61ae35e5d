"""The session table: what staff did and what the machine was seen to do, turned into phases, a commit step and an end. Pure.

Both ends run it: the gateway to show and to count, the cloud to replay the same events and compare. It never asks a clock: each event
carries ``at_ms``, monotonic time since the session began. Invariant: nothing here can stop, shorten or delay cooling (rule S6); an event
is always accepted, at worst it changes nothing.

    AUTHORISED → PRECOOL → INFUSION → POSTCOOL → COMPLETED          each of the first four may pause and come back
    a pause over 15 min, a fault or a power loss that nobody resumes → ENDED_EARLY / ENDED_FAULT; before the commit point → RELEASED
"""

from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = [
    "Changed",
    "Commit",
    "EndReason",
    "Event",
    "Phase",
    "Rules",
    "Session",
    "What",
    "advance",
    "begin",
    "replay",
    "step",
]

MINUTE_MS = 60_000


class Phase(StrEnum):
    """Where a session stands. A machine without a session is idle."""

    AUTHORISED = "authorised"
    PRECOOL = "precool"
    INFUSION = "infusion"
    POSTCOOL = "postcool"
    PAUSED = "paused"
    COMPLETED = "completed"
    ENDED_EARLY = "ended_early"
    ENDED_FAULT = "ended_fault"
    RELEASED = "released"

    @property
    def closed(self) -> bool:
        """Whether the session is over (staff may still resume one that a gap ended)."""
        return self in _CLOSED


_CLOSED = frozenset({Phase.COMPLETED, Phase.ENDED_EARLY, Phase.ENDED_FAULT, Phase.RELEASED})


class What(StrEnum):
    """The events. The first block is seen in telemetry, the second is entered by staff, the last comes from the calendar."""

    COOLING_ON = "cooling_on"
    COOLING_OFF = "cooling_off"
    CAP_OFF = "cap_off"
    CAP_ON = "cap_on"
    FAULT = "fault"
    POWER_LOST = "power_lost"

    INFUSION_START = "infusion_start"
    INFUSION_END = "infusion_end"
    NO_CHEMOTHERAPY = "no_chemotherapy"
    RESUME = "resume"
    END = "end"

    DAY_END = "day_end"


class Commit(StrEnum):
    """How far a session is a treatment (amendment A2)."""

    NONE = "none"
    PROVISIONAL = "provisional"
    CONFIRMED = "confirmed"
    HOLD = "hold"
    """A person decides; the default is no charge and the use restored."""


class EndReason(StrEnum):
    """The closed list of rule S8."""

    COMPLETED = "completed"
    STAFF = "staff"
    FAULT = "fault"
    POWER = "power"
    ABORT = "abort"
    GAP = "gap"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rules:
    """The lengths that a contract may set; the defaults are those of the metering rules (B1 with A2, S4)."""

    provisional_ms: int = 20 * MINUTE_MS
    confirm_ms: int = 60 * MINUTE_MS
    pause_ms: int = 15 * MINUTE_MS
    resume_ms: int = 240 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened ``at_ms`` after the session began."""

    what: What
    at_ms: int


@dataclass(frozen=True, slots=True)
class Changed:
    """A consequence, at the exact moment it became true (which may lie between two events)."""

    at_ms: int
    phase: Phase
    commit: Commit
    end_reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One session. ``in_range_ms`` is cumulated in-range cooling, ``post_in_range_ms`` its part after the infusion's end (for units).

    ``before_pause`` is the phase to come back to; ``cooling_since_ms`` and ``away_since_ms`` are ``None`` while not cooling, not away.
    """

    session_id: bytes
    phase: Phase = Phase.AUTHORISED
    commit: Commit = Commit.NONE
    now_ms: int = 0
    in_range_ms: int = 0
    post_in_range_ms: int = 0
    cooling_since_ms: int | None = None
    away_since_ms: int | None = None
    away_reason: EndReason | None = None
    before_pause: Phase = Phase.AUTHORISED
    infusion_start_ms: int | None = None
    infusion_end_ms: int | None = None
    no_chemotherapy: bool = False
    paused_ms: int = 0
    ended_ms: int | None = None
    end_reason: EndReason | None = None
    day_over: bool = False


def begin(session_id: bytes) -> Session:
    """Return a new session: the redemption is written, nothing has been cooled yet."""
    return Session(session_id)


def step(session: Session, event: Event, rules: Rules) -> tuple[Session, tuple[Changed, ...]]:
    """Return the session after ``event`` and what became true on the way, in order of time.

    An event earlier than the session's own time is taken as happening now: the outbox keeps order, a clock may not turn it back.
    """
    at_ms = max(event.at_ms, session.now_ms)
    moved, changes = advance(session, at_ms, rules)
    after = _APPLY[event.what](moved, rules)
    return after, changes + _difference(moved, after)


def replay(session_id: bytes, events: tuple[Event, ...], rules: Rules) -> Session:
    """Return the session that ``events`` make: what the cloud does with the facts of a gateway."""
    session = begin(session_id)
    for event in events:
        session, _ = step(session, event, rules)
    return session


def advance(session: Session, to_ms: int, rules: Rules) -> tuple[Session, tuple[Changed, ...]]:
    """Let time pass until ``to_ms`` and apply, each at its own moment, the changes that time alone brings."""
    changes: tuple[Changed, ...] = ()
    while (due_ms := _next_due(session, rules)) is not None and due_ms <= to_ms:
        there = _elapse(session, due_ms)
        after = _at_due(there, rules)
        changes += _difference(there, after)
        session = after
    return _elapse(session, max(to_ms, session.now_ms)), changes


def _next_due(session: Session, rules: Rules) -> int | None:
    """When the next change by time alone falls due, if nothing else happens."""
    if session.phase.closed:
        return None
    due = []
    if session.cooling_since_ms is not None:
        goal = {Commit.NONE: rules.provisional_ms, Commit.PROVISIONAL: rules.confirm_ms}.get(session.commit)
        if goal is not None:
            due.append(session.now_ms + max(0, goal - session.in_range_ms))
    if session.away_since_ms is not None:
        due.append(session.away_since_ms + rules.pause_ms)
    return min(due, default=None)


def _at_due(session: Session, rules: Rules) -> Session:
    """What time alone changes at this moment: the commit steps, and the end of a pause that nobody ended."""
    if session.away_since_ms is not None and session.now_ms >= session.away_since_ms + rules.pause_ms:
        return _close(session, session.away_reason or EndReason.GAP)
    if session.commit is Commit.NONE and session.in_range_ms >= rules.provisional_ms:
        confirmed = session.infusion_start_ms is not None or session.in_range_ms >= rules.confirm_ms
        return replace(session, commit=Commit.CONFIRMED if confirmed else Commit.PROVISIONAL)
    if session.commit is Commit.PROVISIONAL and session.in_range_ms >= rules.confirm_ms:
        return replace(session, commit=Commit.HOLD if session.no_chemotherapy else Commit.CONFIRMED)
    return session


def _elapse(session: Session, to_ms: int) -> Session:
    """Move the session's own time and add what was cooled meanwhile."""
    passed = to_ms - session.now_ms
    cooled = passed if session.cooling_since_ms is not None else 0
    return replace(
        session,
        now_ms=to_ms,
        in_range_ms=session.in_range_ms + cooled,
        post_in_range_ms=session.post_in_range_ms + (cooled if session.infusion_end_ms is not None else 0),
        paused_ms=session.paused_ms + (passed if session.phase is Phase.PAUSED else 0),
    )


def _cooling_on(session: Session, _rules: Rules) -> Session:
    if session.phase.closed:
        return session
    back = _come_back(session)
    phase = Phase.PRECOOL if back.phase is Phase.AUTHORISED else back.phase
    return replace(back, phase=phase, cooling_since_ms=back.now_ms if back.cooling_since_ms is None else back.cooling_since_ms)


def _cooling_off(session: Session, _rules: Rules) -> Session:
    return replace(session, cooling_since_ms=None)


def _come_back(session: Session) -> Session:
    """End a pause: the same phase goes on, or the one that marks made while away."""
    if session.phase is not Phase.PAUSED:
        return session
    return replace(session, phase=session.before_pause, away_since_ms=None, away_reason=None)


def _go_away(session: Session, reason: EndReason) -> Session:
    """Begin a pause, or give a running one its graver reason (a fault explains a cap that is off, not the other way round)."""
    if session.phase.closed:
        return session
    if session.phase is Phase.PAUSED:
        graver = reason if session.away_reason is EndReason.GAP else session.away_reason
        return replace(session, away_reason=graver, cooling_since_ms=None)
    return replace(
        session,
        phase=Phase.PAUSED,
        before_pause=session.phase,
        away_since_ms=session.now_ms,
        away_reason=reason,
        cooling_since_ms=None,
    )


def _infusion_start(session: Session, _rules: Rules) -> Session:
    """The commit point while cooling; a late mark on a closed session confirms it until the clinic's day ends (A2)."""
    if session.infusion_start_ms is not None or session.day_over or session.phase is Phase.RELEASED:
        return session
    marked = replace(session, infusion_start_ms=session.now_ms)
    if session.phase.closed:
        return replace(marked, commit=Commit.HOLD if session.no_chemotherapy else Commit.CONFIRMED)
    # "While cooling" (B1): before any in-range cooling the mark is kept and counts as soon as twenty minutes are reached.
    if session.in_range_ms > 0 or session.cooling_since_ms is not None:
        marked = replace(marked, commit=Commit.HOLD if session.no_chemotherapy else Commit.CONFIRMED)
    return _set_phase(marked, Phase.INFUSION)


def _infusion_end(session: Session, _rules: Rules) -> Session:
    if session.infusion_end_ms is not None or session.phase.closed or session.infusion_start_ms is None:
        return session
    return _set_phase(replace(session, infusion_end_ms=session.now_ms), Phase.POSTCOOL)


def _set_phase(session: Session, phase: Phase) -> Session:
    """Enter ``phase`` now, or as the phase to come back to while paused."""
    if session.phase is Phase.PAUSED:
        return replace(session, before_pause=phase)
    return replace(session, phase=phase)


def _no_chemotherapy(session: Session, _rules: Rules) -> Session:
    """Staff say that no chemotherapy was given: a person decides about whatever had been committed."""
    if session.day_over:
        return session
    held = session.commit in {Commit.PROVISIONAL, Commit.CONFIRMED}
    return replace(session, no_chemotherapy=True, commit=Commit.HOLD if held else session.commit)


def _resume(session: Session, rules: Rules) -> Session:
    """Staff resume a session that a gap, a fault or a power loss ended, within four hours on the same service date (S4)."""
    if not session.phase.closed:
        return _come_back(session)
    by_gap = session.end_reason in {EndReason.GAP, EndReason.FAULT, EndReason.POWER}
    if not by_gap or session.ended_ms is None or session.day_over or session.now_ms - session.ended_ms > rules.resume_ms:
        return session
    back = replace(session, phase=session.before_pause, away_since_ms=None, away_reason=None, ended_ms=None, end_reason=None)
    return replace(back, commit=_earned(back, rules))


def _earned(session: Session, rules: Rules) -> Commit:
    """The commit step that cooling and marks alone have earned: what a resumed session goes on from."""
    if (session.infusion_start_ms is not None and session.in_range_ms > 0) or session.in_range_ms >= rules.confirm_ms:
        earned = Commit.CONFIRMED
    elif session.in_range_ms >= rules.provisional_ms:
        earned = Commit.PROVISIONAL
    else:
        earned = Commit.NONE
    return Commit.HOLD if session.no_chemotherapy and earned is not Commit.NONE else earned


def _end(session: Session, _rules: Rules) -> Session:
    if session.phase.closed:
        return session
    resting = session.before_pause if session.phase is Phase.PAUSED else session.phase
    return _close(session, EndReason.COMPLETED if resting is Phase.POSTCOOL else EndReason.STAFF)


def _close(session: Session, reason: EndReason) -> Session:
    """End now. Before the commit point the use is released (B2), whatever the reason was."""
    if session.commit is Commit.NONE:
        phase = Phase.RELEASED
        reason = EndReason.ABORT if reason is EndReason.STAFF else reason
    elif reason is EndReason.COMPLETED:
        phase = Phase.COMPLETED
    else:
        phase = Phase.ENDED_FAULT if reason is EndReason.FAULT else Phase.ENDED_EARLY
    commit = session.commit
    if phase is Phase.ENDED_FAULT and session.infusion_end_ms is None:
        commit = Commit.HOLD  # B3: a fault before the infusion's end is not charged silently
    resting = session.before_pause if session.phase is Phase.PAUSED else session.phase
    return replace(
        session,
        phase=phase,
        commit=commit,
        before_pause=resting,
        cooling_since_ms=None,
        away_since_ms=None,
        ended_ms=session.now_ms,
        end_reason=reason,
    )


def _day_end(session: Session, _rules: Rules) -> Session:
    """The clinic's day is over: what is still running ends as unknown, what is still provisional is held (A2)."""
    closed = session if session.phase.closed else _close(session, session.away_reason or EndReason.UNKNOWN)
    commit = Commit.HOLD if closed.commit is Commit.PROVISIONAL else closed.commit
    return replace(closed, commit=commit, day_over=True)


_APPLY = {
    What.COOLING_ON: _cooling_on,
    What.COOLING_OFF: _cooling_off,
    What.CAP_OFF: lambda session, _rules: _go_away(session, EndReason.GAP),
    What.CAP_ON: lambda session, _rules: _come_back(session),
    What.FAULT: lambda session, _rules: _go_away(session, EndReason.FAULT),
    What.POWER_LOST: lambda session, _rules: _go_away(session, EndReason.POWER),
    What.INFUSION_START: _infusion_start,
    What.INFUSION_END: _infusion_end,
    What.NO_CHEMOTHERAPY: _no_chemotherapy,
    What.RESUME: _resume,
    What.END: _end,
    What.DAY_END: _day_end,
}


def _difference(before: Session, after: Session) -> tuple[Changed, ...]:
    if (before.phase, before.commit) == (after.phase, after.commit):
        return ()
    return (Changed(after.now_ms, after.phase, after.commit, after.end_reason),)
