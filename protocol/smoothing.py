"""Smoothing: the conditioner of one channel, set up from its profile. Not a kernel (``native.smooth`` is) and not a policy of either end.

Invariant: the gateway (live values, rules) and the cloud (smoothed series) build their trackers here, so both compute the same curve.
"""

from functools import cache

from native import smooth
from protocol.profile import Channel

__all__ = ["tracker"]

SIGMA_CODES_MIN = 0.5  # rounding to whole codes alone is a noise of about a third of a code; below half a code the gate would trip on it


def tracker(channel: Channel) -> smooth.Smoother | None:
    """Return a fresh tracker of ``channel`` in codes, or ``None`` for a discrete channel, whose codes must not be smoothed."""
    if channel.discrete:
        return None
    lo, hi, sentinels, sigma, max_rate = _parameters(channel)
    return smooth.Smoother(lo=lo, hi=hi, sentinels=sentinels, sigma=sigma, max_rate=max_rate)


@cache
def _parameters(channel: Channel) -> tuple[int, int, tuple[int, ...], float, float]:
    """A profile's bounds in codes: ``lo``, ``hi``, sentinels, noise, fastest change a second. Worked out once: channels never change."""
    step = channel.multiplier / 10**channel.decimals
    lo, hi = channel.code(channel.lo), channel.code(channel.hi)
    sentinels = tuple(channel.code(value) for value in channel.sentinels)
    # A profile without a bound believes any change inside the range within a second.
    max_rate = float(hi - lo) if channel.max_rate is None else channel.max_rate / step
    return lo, hi, sentinels, max(channel.sigma / step, SIGMA_CODES_MIN), max_rate
