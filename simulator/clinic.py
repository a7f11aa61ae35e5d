"""Clinic: who is cooled when, on which of the clinic's two to six machines. Staff and patients as a timetable; no physics, no network.

Times are those of practice: pre-cooling 30 minutes (45 for thick hair), infusion 60 to 180, post-cooling 20 to 150, warm-up 5 to
10, a toilet break of some minutes with the hose off. Invariant: a day depends on (seed, machine, day) alone, so any moment of any day can
be asked for without playing what came before.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from protocol.reading import MachineState
from simulator.cooler import Demand

__all__ = ["COOLERS_MAX", "COOLERS_MIN", "Clinic", "Segment", "Shift", "plan_day"]

COOLERS_MIN, COOLERS_MAX = 1, 64  # a clinic has two to six; tests want one, load tests many
MINUTE_MS = 60_000
DAY_MS = 86_400_000
OPENING_MIN = 8 * 60  # first patient, minutes after midnight UTC
CLOSING_MIN = 16 * 60  # no session begins after this
SWITCH_ON_LEAD_MIN = 40  # staff switch on early enough for a tank that needs half an hour
SWITCH_OFF_LAG_MIN = 20
THICK_HAIR_SHARE = 0.2
POST_COOL_MIN = (20, 45, 60, 90, 90, 90, 90, 120, 150)  # 90 is the default of the trade; 20 after docetaxel
BREAK_SHARE = 0.6  # of infusions longer than an hour
IDLE_SHARE = 0.12  # a place that is not used on a day


@dataclass(frozen=True, slots=True)
class Segment:
    """One phase on one circuit, from ``start_ms`` until before ``end_ms``."""

    start_ms: int
    end_ms: int
    phase: MachineState


@dataclass(frozen=True, slots=True)
class Shift:
    """A machine's day: when it is on, and the segments of each circuit in order."""

    on_ms: int
    off_ms: int
    circuits: tuple[tuple[Segment, ...], tuple[Segment, ...]]

    def demand(self, now_ms: int) -> Demand:
        """Return what staff want at ``now_ms``."""
        if not self.on_ms <= now_ms < self.off_ms:
            return Demand(powered=False)
        return Demand(powered=True, phases=(_phase(self.circuits[0], now_ms), _phase(self.circuits[1], now_ms)))

    @property
    def sessions(self) -> int:
        """How many sessions begin in this shift."""
        return sum(segment.phase == MachineState.PRE_COOL for circuit in self.circuits for segment in circuit)


def _phase(segments: tuple[Segment, ...], now_ms: int) -> MachineState:
    return next((one.phase for one in segments if one.start_ms <= now_ms < one.end_ms), MachineState.READY)


@lru_cache(maxsize=COOLERS_MAX * 3)  # today of every machine, and both sides of midnight
def plan_day(seed: str, serial: str, day: int) -> Shift:
    """Return the shift of a machine on a day (days since 1970 UTC)."""
    chance = random.Random(f"{seed}/{serial}/{day}")
    midnight_ms = day * DAY_MS
    circuits = tuple(tuple(_plan_circuit(chance, midnight_ms)) for _ in range(2))
    first = min((segments[0].start_ms for segments in circuits if segments), default=midnight_ms + OPENING_MIN * MINUTE_MS)
    last = max((segments[-1].end_ms for segments in circuits if segments), default=midnight_ms + CLOSING_MIN * MINUTE_MS)
    on_ms = min(first, midnight_ms + OPENING_MIN * MINUTE_MS) - (SWITCH_ON_LEAD_MIN + chance.randrange(15)) * MINUTE_MS
    return Shift(on_ms, last + (SWITCH_OFF_LAG_MIN + chance.randrange(15)) * MINUTE_MS, (circuits[0], circuits[1]))


def _plan_circuit(chance: random.Random, midnight_ms: int) -> Iterator[Segment]:
    if chance.random() < IDLE_SHARE:
        return
    minute = OPENING_MIN + chance.randrange(45)
    while minute < CLOSING_MIN:
        for length, phase in _plan_session(chance):
            yield Segment(midnight_ms + minute * MINUTE_MS, midnight_ms + (minute + length) * MINUTE_MS, phase)
            minute += length
        minute += 15 + chance.randrange(45)  # cleaning, the next patient


def _plan_session(chance: random.Random) -> Iterator[tuple[int, MachineState]]:
    """Lengths in minutes and phases of one session, in order."""
    yield 45 if chance.random() < THICK_HAIR_SHARE else 30, MachineState.PRE_COOL
    infusion = chance.randrange(60, 181)
    if infusion > 60 and chance.random() < BREAK_SHARE:
        before = chance.randrange(20, infusion - 20)
        away = chance.randrange(4, 10)  # a cap holds its cold for about ten minutes
        yield before, MachineState.INFUSION
        yield away, MachineState.PAUSED
        infusion = max(10, infusion - before - away)
    yield infusion, MachineState.INFUSION
    yield chance.choice(POST_COOL_MIN), MachineState.POST_COOL
    yield chance.randrange(5, 11), MachineState.WARM_UP


@dataclass(frozen=True, slots=True)
class Clinic:
    """A clinic by seed; ``coolers`` machines named ``cooler-0001`` and up."""

    seed: str
    coolers: int
    first_number: int = 1

    def __post_init__(self) -> None:
        if not COOLERS_MIN <= self.coolers <= COOLERS_MAX:
            raise ValueError(f"a clinic has {COOLERS_MIN} to {COOLERS_MAX} coolers, not {self.coolers}")

    @property
    def serials(self) -> tuple[str, ...]:
        """The machines' serial numbers."""
        return tuple(f"cooler-{number:04d}" for number in range(self.first_number, self.first_number + self.coolers))

    def demand(self, serial: str, now_ms: int) -> Demand:
        """Return what staff want of a machine at ``now_ms`` (wall time); every shift ends before midnight UTC."""
        return plan_day(self.seed, serial, now_ms // DAY_MS).demand(now_ms)
