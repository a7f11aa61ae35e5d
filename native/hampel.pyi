"""Causal Hampel filter and causal running median, the simple alternatives to ``smooth.Smoother``."""

from collections.abc import Sequence

from native.shared import BoolArray, Float64Array, Int64Array, UInt8Array

__all__ = ["Hampel", "Median"]

class _Window:
    def __init__(
        self,
        *,
        lo: int,
        hi: int,
        sentinels: Sequence[int] = (),
        sigma: float = 0.0,
        gate: float = 3.0,
        window: int = 7,
    ) -> None:
        """ValueError when a parameter is outside its range."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples got each quality code, indexed by the code."""

    def update(self, t_ms: int, code: float | None) -> tuple[float, float, int]:
        """One sample in; (value in codes, slope in codes per second, quality) out.

        The slope is that of the last two values. A missing or refused sample repeats the last value; before the first good
        sample the value is NaN. A time stamp that does not advance returns STALE and changes nothing.
        """

    def batch(self, ts_ms: Int64Array, codes: Int64Array, valid: BoolArray | None = None) -> tuple[Float64Array, Float64Array, UInt8Array]:
        """``update`` for every row, with identical results."""

class Hampel(_Window):
    """The sample itself, or the median of the last ``window`` samples when it is further than ``gate`` robust sigmas from it (SPIKE)."""

class Median(_Window):
    """The median of the last ``window`` samples; SPIKE marks what a Hampel filter would have replaced."""
