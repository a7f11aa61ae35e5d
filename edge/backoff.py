"""Back-off with full jitter: how long to wait before the next try. Not a timer.

Invariant: the wait is uniform between zero and a ceiling that doubles with every failure, so that a thousand gateways that lost one broker
do not come back together. (Marc Brooker, "Exponential Backoff And Jitter", 2015.)
"""

import random

__all__ = ["Backoff"]

DOUBLINGS_MAX = 16  # 2**16 times any base is above every ceiling in use; bounds the arithmetic


class Backoff:
    """Counts failures in a row. ``base_s`` is the first ceiling, ``cap_s`` the last."""

    __slots__ = ("_rng", "base_s", "cap_s", "failures")

    def __init__(self, rng: random.Random, *, base_s: float, cap_s: float) -> None:
        self._rng = rng
        self.base_s, self.cap_s = base_s, cap_s
        self.failures = 0

    def next_s(self) -> float:
        """Count a failure and return how long to wait."""
        ceiling = min(self.cap_s, self.base_s * 2 ** min(self.failures, DOUBLINGS_MAX))
        self.failures += 1
        return self._rng.uniform(0, ceiling)

    def reset(self) -> None:
        """Start from ``base_s`` again: it worked, and for long enough."""
        self.failures = 0
