# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""InfluxDB line protocol straight from a block's integers, and from float64 columns. Not a client: it makes bytes.

Invariant: the text of a field parses back to exactly the number that went in; a control character never gets out.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport fabs, isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from native.shared import DECIMALS_MAX as _DECIMALS_MAX
from native.shared import CHANNELS_MAX as _FIELDS_MAX

__all__ = ["encode_block", "encode_floats", "escape_field_key", "escape_measurement", "escape_tag"]

cdef extern from "shortest.h" nogil:
    char *shortest_double(char *out, double value)

cdef extern from *:
    """
    static inline int multiply_overflows(long long a, long long b, long long *product) { return __builtin_mul_overflow(a, b, product); }
    """
    bint multiply_overflows(long long, long long, long long *) nogil

cdef enum:
    NUMBER_BYTES = 32   # sign, 20 digits, point, leading zero, "i"; a shortest double needs at most 25
    STAMP_BYTES = 32
    SHORT_DECIMALS = 7  # decimals tried by multiplication before the general algorithm
    FULL_DOUBLES = 16   # values of a column that skip the trial after one that failed it
    COPY_BYTES = 16     # keys and prefix are copied in whole registers, so buffers have this much slack

include "digits.pxi"


cdef class _Layout:
    """Prefix and keys of one call, checked and joined: `` key=`` for the first field of a line, ``,key=`` for the rest."""

    cdef bytes keys
    cdef bytes prefix
    cdef const char *keys_at
    cdef const char *prefix_at
    cdef int count
    cdef Py_ssize_t at[256]
    cdef int decimals[256]
    cdef bint integer[256]
    cdef int64_t factor[256]
    cdef Py_ssize_t prefix_length
    cdef Py_ssize_t line_bytes

    def __cinit__(self, bytes prefix, field_names, Py_ssize_t channels):
        cdef Py_ssize_t i
        cdef bytes name
        _refuse_unsafe(prefix, 0)
        if len(field_names) != channels:
            raise ValueError(f"{len(field_names)} field names for {channels} columns")
        if not 1 <= channels <= _FIELDS_MAX:
            raise ValueError(f"{channels} columns; 1 to {_FIELDS_MAX} are possible")
        self.at[0] = 0
        for i in range(channels):
            name = field_names[i]
            _refuse_unsafe(name, 1)
            self.at[i + 1] = self.at[i] + PyBytes_GET_SIZE(name) + 2
            self.decimals[i] = 2
            self.integer[i] = False
            self.factor[i] = 1
        self.count = <int>channels
        self.keys = b"," + b"=,".join(field_names) + b"=" + b"\0" * COPY_BYTES
        self.prefix = prefix + b"\0" * COPY_BYTES
        self.keys_at = PyBytes_AS_STRING(self.keys)
        self.prefix_at = PyBytes_AS_STRING(self.prefix)
        self.prefix_length = PyBytes_GET_SIZE(prefix)
        self.line_bytes = self.prefix_length + self.at[channels] + channels * NUMBER_BYTES + STAMP_BYTES

    cdef set_numbers(self, decimals, ints, multipliers):
        cdef int i
        for name, given in (("decimals", decimals), ("ints", ints), ("multipliers", multipliers)):
            if given is not None and len(given) != self.count:
                raise ValueError(f"{len(given)} {name} for {self.count} columns")
        for i in range(self.count):
            self.decimals[i] = decimals[i]
            if not 0 <= self.decimals[i] <= _DECIMALS_MAX:
                raise ValueError(f"decimals must be 0 to {_DECIMALS_MAX}")
            if ints is not None and ints[i]:
                if self.decimals[i]:
                    raise ValueError("an integer field has no decimals")
                self.integer[i] = True
            if multipliers is not None:
                self.factor[i] = multipliers[i]


cdef _refuse_unsafe(bytes text, int key):
    """Refuse what would end the token early: control characters, a bare space, and in a key a bare comma or equals sign."""
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef Py_ssize_t i, length = PyBytes_GET_SIZE(text)
    cdef uint8_t byte, before = 0
    if length == 0:
        raise ValueError("empty prefix or field key")
    for i in range(length):
        byte = data[i]
        if byte < 32 or byte == 127:
            raise ValueError(f"control character {byte:#04x} in {text!r}")
        if before != 92 and (byte == 32 or (key and (byte == 44 or byte == 61))):
            raise ValueError(f"unescaped {chr(byte)!r} in {text!r}")
        before = byte
    if before == 92:
        raise ValueError(f"{text!r} ends with a backslash, which would escape what follows")
    if data[0] == 35 and not key:
        raise ValueError(f"{text!r} starts with '#': the line would be a comment")


cdef bint _nanoseconds(precision) except -1:
    if precision == "ns":
        return True
    if precision == "ms":
        return False
    raise ValueError(f"precision {precision!r}; 'ns' and 'ms' are possible")


cdef _check_stamps(const int64_t[::1] ts_ms, Py_ssize_t rows):
    cdef Py_ssize_t i
    if ts_ms.shape[0] != rows:
        raise ValueError(f"{ts_ms.shape[0]} time stamps for {rows} rows")
    for i in range(rows):
        if ts_ms[i] > STAMP_MS_MAX or ts_ms[i] < -STAMP_MS_MAX:
            raise ValueError(f"time stamp {ts_ms[i]} ms does not fit InfluxDB's range")


