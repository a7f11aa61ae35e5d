"""Slow twin of ``native/hampel``: sort the window, take the middle."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from native.shared import (
    COASTED,
    MISSING,
    OK,
    RANGE,
    SENTINEL,
    SPIKE,
    STALE,
    WINDOW_MAX,
    BoolArray,
    Float64Array,
    Int64Array,
    UInt8Array,
)

__all__ = ["Hampel", "Median"]

_MAD_TO_SIGMA = 1.4826
_SENTINELS_MAX = 8


class _Window:
    """What both filters share: the checks, the window, the output."""

    _always_median = False

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
        if lo > hi:
            raise ValueError(f"lo {lo} is above hi {hi}")
        if len(sentinels) > _SENTINELS_MAX:
            raise ValueError(f"{len(sentinels)} sentinels; at most {_SENTINELS_MAX}")
        if not (sigma >= 0 and gate > 0 and math.isfinite(sigma * gate)):
            raise ValueError("sigma must not be negative, gate must be positive, both finite")
        if not 1 <= window <= WINDOW_MAX:
            raise ValueError(f"window must be 1 to {WINDOW_MAX}")
        self._lo, self._hi, self._sigma, self._gate = float(lo), float(hi), float(sigma), float(gate)
        self._sentinels = tuple(float(code) for code in sentinels)
        self._samples: deque[float] = deque(maxlen=window)
        self._value, self._slope_s = math.nan, 0.0
        self._last_ms: int | None = None
        self._counts = [0] * 8

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples got each quality code, by code."""
        return tuple(self._counts)

    def update(self, t_ms: int, code: float | None) -> tuple[float, float, int]:
        """One sample in, (value, slope per second, quality) out."""
        quality = self._step(int(t_ms), math.nan if code is None else float(code))
        self._counts[quality] += 1
        return self._value, self._slope_s, quality

    def batch(self, ts_ms: Int64Array, codes: Int64Array, valid: BoolArray | None = None) -> tuple[Float64Array, Float64Array, UInt8Array]:
        """``update`` over arrays."""
        if codes.shape != ts_ms.shape or (valid is not None and valid.shape != ts_ms.shape):
            raise ValueError("ts_ms, codes and valid must have one length")
        rows = [
            self.update(t_ms, code if good else None)
            for t_ms, code, good in zip(
                ts_ms.tolist(), codes.tolist(), [True] * len(ts_ms) if valid is None else valid.tolist(), strict=True
            )
        ]
        values, slopes, quality = zip(*rows, strict=True) if rows else ((), (), ())
        return np.array(values, np.float64), np.array(slopes, np.float64), np.array(quality, np.uint8)

    def _step(self, t_ms: int, code: float) -> int:
        if self._last_ms is not None and t_ms <= self._last_ms:
            return STALE
        if math.isnan(code):
            return COASTED if self._samples else MISSING
        if code in self._sentinels:
            return SENTINEL
        if not self._lo <= code <= self._hi:
            return RANGE
        self._samples.append(code)
        middle = _median(sorted(self._samples))
        spike = self._is_spike(code, middle)
        value = middle if spike or self._always_median else code
        if self._last_ms is not None:
            self._slope_s = (value - self._value) * 1000.0 / (t_ms - self._last_ms)
        self._value, self._last_ms = value, t_ms
        return SPIKE if spike else OK

    def _is_spike(self, code: float, middle: float) -> bool:
        distance = abs(code - middle)
        if distance <= self._gate * self._sigma:
            return False
        spread = _MAD_TO_SIGMA * _median(sorted(abs(value - middle) for value in self._samples))
        return distance > self._gate * max(spread, self._sigma)


class Hampel(_Window):
    """The sample itself, or the window's median when the sample is an outlier; the contract is in ``native/hampel.pyi``."""


class Median(_Window):
    """The window's median; the contract is in ``native/hampel.pyi``."""

    _always_median = True


def _median(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
