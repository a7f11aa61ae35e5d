# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Causal Hampel filter and causal running median of one channel, the simple alternatives to ``smooth.Smoother``.

Not symmetric: only the past is looked at. Invariant: ``batch``, ``update`` and the twin in ``native/reference`` give the same bits.
"""

import numpy as np

from libc.math cimport NAN, fabs, isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t

__all__ = ["Hampel", "Median"]

cdef enum:
    _OK = 0
    _MISSING = 1
    _SENTINEL = 2
    _RANGE = 3
    _SPIKE = 4
    _STALE = 6
    _COASTED = 7
    _QUALITIES = 8
    _WINDOW_MAX = 63
    _SENTINELS_MAX = 8


include "ordered.pxi"

cdef struct Filter:
    double lo
    double hi
    double sigma
    double gate
    double reach            # gate * sigma
    double sentinels[8]
    int sentinel_count
    int window
    int filled
    int at
    bint always_median
    bint started
    int64_t last_ms
    double value
    double slope_s
    uint64_t counts[8]
    double samples[63]      # as they came
    double ordered[63]      # the same, sorted


cdef inline void push(Filter *state, double sample) noexcept nogil:
    """Put ``sample`` in the place of the oldest one, keeping the order with one directed shift."""
    cdef double *ordered = state.ordered
    cdef double oldest
    cdef int i
    if state.filled < state.window:
        i = state.filled
        state.filled += 1
    else:
        oldest = state.samples[state.at]
        i = 0
        while ordered[i] != oldest:
            i += 1
        while i + 1 < state.filled and ordered[i + 1] < sample:
            ordered[i] = ordered[i + 1]
            i += 1
    while i > 0 and ordered[i - 1] > sample:
        ordered[i] = ordered[i - 1]
        i -= 1
    ordered[i] = sample
    state.samples[state.at] = sample
    state.at = 0 if state.at + 1 == state.window else state.at + 1


cdef double spread_about(const Filter *state, double middle) noexcept nogil:
    """Scaled median absolute deviation: deviations grow outwards from the middle, so two sorted runs are merged."""
    cdef double deviations[63]
    cdef int count = state.filled
    cdef int low = (count - 1) // 2
    cdef int high = low + 1
    cdef int i
    cdef double left, right
    for i in range(count // 2 + 1):
        left = fabs(middle - state.ordered[low]) if low >= 0 else 0.0
        right = fabs(state.ordered[high] - middle) if high < count else 0.0
        if high >= count or (low >= 0 and left <= right):
            deviations[i] = left
            low -= 1
        else:
            deviations[i] = right
            high += 1
    return _MAD_TO_SIGMA * median_of(deviations, count)


cdef inline bint is_spike(const Filter *state, double code, double middle) noexcept nogil:
    cdef double distance = fabs(code - middle)
    cdef double spread
    if distance <= state.reach:
        return False
    spread = spread_about(state, middle)
    if spread < state.sigma:
        spread = state.sigma
    return distance > state.gate * spread


cdef inline int advance(Filter *state, int64_t t_ms, double code) noexcept nogil:
    cdef int i
    cdef double middle, value
    cdef bint spike
    if state.started and t_ms <= state.last_ms:
        return _STALE
    if code != code:
        return _COASTED if state.started else _MISSING
    for i in range(state.sentinel_count):
        if code == state.sentinels[i]:
            return _SENTINEL
    if not state.lo <= code <= state.hi:
        return _RANGE
    push(state, code)
    middle = median_of(state.ordered, state.filled)
    spike = is_spike(state, code, middle)
    value = middle if spike or state.always_median else code
    if state.started:
        state.slope_s = (value - state.value) * 1000.0 / <double>(t_ms - state.last_ms)
    state.value = value
    state.last_ms = t_ms
    state.started = True
    return _SPIKE if spike else _OK


cdef class _Window:
    cdef Filter state

    def __init__(self, *, double lo, double hi, sentinels=(), double sigma=0.0, double gate=3.0, int window=7):
        cdef int i
        cdef Filter *state = &self.state
        if not lo <= hi:
            raise ValueError(f"lo {lo} is above hi {hi}")
        if len(sentinels) > _SENTINELS_MAX:
            raise ValueError(f"{len(sentinels)} sentinels; at most {_SENTINELS_MAX}")
        if not (sigma >= 0 and gate > 0 and isfinite(sigma * gate)):
            raise ValueError("sigma must not be negative, gate must be positive, both finite")
        if not 1 <= window <= _WINDOW_MAX:
            raise ValueError(f"window must be 1 to {_WINDOW_MAX}")
        state.lo, state.hi, state.sigma, state.gate = lo, hi, sigma, gate
        state.reach = gate * sigma
        state.window = window
        state.value = NAN
        state.sentinel_count = len(sentinels)
        for i in range(state.sentinel_count):
            state.sentinels[i] = sentinels[i]

    @property
    def counts(self):
        return tuple([self.state.counts[i] for i in range(_QUALITIES)])

    def update(self, int64_t t_ms, code):
        """One sample in, (value, slope per second, quality) out."""
        cdef double number = NAN if code is None else <double>code
        cdef int quality = advance(&self.state, t_ms, number)
        self.state.counts[quality] += 1
        return self.state.value, self.state.slope_s, quality

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
        values_array = np.empty(rows, np.float64)
        slopes_array = np.empty(rows, np.float64)
        quality_array = np.empty(rows, np.uint8)
        cdef double[::1] values = values_array
        cdef double[::1] slopes = slopes_array
        cdef uint8_t[::1] qualities = quality_array
        cdef Filter *state = &self.state
        with nogil:
            for i in range(rows):
                quality = advance(state, ts_ms[i], <double>codes[i] if good_at == NULL or good_at[i] else NAN)
                state.counts[quality] += 1
                values[i] = state.value
                slopes[i] = state.slope_s
                qualities[i] = <uint8_t>quality
        return values_array, slopes_array, quality_array


cdef class Hampel(_Window):
    """The sample itself, or the window's median when the sample is an outlier."""


cdef class Median(_Window):
    """The window's median."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.state.always_median = True
