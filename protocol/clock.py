"""Clock and Timer: two things on purpose. Not a time library, and it never asks the machine: entry points hand the functions in.

``Clock`` gives stamps, phases, alarms and money their time; it may be scaled (the demo runs at 60 times) or stand still (tests).
``Timer`` is for keep-alives, retries and commit intervals; it is always real. Invariant: durations come from ``monotonic_ms`` only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

__all__ = ["Clock", "ClockQuality", "MachineClock", "ManualClock", "ScaledClock", "Timer"]

NS_PER_MS = 1_000_000


class ClockQuality(IntEnum):
    """How far wall time may be trusted; the letters are those of OCMF (Open Charge Metering Format), the numbers are on the wire."""

    UNSYNCED = 0
    """U: nothing has ever set this clock; it may be years off."""
    INFORMATIVE = 1
    """I: set by a person or kept by an RTC; good enough to read, not to bill by."""
    SYNCED = 2
    """S: disciplined by a time service."""
    RELATIVE = 3
    """R: only differences mean something (fitted to another clock, or a scaled demonstration)."""

    @property
    def letter(self) -> str:
        """The OCMF letter."""
        return "UISR"[self.value]


class Clock(Protocol):
    """Where stamps come from."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC: a label for people, never an identity or an order."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that never go backward within one boot; the only source of durations."""
        ...

    def quality(self) -> ClockQuality:
        """How far ``wall_ms`` may be trusted now."""
        ...


class Timer(Protocol):
    """Real seconds for retries and keep-alives, also when the Clock is scaled."""

    def __call__(self) -> float:
        """Seconds that never go backward."""
        ...


@dataclass(frozen=True, slots=True)
class MachineClock:
    """The machine's own clocks, given as functions so that this module stays pure."""

    wall_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    synced: Callable[[], bool]

    def wall_ms(self) -> int:
        """See ``Clock.wall_ms``."""
        return self.wall_ns() // NS_PER_MS

    def monotonic_ms(self) -> int:
        """See ``Clock.monotonic_ms``."""
        return self.monotonic_ns() // NS_PER_MS

    def quality(self) -> ClockQuality:
        """SYNCED while the time service says so, else INFORMATIVE."""
        return ClockQuality.SYNCED if self.synced() else ClockQuality.INFORMATIVE


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """A clock that runs ``scale`` times as fast from ``start_wall_ms``; processes that share the origin share the time.

    ``origin_ns`` is a reading of the same machine-wide monotonic clock at which the scaled wall clock showed ``start_wall_ms``.
    """

    monotonic_ns: Callable[[], int]
    origin_ns: int
    start_wall_ms: int
    scale: int

    def wall_ms(self) -> int:
        """See ``Clock.wall_ms``."""
        return self.start_wall_ms + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        """Scaled milliseconds since the origin."""
        return (self.monotonic_ns() - self.origin_ns) * self.scale // NS_PER_MS

    def quality(self) -> ClockQuality:
        """Always RELATIVE: nobody must take a demonstration's time for real."""
        return ClockQuality.RELATIVE


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told: for simulations and tests on virtual time."""

    wall: int = 1_767_225_600_000  # 2026-01-01T00:00:00Z: a round, recognisable past date
    monotonic: int = 1_000_000
    trust: ClockQuality = ClockQuality.SYNCED

    def advance(self, ms: int) -> None:
        """Let ``ms`` milliseconds pass on both clocks."""
        self.wall += ms
        self.monotonic += ms

    def step_wall(self, ms: int) -> None:
        """Jump the wall clock alone, as an NTP step or a person would."""
        self.wall += ms

    def wall_ms(self) -> int:
        """See ``Clock.wall_ms``."""
        return self.wall

    def monotonic_ms(self) -> int:
        """See ``Clock.monotonic_ms``."""
        return self.monotonic

    def quality(self) -> ClockQuality:
        """The quality that the test chose."""
        return self.trust
