"""Clock watch: notices when wall time jumps against monotonic time. Not a time service, and it changes no stamp.

Invariant: slewing by a time service (at most 0.5 ms a second) is never a step; a jump of ``STEP_MS_MIN`` or more always is, once.
"""

from protocol.clock import Clock
from protocol.facts import ClockStepped

__all__ = ["STEP_MS_MIN", "ClockWatch"]

STEP_MS_MIN = 1000  # a sample a second is the finest rhythm here: a smaller jump reorders nothing


class ClockWatch:
    """Compare both clocks now and then; the distance between two looks is what counts."""

    __slots__ = ("_clock", "_offset_ms", "steps")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms = clock.wall_ms() - clock.monotonic_ms()
        self.steps = 0

    def look(self) -> ClockStepped | None:
        """Return the fact of a step since the last look, if there was one."""
        offset_ms = self._clock.wall_ms() - self._clock.monotonic_ms()
        step_ms, self._offset_ms = offset_ms - self._offset_ms, offset_ms
        if abs(step_ms) < STEP_MS_MIN:
            return None
        self.steps += 1
        return ClockStepped(step_ms, int(self._clock.quality()))
