"""Streaming conditioner of one channel: range and sentinel check, gated local-linear tracker, coasting, re-acquisition."""

from collections.abc import Sequence
from typing import Self

from native.shared import BoolArray, Float64Array, Int64Array, UInt8Array

__all__ = ["COAST_STEPS_MAX", "INNOVATIONS_MIN", "MAD_TO_SIGMA", "SENTINELS_MAX", "Smoother"]

COAST_STEPS_MAX: int
INNOVATIONS_MIN: int
MAD_TO_SIGMA: float
SENTINELS_MAX: int

class Smoother:
    """Innovation-gated local-linear (alpha-beta) tracker of one channel.

    Units are codes and codes per second. A sample is refused when it is a sentinel, outside ``lo..hi``, or further than
    ``gate`` times max(robust sigma of the last ``window`` innovations, ``sigma``) from the prediction; three refused samples
    in a row that agree with each other are believed and the tracker jumps to them. Over a gap the value coasts on a decaying
    slope for ``coast_ms``, after which the next good sample starts afresh. A refused sample never changes an alarm by itself:
    the caller still has the raw code.
    """

    def __init__(
        self,
        *,
        lo: int,
        hi: int,
        sentinels: Sequence[int] = (),
        sigma: float,
        max_rate: float,
        alpha: float = 0.4375,
        beta: float = 0.0625,
        gate: float = 4.0,
        window: int = 15,
        period_ms: int = 1000,
        coast_ms: int = 30_000,
    ) -> None:
        """ValueError when a parameter is outside its range."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples got each quality code, indexed by the code."""

    @property
    def jumps(self) -> int:
        """How often three refused samples agreed and were believed."""

    def update(self, t_ms: int, code: float | None) -> tuple[float, float, int]:
        """One sample in; (value in codes, slope in codes per second, quality) out.

        ``None`` or NaN is a missing sample: COASTED while the value is extrapolated, MISSING (value NaN) when there is nothing
        to extrapolate from. A refused sample returns its reason and the coasted value (NaN before the first good sample). A time
        stamp that does not advance returns STALE and changes nothing.
        """

    def batch(self, ts_ms: Int64Array, codes: Int64Array, valid: BoolArray | None = None) -> tuple[Float64Array, Float64Array, UInt8Array]:
        """``update`` for every row, with identical results: (values, slopes, quality)."""

    def state(self) -> bytes:
        """Everything needed to go on after a restart, with a checksum; the same bytes from both twins."""

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Rebuild from ``state()``; DecodeError for anything else."""
