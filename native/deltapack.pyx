# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Block codec: rows of integer codes in, few bytes out. The shell: it checks what comes from Python and what comes from a wire.

Not a container: a block says nothing about streams, sequence numbers or machines. Invariant: decode(encode(x)) is x, or within the
bound for each cell; the twin in ``native/reference`` makes the same bytes. Format: ``docs/format-deltapack.md``.
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memset

from native.shared import CELLS_MAX, CHANNELS_MAX, ERROR_BOUND_MAX, ROWS_MAX, Block, DecodeError, FullBlock

__all__ = [
    "CELLS_MAX",
    "CHAIN_MAX",
    "CHANNELS_MAX",
    "ERROR_BOUND_MAX",
    "FORMAT_VERSION",
    "ROWS_MAX",
    "Block",
    "DecodeError",
    "Decoder",
    "Encoder",
    "FullBlock",
    "decode",
    "decode_full",
    "encode",
    "encode_bounded",
    "plan",
]

FORMAT_VERSION = 1
CHAIN_MAX = 255  # dependent blocks behind one key: the header counts them in a byte

cdef extern from "block.h" nogil:
    ctypedef struct Channel:
        pass

    ctypedef struct Session:
        Channel *channel
        int channels
        int chain
        int64_t last_ms

    ctypedef struct Job:
        const int64_t *ts_ms
        const int64_t *cells
        const int64_t *bounds
        const uint8_t *valid
        const uint8_t *reasons
        const uint8_t *plan
        uint8_t *plan_made
        Session *session
        int rows
        int channels
        int kind

    enum:
        PLAN_BYTES
        KIND_STANDALONE
        KIND_KEY
        KIND_DEPENDENT
        DP_OK
        DP_NO_MEMORY

    int encode_job(Job *job, uint8_t **out, size_t *length)
    int plan_is_valid(const uint8_t *plan)
    void model_init()
    void score_init()
    void crc32c_init()

cdef extern from "decode.h" nogil:
    ctypedef struct Reader:
        int kind
        int rows
        int channels
        int masks
        int reasons
        Channel *channel
        int64_t *ts_ms
        int64_t *cells
        uint8_t *valid
        uint8_t *reason

    int reader_open(Reader *reader, const uint8_t *data, size_t length)
    int decode_begin(Reader *reader, const Session *session)
    int decode_body(Reader *reader, Session *session)

crc32c_init()
model_init()
score_init()

# By number, as in decode.h.
_REASONS = (
    "",
    "truncated",
    "bad_magic",
    "bad_version",
    "bad_crc",
    "bad_count",
    "too_long",
    "missing_key",
    "bad_header",
    "bad_value",
    "bad_end",
)


cdef class _Rows:
    """Checked input of one call; keeps the buffers alive while C reads them."""

    cdef const int64_t[::1] ts_ms
    cdef const int64_t[:, ::1] columns
    cdef const uint8_t[:, ::1] valid
    cdef const uint8_t[:, ::1] reasons
    cdef const int64_t[::1] bounds
    cdef bytes plan
    cdef Job job

    def __cinit__(self, ts_ms, columns, valid, reasons, max_error, bytes params):
        memset(&self.job, 0, sizeof(Job))
        self.ts_ms = _contiguous(ts_ms)
        self.columns = _contiguous(columns)
        cdef Py_ssize_t rows = self.columns.shape[0]
        cdef Py_ssize_t channels = self.columns.shape[1]
        if rows == 0 or channels == 0:
            raise ValueError("a block needs at least one row and one channel")
        if self.ts_ms.shape[0] != rows:
            raise ValueError(f"{self.ts_ms.shape[0]} time stamps for {rows} rows")
        if rows > ROWS_MAX or channels > CHANNELS_MAX or rows * channels > CELLS_MAX:
            raise ValueError(f"{rows} rows of {channels} channels; at most {ROWS_MAX} rows, {CHANNELS_MAX} channels, {CELLS_MAX} cells")
        self.job.ts_ms = &self.ts_ms[0]
        self.job.cells = &self.columns[0, 0]
        self.job.rows = <int>rows
        self.job.channels = <int>channels
        if valid is not None:
            self.valid = _mask(valid, np.bool_, rows, channels, "valid")
            if not valid.all():
                self.job.valid = &self.valid[0, 0]
        if reasons is not None:
            self.reasons = _mask(reasons, np.uint8, rows, channels, "reasons")
            if reasons.any():
                self.job.reasons = &self.reasons[0, 0]
        if max_error is not None:
            self._set_bounds(max_error, channels)
        if params is not None:
            self._set_plan(params, channels)

    cdef _set_bounds(self, max_error, Py_ssize_t channels):
        bounds = np.array(list(max_error), np.int64)
        if bounds.shape != (channels,):
            raise ValueError(f"{len(bounds)} error bounds for {channels} channels")
        if bounds.min() < 0 or bounds.max() > ERROR_BOUND_MAX:
            raise ValueError(f"an error bound must be 0 to {ERROR_BOUND_MAX}")
        self.bounds = bounds
        if bounds.any():
            self.job.bounds = &self.bounds[0]

    cdef _set_plan(self, bytes params, Py_ssize_t channels):
        cdef Py_ssize_t i
        self.plan = params
        self.job.plan = <const uint8_t *>PyBytes_AS_STRING(params)
        if PyBytes_GET_SIZE(params) != channels * PLAN_BYTES:
            raise ValueError(f"params are for another number of channels than {channels}")
        for i in range(channels):
            if not plan_is_valid(self.job.plan + i * PLAN_BYTES):
                raise ValueError("params are not from plan()")


