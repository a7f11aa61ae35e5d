"""Machine: this computer's clocks, chance and boot number, made once by the entry point. Not for logic, which is handed them.

Invariant: nothing else in the package reads the computer's clock or draws a random number by itself.
"""

import ctypes
import random
import sys
import time
from dataclasses import dataclass

from edge.settings import ClockConfig
from protocol.clock import Clock, MachineClock, ScaledClock, Timer

__all__ = ["KernelSync", "Machine"]

TIMEX_BYTES = 256  # struct timex is 208 bytes on 64-bit Linux; room for other layouts
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
BOOT_BITS = 63  # boot numbers are signed 64-bit in both databases


class KernelSync:
    """Whether the kernel says that a time service keeps the clock. ``refresh`` asks it; a call answers from memory, for every stamp."""

    __slots__ = ("_adjtimex", "is_synced")

    def __init__(self) -> None:
        self._adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None) if sys.platform == "linux" else None
        self.is_synced = False
        self.refresh()

    def refresh(self) -> None:
        """Ask the kernel; without that call (other systems) the clock counts as not synchronised."""
        if self._adjtimex is not None:
            state = self._adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
            self.is_synced = 0 <= state < TIME_ERROR

    def __call__(self) -> bool:
        """Whether the clock was synchronised when last asked."""
        return self.is_synced


@dataclass(frozen=True, slots=True)
class Machine:
    """``timer`` is real seconds for retries, whatever ``clock`` shows; ``boot`` is a random number of this start."""

    clock: Clock
    timer: Timer
    rng: random.Random
    boot: int
    sync: KernelSync

    @classmethod
    def start(cls, config: ClockConfig) -> "Machine":
        """Return this computer with the clock that the configuration asks for."""
        sync = KernelSync()
        clock: Clock = MachineClock(time.time_ns, time.monotonic_ns, sync)
        if config.kind == "scaled":
            clock = ScaledClock(time.monotonic_ns, config.origin_ns, config.start_wall_ms, config.scale)
        rng = random.SystemRandom()
        return cls(clock, time.monotonic, rng, rng.getrandbits(BOOT_BITS), sync)  # noqa: TID251 - this is the entry point