cdef Py_ssize_t _write_codes(
    char *out, _Layout layout, const int64_t *ts, const int64_t *cells, const uint8_t *valid, Py_ssize_t rows, bint nanoseconds
) noexcept nogil:
    """Lines into ``out``; returns their length, or -1 when a multiplied code leaves int64."""
    cdef char *at = out
    cdef char *first
    cdef const char *prefix = layout.prefix_at
    cdef const char *keys = layout.keys_at
    cdef int count = layout.count
    cdef int k
    cdef Py_ssize_t row
    cdef long long product
    for row in range(rows):
        first = put_copy(at, prefix, layout.prefix_length)
        at = first
        for k in range(count):
            if valid != NULL and not valid[k]:
                continue
            at = put_copy(at, keys + layout.at[k], layout.at[k + 1] - layout.at[k])
            product = cells[k]
            if layout.factor[k] != 1 and multiply_overflows(cells[k], layout.factor[k], &product):
                return -1
            at = put_decimal(at, product, layout.decimals[k])
            if layout.integer[k]:
                at[0] = 105
                at += 1
        cells += count
        if valid != NULL:
            valid += count
        if at == first:  # no field: not a line
            at = first - layout.prefix_length
            continue
        first[0] = 32
        at[0] = 32
        at = put_stamp(at + 1, ts[row], nanoseconds)
    return at - out


cdef Py_ssize_t _write_floats(
    char *out, _Layout layout, const int64_t *ts, const double *cells, Py_ssize_t rows, bint nanoseconds
) noexcept nogil:
    cdef char *at = out
    cdef char *first
    cdef const char *prefix = layout.prefix_at
    cdef const char *keys = layout.keys_at
    cdef int count = layout.count
    cdef int k
    cdef Py_ssize_t row
    for row in range(rows):
        first = put_copy(at, prefix, layout.prefix_length)
        at = first
        for k in range(count):
            if not isfinite(cells[k]):
                continue
            at = put_copy(at, keys + layout.at[k], layout.at[k + 1] - layout.at[k])
            at = put_float(at, cells[k], &layout.decimals[k])
        cells += count
        if at == first:
            at = first - layout.prefix_length
            continue
        first[0] = 32
        at[0] = 32
        at = put_stamp(at + 1, ts[row], nanoseconds)
    return at - out


def encode_block(
    bytes prefix not None,
    field_names,
    decimals,
    const int64_t[::1] ts_ms not None,
    const int64_t[:, ::1] columns not None,
    valid=None,
    *,
    ints=None,
    multipliers=None,
    precision="ns",
):
    """Line protocol of integer codes; see the stub for the contract."""
    cdef Py_ssize_t rows = columns.shape[0]
    cdef Py_ssize_t used
    cdef const uint8_t[:, ::1] mask
    cdef const uint8_t *mask_at = NULL
    cdef bint nanoseconds = _nanoseconds(precision)
    cdef _Layout layout = _Layout(prefix, field_names, columns.shape[1])
    layout.set_numbers(decimals, ints, multipliers)
    _check_stamps(ts_ms, rows)
    if rows == 0:
        return b""
    if valid is not None:
        mask = valid.view("uint8")
        if mask.shape[0] != rows or mask.shape[1] != columns.shape[1]:
            raise ValueError("valid must have the shape of columns")
        mask_at = &mask[0, 0]
    cdef char *out = <char *>PyMem_Malloc(rows * layout.line_bytes + COPY_BYTES)
    if out == NULL:
        raise MemoryError
    try:
        with nogil:
            used = _write_codes(out, layout, &ts_ms[0], &columns[0, 0], mask_at, rows, nanoseconds)
        if used < 0:
            raise ValueError("a code times its multiplier does not fit 64 bits")
        return PyBytes_FromStringAndSize(out, used)
    finally:
        PyMem_Free(out)


def encode_floats(
    bytes prefix not None,
    field_names,
    const int64_t[::1] ts_ms not None,
    const double[:, ::1] columns not None,
    *,
    precision="ns",
):
    """Line protocol of float64 columns; see the stub for the contract."""
    cdef Py_ssize_t rows = columns.shape[0]
    cdef Py_ssize_t used
    cdef bint nanoseconds = _nanoseconds(precision)
    cdef _Layout layout = _Layout(prefix, field_names, columns.shape[1])
    _check_stamps(ts_ms, rows)
    if rows == 0:
        return b""
    cdef char *out = <char *>PyMem_Malloc(rows * layout.line_bytes + COPY_BYTES)
    if out == NULL:
        raise MemoryError
    try:
        with nogil:
            used = _write_floats(out, layout, &ts_ms[0], &columns[0, 0], rows, nanoseconds)
        return PyBytes_FromStringAndSize(out, used)
    finally:
        PyMem_Free(out)


cdef str _escape(str text, str specials, str what):
    cdef Py_UCS4 character
    if not text:
        raise ValueError(f"empty {what}")
    for character in text:
        if character < 32 or 127 <= character < 160:
            raise ValueError(f"control character {<int>character:#04x} in {what} {text!r}")
    if text.endswith("\\"):
        raise ValueError(f"{what} {text!r} ends with a backslash, which would escape what follows")
    for special in specials:
        text = text.replace(special, "\\" + special)
    return text


def escape_measurement(str text not None):
    """Escape a measurement name."""
    if text.startswith("#"):
        raise ValueError(f"measurement {text!r} starts with '#': the line would be a comment")
    return _escape(text, ", ", "measurement").encode()


def escape_tag(str text not None):
    """Escape a tag key or a tag value."""
    return _escape(text, ",= ", "tag").encode()


def escape_field_key(str text not None):
    """Escape a field key."""
    if text == "time":
        raise ValueError("InfluxDB drops a field named 'time'")
    return _escape(text, ",= ", "field key").encode()
