"""Slow twin of ``native/smooth``: the same arithmetic, in the same order, in plain Python floats."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from native.reference.crc32c import crc32c
from native.shared import (
    COASTED,
    MISSING,
    OK,
    RANGE,
    RATE,
    SENTINEL,
    SPIKE,
    STALE,
    WINDOW_MAX,
    BoolArray,
    DecodeError,
    Float64Array,
    Int64Array,
    UInt8Array,
)

__all__ = ["COAST_STEPS_MAX", "INNOVATIONS_MIN", "MAD_TO_SIGMA", "SENTINELS_MAX", "Smoother"]

MAD_TO_SIGMA = 1.4826  # makes the median absolute deviation of a Gaussian its standard deviation
INNOVATIONS_MIN = 5  # fewer say nothing about their spread
COAST_STEPS_MAX = 64  # after so many steps the decayed slope is below a thousandth
SENTINELS_MAX = 8  # no sensor in the profiles has more than three
SLOPE_DECAY_MISSED = 0.9  # a step without a sample
SLOPE_DECAY_REFUSED = 0.95  # a step whose sample was refused

_T_MS_MAX = 1 << 60  # as in the compiled twin, whose integers have an end
_MAGIC = b"ISM1"
_PARAMETERS = struct.Struct("<4sB8d7d3q")
_DYNAMIC = struct.Struct("<BqqddqBddqqBBQ8Q")


class Smoother:
    """Innovation-gated local-linear tracker of one channel; the contract is in ``native/smooth.pyi``."""

    __slots__ = (
        "_accepted_ms",
        "_alpha",
        "_at",
        "_beta",
        "_candidate_ms",
        "_candidates",
        "_coast_ms",
        "_counts",
        "_filled",
        "_gate",
        "_hi",
        "_innovations",
        "_jumps",
        "_last_ms",
        "_level",
        "_lo",
        "_max_rate",
        "_misses",
        "_period_ms",
        "_rejects",
        "_sentinels",
        "_sigma",
        "_slope",
        "_started",
        "_window",
    )

    def __init__(  # noqa: PLR0913 - keyword-only parameters of one filter
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
        if lo > hi:
            raise ValueError(f"lo {lo} is above hi {hi}")
        if len(sentinels) > SENTINELS_MAX:
            raise ValueError(f"{len(sentinels)} sentinels; at most {SENTINELS_MAX}")
        if not (sigma > 0 and max_rate >= 0 and gate > 0 and math.isfinite(sigma * max_rate * gate)):
            raise ValueError("sigma and gate must be positive, max_rate must not be negative, all finite")
        if not (0 < alpha <= 1 and 0 <= beta <= 1):
            raise ValueError("alpha must be in (0, 1], beta in [0, 1]")
        if not INNOVATIONS_MIN <= window <= WINDOW_MAX:
            raise ValueError(f"window must be {INNOVATIONS_MIN} to {WINDOW_MAX}")
        if period_ms <= 0 or coast_ms < 0:
            raise ValueError("period_ms must be positive and coast_ms not negative")
        self._lo, self._hi = float(lo), float(hi)
        self._sentinels = tuple(float(code) for code in sentinels)
        self._sigma, self._max_rate = float(sigma), float(max_rate)
        self._alpha, self._beta, self._gate = float(alpha), float(beta), float(gate)
        self._window, self._period_ms, self._coast_ms = int(window), int(period_ms), int(coast_ms)
        self._started = False
        self._last_ms = self._accepted_ms = 0
        self._level = self._slope = 0.0
        self._misses = self._rejects = 0
        self._candidates = [0.0, 0.0]
        self._candidate_ms = [0, 0]
        self._innovations = [0.0] * self._window
        self._filled = self._at = self._jumps = 0
        self._counts = [0] * 8

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples got each quality code, by code."""
        return tuple(self._counts)

    @property
    def jumps(self) -> int:
        """How often three refused samples agreed and were believed."""
        return self._jumps

    def update(self, t_ms: int, code: float | None) -> tuple[float, float, int]:
        """One sample in, (value, slope per second, quality) out."""
        if abs(t_ms) > _T_MS_MAX:
            raise ValueError(f"time stamp {t_ms} ms is not a time")
        quality = self._step(int(t_ms), math.nan if code is None else float(code))
        self._counts[quality] += 1
        if quality == MISSING or not self._started:
            return math.nan, 0.0, quality
        return self._level, self._slope * 1000.0 / self._period_ms, quality

    def batch(self, ts_ms: Int64Array, codes: Int64Array, valid: BoolArray | None = None) -> tuple[Float64Array, Float64Array, UInt8Array]:
        """``update`` over arrays."""
        if codes.shape != ts_ms.shape or (valid is not None and valid.shape != ts_ms.shape):
            raise ValueError("ts_ms, codes and valid must have one length")
        if len(ts_ms) and (int(ts_ms.max()) > _T_MS_MAX or int(ts_ms.min()) < -_T_MS_MAX):
            raise ValueError("a time stamp is not a time")
        rows = [
            self.update(t_ms, code if good else None)
            for t_ms, code, good in zip(
                ts_ms.tolist(), codes.tolist(), [True] * len(ts_ms) if valid is None else valid.tolist(), strict=True
            )
        ]
        values, slopes, quality = zip(*rows, strict=True) if rows else ((), (), ())
        return np.array(values, np.float64), np.array(slopes, np.float64), np.array(quality, np.uint8)

    def _step(self, t_ms: int, code: float) -> int:
        step = 1.0
        if self._started:
            if t_ms <= self._last_ms:
                return STALE
            step = self._coast(t_ms - self._last_ms)
            self._last_ms = t_ms
        refused = self._refusal(code)
        if refused:
            if not self._started:
                return refused
            self._slope *= SLOPE_DECAY_MISSED
            self._level += self._slope * step
            self._misses += 1
            if refused != MISSING:
                return refused
            return MISSING if self._lost() else COASTED
        if not self._started or self._lost():
            self._restart(t_ms, code)
            return OK
        return self._track(t_ms, code, step)

    def _coast(self, elapsed_ms: int) -> float:
        """Extrapolate over whole steps without a row; returns what is left of the last one, in steps."""
        missed = (elapsed_ms + self._period_ms // 2) // self._period_ms - 1
        if missed <= 0:
            return elapsed_ms / self._period_ms
        for _ in range(min(missed, COAST_STEPS_MAX)):
            self._slope *= SLOPE_DECAY_MISSED
            self._level += self._slope
        self._misses += missed
        return (elapsed_ms - missed * self._period_ms) / self._period_ms

    def _refusal(self, code: float) -> int:
        if math.isnan(code):
            return MISSING
        if code in self._sentinels:
            return SENTINEL
        return OK if self._lo <= code <= self._hi else RANGE

    def _lost(self) -> bool:
        return self._misses * self._period_ms > self._coast_ms

    def _restart(self, t_ms: int, code: float) -> None:
        self._started = True
        self._last_ms = self._accepted_ms = t_ms
        self._level, self._slope = code, 0.0
        self._misses = self._rejects = self._filled = self._at = 0

    def _track(self, t_ms: int, code: float, step: float) -> int:
        expected = self._level + self._slope * step
        innovation = code - expected
        accepted = self._plausible(innovation)
        self._innovations[self._at] = innovation
        self._at = 0 if self._at + 1 == self._window else self._at + 1
        self._filled = min(self._filled + 1, self._window)
        if accepted:
            self._rejects = self._misses = 0
            self._accepted_ms = t_ms
            self._level = expected + self._alpha * innovation
            self._slope += self._beta * innovation
            return OK
        if self._agreed(t_ms, code):
            return OK
        reach = self._gate * self._sigma + self._max_rate * (t_ms - self._accepted_ms) / 1000.0
        too_fast = abs(innovation) > reach
        self._level = expected
        self._slope *= SLOPE_DECAY_REFUSED
        return RATE if too_fast else SPIKE

    def _plausible(self, innovation: float) -> bool:
        # Over a gap the truth may have moved at half the physical rate either way.
        drift = self._misses * (self._max_rate * self._period_ms / 1000.0) * 0.5
        if abs(innovation) <= self._gate * self._sigma + drift:
            return True
        if self._filled < INNOVATIONS_MIN:
            return False
        ordered = sorted(self._innovations[: self._filled])
        middle = _median(ordered)
        spread = MAD_TO_SIGMA * _median(sorted(abs(value - middle) for value in ordered))
        return abs(innovation - middle) <= self._gate * max(spread, self._sigma) + drift

    def _agreed(self, t_ms: int, code: float) -> bool:
        """Three refused samples in a row that agree with each other are the truth."""
        if self._rejects and t_ms - self._candidate_ms[0] > self._coast_ms:
            self._rejects = 0
        if self._rejects < 2:
            self._candidates[self._rejects] = code
            self._candidate_ms[self._rejects] = t_ms
            self._rejects += 1
            return False
        first, second = self._candidates
        slack = 2.0 * self._gate * self._sigma
        near = slack + 2.0 * self._max_rate * (self._candidate_ms[1] - self._candidate_ms[0]) / 1000.0
        far = slack + 2.0 * self._max_rate * (t_ms - self._candidate_ms[1]) / 1000.0
        if abs(second - first) < near and abs(code - second) < far:
            slope_s = (code - first) * 1000.0 / (t_ms - self._candidate_ms[0])
            self._restart(t_ms, code)
            self._slope = slope_s * self._period_ms / 1000.0 if abs(slope_s) <= self._max_rate else 0.0
            self._jumps += 1
            return True
        self._candidates = [second, code]
        self._candidate_ms = [self._candidate_ms[1], t_ms]
        return False

    def state(self) -> bytes:
        """Everything needed to go on after a restart, with a checksum."""
        sentinels = self._sentinels + (0.0,) * (SENTINELS_MAX - len(self._sentinels))
        body = _PARAMETERS.pack(
            _MAGIC,
            len(self._sentinels),
            *sentinels,
            self._lo,
            self._hi,
            self._sigma,
            self._max_rate,
            self._alpha,
            self._beta,
            self._gate,
            self._window,
            self._period_ms,
            self._coast_ms,
        )
        body += _DYNAMIC.pack(
            self._started,
            self._last_ms,
            self._accepted_ms,
            self._level,
            self._slope,
            self._misses,
            self._rejects,
            *self._candidates,
            *self._candidate_ms,
            self._filled,
            self._at,
            self._jumps,
            *self._counts,
        )
        body += struct.pack(f"<{self._window}d", *self._innovations)
        return body + struct.pack("<I", crc32c(body))

    @classmethod
    def restore(cls, data: bytes) -> Smoother:
        """Rebuild from ``state()``; DecodeError for anything else."""
        if len(data) < _PARAMETERS.size + _DYNAMIC.size + 4:
            raise DecodeError("truncated", f"{len(data)} bytes of smoother state")
        if data[:4] != _MAGIC:
            raise DecodeError("bad_magic", "not a smoother state")
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise DecodeError("bad_crc", "smoother state")
        _, count, *numbers = _PARAMETERS.unpack_from(data)
        window, period_ms, coast_ms = numbers[15:]
        if count > SENTINELS_MAX or len(data) != _PARAMETERS.size + _DYNAMIC.size + 8 * window + 4:
            raise DecodeError("bad_length", "smoother state")
        names = ("lo", "hi", "sigma", "max_rate", "alpha", "beta", "gate")
        try:
            self = cls(
                sentinels=numbers[:count],
                window=window,
                period_ms=period_ms,
                coast_ms=coast_ms,
                **dict(zip(names, numbers[8:15], strict=True)),
            )
        except ValueError as error:
            raise DecodeError("bad_parameter", str(error)) from error
        started, *rest = _DYNAMIC.unpack_from(data, _PARAMETERS.size)
        self._started = bool(started)
        self._last_ms, self._accepted_ms, self._level, self._slope, self._misses, self._rejects = rest[:6]
        self._candidates, self._candidate_ms = list(rest[6:8]), list(rest[8:10])
        self._filled, self._at, self._jumps = rest[10:13]
        self._counts = list(rest[13:])
        if self._rejects > 2 or self._filled > window or self._at >= window:
            raise DecodeError("bad_parameter", "smoother state")
        self._innovations = list(struct.unpack_from(f"<{window}d", data, _PARAMETERS.size + _DYNAMIC.size))
        return self


def _median(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
