"""Slow twin of ``native/deltapack``: the same bytes from independent code. Format: ``docs/format-deltapack.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from native.reference.block import Job, write_block
from native.reference.choose import PLAN_BYTES, plan_of
from native.reference.reader import read_block
from native.reference.session import Session
from native.shared import (
    CELLS_MAX,
    CHANNELS_MAX,
    ERROR_BOUND_MAX,
    ROWS_MAX,
    Block,
    BoolArray,
    DecodeError,
    FullBlock,
    Int64Array,
    UInt8Array,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
_MODES, _PREDICTORS, _SHAPES, _SCALES, _CHANNEL_SCALES, _BOUNDED = 8, 16, 3, 19, 109, 7


def encode(
    ts_ms: Int64Array,
    columns: Int64Array,
    *,
    valid: BoolArray | None = None,
    params: bytes | None = None,
    reasons: UInt8Array | None = None,
) -> bytes:
    """Encode rows without loss; the contract is in ``native/deltapack.pyi``."""
    return write_block(_job(ts_ms, columns, valid=valid, reasons=reasons, max_error=None, params=params))


def encode_bounded(
    ts_ms: Int64Array,
    columns: Int64Array,
    max_error: Sequence[int],
    *,
    valid: BoolArray | None = None,
    params: bytes | None = None,
    reasons: UInt8Array | None = None,
) -> bytes:
    """Encode within a bound per channel."""
    return write_block(_job(ts_ms, columns, valid=valid, reasons=reasons, max_error=max_error, params=params))


def plan(ts_ms: Int64Array, columns: Int64Array, *, valid: BoolArray | None = None, max_error: Sequence[int] | None = None) -> bytes:
    """The choices the encoder would make for this block."""
    job = _job(ts_ms, columns, valid=valid, reasons=None, max_error=max_error, params=None)
    job.prepare()
    return b"".join(plan_of(lane.channel) for lane in job.lanes[: columns.shape[1]])


def decode(data: Buffer) -> Block:
    """Decode a standalone or key block."""
    return Block(*read_block(bytes(data), None)[:3])


def decode_full(data: Buffer) -> FullBlock:
    """``decode`` with the reason codes."""
    return read_block(bytes(data), None)


class Encoder:
    """Session blocks: a key block, then blocks that lean on the one before."""

    def __init__(self, *, max_error: Sequence[int] | None = None, key_every_ms: int = 900_000) -> None:
        if key_every_ms <= 0:
            raise ValueError("key_every_ms must be positive")
        self._max_error = None if max_error is None else tuple(max_error)
        self._key_every_ms = key_every_ms
        self._key_ms = 0
        self._session = Session()

    def encode(
        self,
        ts_ms: Int64Array,
        columns: Int64Array,
        *,
        valid: BoolArray | None = None,
        reasons: UInt8Array | None = None,
        key: bool = False,
    ) -> bytes:
        """The next block of the session."""
        job = _job(ts_ms, columns, valid=valid, reasons=reasons, max_error=self._max_error, params=None)
        session = self._session
        leans = not key and len(session.channels) == columns.shape[1] and session.chain < CHAIN_MAX
        leans = leans and self._key_ms <= int(ts_ms[0]) and 0 <= int(ts_ms[-1]) - self._key_ms < self._key_every_ms
        block = write_block(job, session, dependent=leans)
        if not leans:
            self._key_ms = int(ts_ms[0])
        return block


class Decoder:
    """Follows a session; also decodes standalone blocks, which do not disturb it."""

    def __init__(self) -> None:
        self._session = Session()

    def decode(self, data: Buffer) -> Block:
        """The next block of the session."""
        return Block(*self.decode_full(data)[:3])

    def decode_full(self, data: Buffer) -> FullBlock:
        """``decode`` with the reason codes."""
        return read_block(bytes(data), self._session)


def _job(
    ts_ms: Int64Array,
    columns: Int64Array,
    *,
    valid: BoolArray | None,
    reasons: UInt8Array | None,
    max_error: Sequence[int] | None,
    params: bytes | None,
) -> Job:
    """Check the arguments."""
    _check_shapes(ts_ms, columns)
    channels = columns.shape[1]
    for name, kind, array in (("valid", np.bool_, valid), ("reasons", np.uint8, reasons)):
        if array is not None and (array.dtype != kind or array.shape != columns.shape):
            raise ValueError(f"{name} must be an array of {kind.__name__} with the shape of columns")
    bounds = [0] * channels if max_error is None else [int(bound) for bound in max_error]
    if len(bounds) != channels:
        raise ValueError(f"{len(bounds)} error bounds for {channels} channels")
    if any(not 0 <= bound <= ERROR_BOUND_MAX for bound in bounds):
        raise ValueError(f"an error bound must be 0 to {ERROR_BOUND_MAX}")
    if params is not None:
        _check_params(params, channels)
    return Job(
        ts_ms=ts_ms.tolist(),
        cells=[column.tolist() for column in columns.T],
        valid=None if valid is None or bool(valid.all()) else [column.tolist() for column in valid.T],
        reasons=None if reasons is None or not reasons.any() else reasons.ravel().tolist(),
        bounds=bounds,
        params=params,
    )


def _check_shapes(ts_ms: Int64Array, columns: Int64Array) -> None:
    if ts_ms.dtype != np.int64 or columns.dtype != np.int64:
        raise ValueError("int64 arrays are needed")
    if ts_ms.ndim != 1 or columns.ndim != 2:
        raise ValueError("ts_ms must have one dimension and columns two")
    rows, channels = columns.shape
    if rows == 0 or channels == 0:
        raise ValueError("a block needs at least one row and one channel")
    if len(ts_ms) != rows:
        raise ValueError(f"{len(ts_ms)} time stamps for {rows} rows")
    if rows > ROWS_MAX or channels > CHANNELS_MAX or rows * channels > CELLS_MAX:
        raise ValueError(f"{rows} rows of {channels} channels; at most {ROWS_MAX} rows, {CHANNELS_MAX} channels, {CELLS_MAX} cells")


def _check_params(params: bytes, channels: int) -> None:
    if len(params) != PLAN_BYTES * channels:
        raise ValueError(f"params are for another number of channels than {channels}")
    for at in range(0, len(params), PLAN_BYTES):
        mode, predictor, shape, classes, *scales = params[at : at + PLAN_BYTES]
        fits = mode < _MODES and predictor < _PREDICTORS and shape < _SHAPES and classes in {1, 3} and max(scales) < _CHANNEL_SCALES
        if not fits or (mode == _BOUNDED and (scales[0] >= _SCALES or scales[3] >= _SCALES)):
            raise ValueError("params are not from plan()")
