# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Streaming conditioner of one channel: range and sentinel check, innovation-gated local-linear tracker, coasting, re-acquisition.

Not a smoother that looks ahead: every output depends on the past only. Invariant: ``batch`` and ``update`` give the same bits, and
so does the twin in ``native/reference/smooth.py``; the order of every floating-point operation is part of the contract.
"""

import struct

import numpy as np

from libc.math cimport NAN, fabs, isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t

from native.crc32c import crc32c
from native.shared import DecodeError

__all__ = ["COAST_STEPS_MAX", "INNOVATIONS_MIN", "MAD_TO_SIGMA", "SENTINELS_MAX", "Smoother"]

cdef enum:
    _OK = 0
    _MISSING = 1
    _SENTINEL = 2
    _RANGE = 3
    _SPIKE = 4
    _RATE = 5
    _STALE = 6
    _COASTED = 7
    _QUALITIES = 8
    _WINDOW_MAX = 63
    _INNOVATIONS_MIN = 5
    _COAST_STEPS_MAX = 64
    _SENTINELS_MAX = 8

include "ordered.pxi"

# Far from the ends of int64, so that distances of stamps stay numbers.
cdef int64_t _T_MS_MAX = 1 << 60
cdef double _SLOPE_DECAY_MISSED = 0.9
cdef double _SLOPE_DECAY_REFUSED = 0.95

MAD_TO_SIGMA = _MAD_TO_SIGMA
INNOVATIONS_MIN = _INNOVATIONS_MIN
COAST_STEPS_MAX = _COAST_STEPS_MAX
SENTINELS_MAX = _SENTINELS_MAX

_MAGIC = b"ISM1"
_PARAMETERS = struct.Struct("<4sB8d7d3q")
_DYNAMIC = struct.Struct("<BqqddqBddqqBBQ8Q")

cdef struct Tracker:
    double lo
    double hi
    double sigma
    double max_rate
    double alpha
    double beta
    double gate
    double reach            # gate * sigma
    double step_rate        # max_rate per period
    double sentinels[8]
    int64_t period_ms
    int64_t coast_ms
    int sentinel_count
    int window
    bint started
    int rejects
    int filled
    int at
    int64_t last_ms
    int64_t accepted_ms
    int64_t misses
    double level
    double slope
    double candidates[2]
    int64_t candidate_ms[2]
    uint64_t jumps
    uint64_t counts[8]
    double innovations[63]


cdef double robust_spread(const Tracker *tracker, double *middle) noexcept nogil:
    """Scaled median absolute deviation of the stored innovations; their median in ``middle``."""
    cdef double ordered[63]
    cdef double deviations[63]
    cdef int count = tracker.filled
    cdef int i, low, high
    cdef double left, right
    for i in range(count):
        ordered[i] = tracker.innovations[i]
    sort_ascending(ordered, count)
    middle[0] = median_of(ordered, count)
    # Deviations grow outwards from the middle of the sorted values: a merge of two sorted runs, no second sort.
    low = (count - 1) // 2
    high = low + 1
    for i in range(count // 2 + 1):
        left = middle[0] - ordered[low] if low >= 0 else 0.0
        right = ordered[high] - middle[0] if high < count else 0.0
        if high >= count or (low >= 0 and left <= right):
            deviations[i] = fabs(left)
            low -= 1
        else:
            deviations[i] = fabs(right)
            high += 1
    return _MAD_TO_SIGMA * median_of(deviations, count)


cdef inline bint lost(const Tracker *tracker) noexcept nogil:
    return tracker.misses * tracker.period_ms > tracker.coast_ms


cdef inline int refusal(const Tracker *tracker, double code) noexcept nogil:
    cdef int i
    if code != code:
        return _MISSING
    for i in range(tracker.sentinel_count):
        if code == tracker.sentinels[i]:
            return _SENTINEL
    return _OK if tracker.lo <= code <= tracker.hi else _RANGE


cdef double coast(Tracker *tracker, int64_t elapsed_ms) noexcept nogil:
    """Extrapolate over whole steps without a row; returns what is left of the last one, in steps."""
    cdef int64_t missed = (elapsed_ms + tracker.period_ms // 2) // tracker.period_ms - 1
    cdef int64_t _step
    if missed <= 0:
        return <double>elapsed_ms / <double>tracker.period_ms
    for _step in range(missed if missed < _COAST_STEPS_MAX else _COAST_STEPS_MAX):
        tracker.slope *= _SLOPE_DECAY_MISSED
        tracker.level += tracker.slope
    tracker.misses += missed
    return <double>(elapsed_ms - missed * tracker.period_ms) / <double>tracker.period_ms


cdef void restart(Tracker *tracker, int64_t t_ms, double code) noexcept nogil:
    tracker.started = True
    tracker.last_ms = t_ms
    tracker.accepted_ms = t_ms
    tracker.level = code
    tracker.slope = 0.0
    tracker.misses = 0
    tracker.rejects = 0
    tracker.filled = 0
    tracker.at = 0


cdef bint plausible(const Tracker *tracker, double innovation) noexcept nogil:
    # Over a gap the truth may have moved at half the physical rate either way.
    cdef double drift = <double>tracker.misses * tracker.step_rate * 0.5
    cdef double middle, spread
    # The sensor's own noise needs no statistics: this line decides nearly every sample.
    if fabs(innovation) <= tracker.reach + drift:
        return True
    if tracker.filled < _INNOVATIONS_MIN:
        return False
    spread = robust_spread(tracker, &middle)
    if spread < tracker.sigma:
        spread = tracker.sigma
    return fabs(innovation - middle) <= tracker.gate * spread + drift


cdef bint agreed(Tracker *tracker, int64_t t_ms, double code) noexcept nogil:
    """Three refused samples in a row that agree with each other are the truth."""
    cdef double first, second, slack, near, far, slope_s
    if tracker.rejects and t_ms - tracker.candidate_ms[0] > tracker.coast_ms:
        tracker.rejects = 0
    if tracker.rejects < 2:
        tracker.candidates[tracker.rejects] = code
        tracker.candidate_ms[tracker.rejects] = t_ms
        tracker.rejects += 1
        return False
    first = tracker.candidates[0]
    second = tracker.candidates[1]
    slack = 2.0 * tracker.gate * tracker.sigma
    near = slack + 2.0 * tracker.max_rate * <double>(tracker.candidate_ms[1] - tracker.candidate_ms[0]) / 1000.0
    far = slack + 2.0 * tracker.max_rate * <double>(t_ms - tracker.candidate_ms[1]) / 1000.0
    if fabs(second - first) < near and fabs(code - second) < far:
        slope_s = (code - first) * 1000.0 / <double>(t_ms - tracker.candidate_ms[0])
        restart(tracker, t_ms, code)
        tracker.slope = slope_s * <double>tracker.period_ms / 1000.0 if fabs(slope_s) <= tracker.max_rate else 0.0
        tracker.jumps += 1
        return True
    tracker.candidates[0] = second
    tracker.candidates[1] = code
    tracker.candidate_ms[0] = tracker.candidate_ms[1]
    tracker.candidate_ms[1] = t_ms
    return False


cdef inline int track(Tracker *tracker, int64_t t_ms, double code, double step) noexcept nogil:
    cdef double expected = tracker.level + tracker.slope * step
    cdef double innovation = code - expected
    cdef bint accepted = plausible(tracker, innovation)
    cdef double reach
    cdef bint too_fast
    tracker.innovations[tracker.at] = innovation
    tracker.at = 0 if tracker.at + 1 == tracker.window else tracker.at + 1
    tracker.filled += tracker.filled < tracker.window
    if accepted:
        tracker.rejects = 0
        tracker.misses = 0
        tracker.accepted_ms = t_ms
        tracker.level = expected + tracker.alpha * innovation
        tracker.slope += tracker.beta * innovation
        return _OK
    if agreed(tracker, t_ms, code):
        return _OK
    reach = tracker.reach + tracker.max_rate * <double>(t_ms - tracker.accepted_ms) / 1000.0
    too_fast = fabs(innovation) > reach
    tracker.level = expected
    tracker.slope *= _SLOPE_DECAY_REFUSED
    return _RATE if too_fast else _SPIKE


cdef inline int advance(Tracker *tracker, int64_t t_ms, double code) noexcept nogil:
    cdef double step = 1.0
    cdef int refused
    if tracker.started:
        if t_ms <= tracker.last_ms:
            return _STALE
        step = 1.0 if t_ms - tracker.last_ms == tracker.period_ms else coast(tracker, t_ms - tracker.last_ms)
        tracker.last_ms = t_ms
    refused = refusal(tracker, code)
    if refused:
        if not tracker.started:
            return refused
        tracker.slope *= _SLOPE_DECAY_MISSED
        tracker.level += tracker.slope * step
        tracker.misses += 1
        if refused != _MISSING:
            return refused
        return _MISSING if lost(tracker) else _COASTED
    if not tracker.started or lost(tracker):
        restart(tracker, t_ms, code)
        return _OK
    return track(tracker, t_ms, code, step)


cdef class Smoother:
    """Innovation-gated local-linear tracker of one channel; the contract is in the stub."""

    cdef Tracker tracker

    def __init__(
        self,
        *,
        double lo,
        double hi,
        sentinels=(),
        double sigma,
        double max_rate,
        double alpha=0.4375,
        double beta=0.0625,
        double gate=4.0,
        int window=15,
        int64_t period_ms=1000,
        int64_t coast_ms=30_000,
    ):
        cdef int i
        cdef Tracker *tracker = &self.tracker
        if not lo <= hi:
            raise ValueError(f"lo {lo} is above hi {hi}")
        if len(sentinels) > _SENTINELS_MAX:
            raise ValueError(f"{len(sentinels)} sentinels; at most {SENTINELS_MAX}")
        if not (sigma > 0 and max_rate >= 0 and gate > 0 and isfinite(sigma * max_rate * gate)):
            raise ValueError("sigma and gate must be positive, max_rate must not be negative, all finite")
        if not (0 < alpha <= 1 and 0 <= beta <= 1):
            raise ValueError("alpha must be in (0, 1], beta in [0, 1]")
        if not _INNOVATIONS_MIN <= window <= _WINDOW_MAX:
            raise ValueError(f"window must be {INNOVATIONS_MIN} to {_WINDOW_MAX}")
        if period_ms <= 0 or coast_ms < 0:
            raise ValueError("period_ms must be positive and coast_ms not negative")
        tracker.lo, tracker.hi = lo, hi
        tracker.sentinel_count = len(sentinels)
        for i in range(tracker.sentinel_count):
            tracker.sentinels[i] = sentinels[i]
        tracker.sigma, tracker.max_rate = sigma, max_rate
        tracker.alpha, tracker.beta, tracker.gate = alpha, beta, gate
        tracker.reach = gate * sigma
        tracker.step_rate = max_rate * <double>period_ms / 1000.0
        tracker.window, tracker.period_ms, tracker.coast_ms = window, period_ms, coast_ms

    @property
    def counts(self):
        return tuple([self.tracker.counts[i] for i in range(_QUALITIES)])

    @property
    def jumps(self):
        return self.tracker.jumps

    def update(self, int64_t t_ms, code):
        """One sample in, (value, slope per second, quality) out."""
        cdef double number = NAN if code is None else <double>code
        cdef int quality
        if not -_T_MS_MAX <= t_ms <= _T_MS_MAX:
            raise ValueError(f"time stamp {t_ms} ms is not a time")
        quality = advance(&self.tracker, t_ms, number)
        self.tracker.counts[quality] += 1
        if quality == _MISSING or not self.tracker.started:
            return NAN, 0.0, quality
        return self.tracker.level, self.tracker.slope * 1000.0 / <double>self.tracker.period_ms, quality

    def batch(self, const int64_t[::1] ts_ms not None, const int64_t[::1] codes not None, valid=None):
        """``update`` over arrays."""
        cdef Py_ssize_t rows = ts_ms.shape[0]
        cdef Py_ssize_t i
        cdef int quality
        cdef const uint8_t[::1] good
        cdef const uint8_t *good_at = NULL
        if codes.shape[0] != rows:
            raise ValueError("ts_ms, codes and valid must have one length")
        if valid is not None:
            good = valid.view("uint8")
            if good.shape[0] != rows:
                raise ValueError("ts_ms, codes and valid must have one length")
            if rows:
                good_at = &good[0]
        for i in range(rows):
            if not -_T_MS_MAX <= ts_ms[i] <= _T_MS_MAX:
                raise ValueError(f"time stamp {ts_ms[i]} ms is not a time")
        values_array = np.empty(rows, np.float64)
        slopes_array = np.empty(rows, np.float64)
        quality_array = np.empty(rows, np.uint8)
        cdef double[::1] values = values_array
        cdef double[::1] slopes = slopes_array
        cdef uint8_t[::1] qualities = quality_array
        cdef Tracker *tracker = &self.tracker
        cdef double period = <double>tracker.period_ms
        with nogil:
            for i in range(rows):
                quality = advance(tracker, ts_ms[i], <double>codes[i] if good_at == NULL or good_at[i] else NAN)
                tracker.counts[quality] += 1
                if quality == _MISSING or not tracker.started:
                    values[i] = NAN
                    slopes[i] = 0.0
                else:
                    values[i] = tracker.level
                    slopes[i] = tracker.slope * 1000.0 / period
                qualities[i] = <uint8_t>quality
        return values_array, slopes_array, quality_array

    def state(self):
        """Everything needed to go on after a restart, with a checksum."""
        cdef Tracker *tracker = &self.tracker
        cdef int i
        sentinels = [tracker.sentinels[i] if i < tracker.sentinel_count else 0.0 for i in range(_SENTINELS_MAX)]
        body = _PARAMETERS.pack(
            _MAGIC, tracker.sentinel_count, *sentinels,
            tracker.lo, tracker.hi, tracker.sigma, tracker.max_rate, tracker.alpha, tracker.beta, tracker.gate,
            tracker.window, tracker.period_ms, tracker.coast_ms,
        )
        body += _DYNAMIC.pack(
            tracker.started, tracker.last_ms, tracker.accepted_ms, tracker.level, tracker.slope, tracker.misses, tracker.rejects,
            tracker.candidates[0], tracker.candidates[1], tracker.candidate_ms[0], tracker.candidate_ms[1],
            tracker.filled, tracker.at, tracker.jumps, *self.counts,
        )
        body += struct.pack(f"<{tracker.window}d", *[tracker.innovations[i] for i in range(tracker.window)])
        return body + struct.pack("<I", crc32c(body))

    @classmethod
    def restore(cls, bytes data not None):
        """Rebuild from ``state()``; DecodeError for anything else."""
        if len(data) < _PARAMETERS.size + _DYNAMIC.size + 4:
            raise DecodeError("truncated", f"{len(data)} bytes of smoother state")
        if data[:4] != _MAGIC:
            raise DecodeError("bad_magic", "not a smoother state")
        if crc32c(data[: len(data) - 4]) != int.from_bytes(data[len(data) - 4 :], "little"):
            raise DecodeError("bad_crc", "smoother state")
        _, count, *numbers = _PARAMETERS.unpack_from(data)
        window, period_ms, coast_ms = numbers[15:]
        if count > _SENTINELS_MAX or len(data) != _PARAMETERS.size + _DYNAMIC.size + 8 * window + 4:
            raise DecodeError("bad_length", "smoother state")
        names = ("lo", "hi", "sigma", "max_rate", "alpha", "beta", "gate")
        try:
            self = cls(
                sentinels=numbers[:count], window=window, period_ms=period_ms, coast_ms=coast_ms, **dict(zip(names, numbers[8:15]))
            )
        except ValueError as error:
            raise DecodeError("bad_parameter", str(error)) from error
        (<Smoother>self)._load(_DYNAMIC.unpack_from(data, _PARAMETERS.size))
        (<Smoother>self)._load_innovations(struct.unpack_from(f"<{window}d", data, _PARAMETERS.size + _DYNAMIC.size))
        return self

    cdef _load(self, tuple numbers):
        cdef Tracker *tracker = &self.tracker
        cdef int i
        tracker.started = bool(numbers[0])
        tracker.last_ms, tracker.accepted_ms, tracker.level, tracker.slope, tracker.misses = numbers[1:6]
        if numbers[6] > 2 or numbers[11] > tracker.window or numbers[12] >= tracker.window:
            raise DecodeError("bad_parameter", "smoother state")
        tracker.rejects, tracker.filled, tracker.at, tracker.jumps = numbers[6], numbers[11], numbers[12], numbers[13]
        tracker.candidates[0], tracker.candidates[1] = numbers[7:9]
        tracker.candidate_ms[0], tracker.candidate_ms[1] = numbers[9:11]
        for i in range(_QUALITIES):
            tracker.counts[i] = numbers[14 + i]

    cdef _load_innovations(self, tuple innovations):
        cdef int i
        for i in range(self.tracker.window):
            self.tracker.innovations[i] = innovations[i]