cdef _contiguous(array):
    if array.dtype != np.int64:
        raise ValueError(f"int64 arrays are needed, not {array.dtype}")
    return np.ascontiguousarray(array)


cdef _mask(array, kind, Py_ssize_t rows, Py_ssize_t channels, str name):
    if array.dtype != kind or array.shape != (rows, channels):
        raise ValueError(f"{name} must be an array of {kind.__name__} with the shape of columns")
    return np.ascontiguousarray(array).view(np.uint8)


cdef bytes _encoded(_Rows rows):
    cdef uint8_t *out = NULL
    cdef size_t length = 0
    cdef int result
    with nogil:
        result = encode_job(&rows.job, &out, &length)
    try:
        if result != DP_OK:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *>out, length)
    finally:
        free(out)


def encode(ts_ms, columns, *, valid=None, bytes params=None, reasons=None):
    """Encode rows without loss; see the stub for the contract."""
    return _encoded(_Rows(ts_ms, columns, valid, reasons, None, params))


def encode_bounded(ts_ms, columns, max_error, *, valid=None, bytes params=None, reasons=None):
    """Encode within a bound per channel; see the stub for the contract."""
    return _encoded(_Rows(ts_ms, columns, valid, reasons, max_error, params))


def plan(ts_ms, columns, *, valid=None, max_error=None):
    """The choices the encoder would make for this block."""
    cdef _Rows rows = _Rows(ts_ms, columns, valid, None, max_error, None)
    cdef bytes made = bytes(PLAN_BYTES * rows.job.channels)
    rows.job.plan_made = <uint8_t *>PyBytes_AS_STRING(made)
    _encoded(rows)
    return made


cdef _decoded(const uint8_t[::1] data, Session *session, bint full):
    cdef Reader reader
    cdef int result
    cdef size_t length = data.shape[0]
    cdef int64_t[::1] ts_ms
    cdef int64_t[:, ::1] columns
    cdef uint8_t[:, ::1] valid
    cdef uint8_t[:, ::1] reasons
    valid_array = None
    reasons_array = None
    result = reader_open(&reader, &data[0] if length else NULL, length)
    if result != DP_OK:
        raise DecodeError(_REASONS[result], f"{length} bytes")
    ts_ms = np.empty(reader.rows, np.int64)
    columns = np.empty((reader.rows, reader.channels), np.int64)
    reader.ts_ms = &ts_ms[0]
    reader.cells = &columns[0, 0]
    try:
        result = decode_begin(&reader, session)
        if result == DP_OK:
            if reader.masks:
                valid_array = np.ones((reader.rows, reader.channels), np.bool_)
                valid = valid_array.view(np.uint8)
                reader.valid = &valid[0, 0]
            if reader.reasons:
                reasons_array = np.zeros((reader.rows, reader.channels), np.uint8)
                reasons = reasons_array
                reader.reason = &reasons[0, 0]
            with nogil:
                result = decode_body(&reader, session)
    finally:
        free(reader.channel)
    if result == DP_NO_MEMORY:
        raise MemoryError
    if result != DP_OK:
        raise DecodeError(_REASONS[result], f"{length} bytes")
    if full:
        return FullBlock(ts_ms.base, columns.base, valid_array, reasons_array)
    return Block(ts_ms.base, columns.base, valid_array)


def decode(const uint8_t[::1] data not None):
    """Decode a standalone or key block."""
    return _decoded(data, NULL, False)


def decode_full(const uint8_t[::1] data not None):
    """``decode`` with the reason codes."""
    return _decoded(data, NULL, True)


cdef class Encoder:
    """Session blocks: a key block, then blocks that lean on the one before."""

    cdef Session session
    cdef int64_t key_every_ms
    cdef int64_t key_ms
    cdef object max_error

    def __cinit__(self, *, max_error=None, int64_t key_every_ms=900_000):
        if key_every_ms <= 0:
            raise ValueError("key_every_ms must be positive")
        memset(&self.session, 0, sizeof(Session))
        self.key_every_ms = key_every_ms
        self.max_error = None if max_error is None else tuple(max_error)

    def __dealloc__(self):
        free(self.session.channel)

    def encode(self, ts_ms, columns, *, valid=None, reasons=None, bint key=False):
        """The next block of the session."""
        cdef _Rows rows = _Rows(ts_ms, columns, valid, reasons, self.max_error, None)
        cdef bytes block
        if not key and self._may_lean(rows):
            rows.job.kind = KIND_DEPENDENT
        else:
            rows.job.kind = KIND_KEY
        rows.job.session = &self.session
        block = _encoded(rows)
        if rows.job.kind == KIND_KEY:
            self.key_ms = rows.ts_ms[0]
        return block

    cdef bint _may_lean(self, _Rows rows):
        if self.session.channel == NULL or self.session.channels != rows.job.channels or self.session.chain == CHAIN_MAX:
            return False
        last = int(rows.ts_ms[rows.job.rows - 1])
        return self.key_ms <= int(rows.ts_ms[0]) and 0 <= last - int(self.key_ms) < self.key_every_ms


cdef class Decoder:
    """Follows a session; also decodes standalone blocks, which do not disturb it."""

    cdef Session session

    def __cinit__(self):
        memset(&self.session, 0, sizeof(Session))

    def __dealloc__(self):
        free(self.session.channel)

    def decode(self, const uint8_t[::1] data not None):
        """The next block of the session."""
        return _decoded(data, &self.session, False)

    def decode_full(self, const uint8_t[::1] data not None):
        """``decode`` with the reason codes."""
        return _decoded(data, &self.session, True)
