"""Slow twin of ``native/deltapack``; first cut with the final interface and a plain layout."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from native.reference.crc32c import crc32c
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

FORMAT_VERSION = 0
CHAIN_MAX = 255
_HEADER = struct.Struct("<BBHBB")


def _checked(ts_ms: Int64Array, columns: Int64Array, valid: BoolArray | None, reasons: UInt8Array | None) -> None:
    if columns.ndim != 2 or ts_ms.ndim != 1 or len(ts_ms) != len(columns) or columns.size == 0:
        raise ValueError("columns must be (rows, channels) with a time stamp for every row, and not empty")
    if len(ts_ms) > ROWS_MAX or columns.shape[1] > CHANNELS_MAX or columns.size > CELLS_MAX:
        raise ValueError("too many rows, channels or cells")
    for extra in (valid, reasons):
        if extra is not None and extra.shape != columns.shape:
            raise ValueError("valid and reasons must have the shape of columns")


def encode(
    ts_ms: Int64Array,
    columns: Int64Array,
    *,
    valid: BoolArray | None = None,
    params: bytes | None = None,
    reasons: UInt8Array | None = None,
) -> bytes:
    """Encode rows without loss."""
    _checked(ts_ms, columns, valid, reasons)
    mask = None if valid is None or bool(valid.all()) else valid
    cells = columns if mask is None else np.where(mask, columns, 0)
    codes = None if reasons is None or not reasons.any() else reasons
    body = _HEADER.pack(0xD0, params is not None, len(ts_ms), columns.shape[1], (mask is not None) | (codes is not None) << 1)
    body += ts_ms.astype("<i8").tobytes() + cells.astype("<i8").tobytes()
    body += b"" if mask is None else mask.astype(np.uint8).tobytes()
    body += b"" if codes is None else codes.tobytes()
    return body + struct.pack("<I", crc32c(body))


def encode_bounded(
    ts_ms: Int64Array,
    columns: Int64Array,
    max_error: Sequence[int],
    *,
    valid: BoolArray | None = None,
    params: bytes | None = None,
    reasons: UInt8Array | None = None,
) -> bytes:
    """Encode within a bound."""
    if len(max_error) != columns.shape[1] or any(not 0 <= bound <= ERROR_BOUND_MAX for bound in max_error):
        raise ValueError("max_error must have a bound for every channel")
    return encode(ts_ms, columns, valid=valid, params=params, reasons=reasons)


def plan(ts_ms: Int64Array, columns: Int64Array, *, valid: BoolArray | None = None, max_error: Sequence[int] | None = None) -> bytes:
    """The choices the encoder would make."""
    _checked(ts_ms, columns, valid, None)
    return bytes(columns.shape[1])


def decode_full(data: bytes) -> FullBlock:
    """Decode with reasons."""
    if len(data) < _HEADER.size + 4:
        raise DecodeError("truncated")
    if data[0] >> 4 != 0xD:
        raise DecodeError("bad_magic")
    if data[0] != 0xD0:
        raise DecodeError("bad_version")
    if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise DecodeError("bad_crc")
    _, _, rows, channels, flags = _HEADER.unpack_from(data)
    at, cells = _HEADER.size, rows * channels
    if len(data) != at + 8 * (rows + cells) + cells * (flags & 1) + cells * (flags >> 1) + 4:
        raise DecodeError("bad_length")
    ts_ms = np.frombuffer(data, "<i8", rows, at).astype(np.int64)
    columns = np.frombuffer(data, "<i8", cells, at + 8 * rows).reshape(rows, channels).astype(np.int64)
    at += 8 * (rows + cells)
    valid = np.frombuffer(data, np.uint8, cells, at).reshape(rows, channels).astype(bool) if flags & 1 else None
    at += cells * (flags & 1)
    reasons = np.frombuffer(data, np.uint8, cells, at).reshape(rows, channels).copy() if flags >> 1 else None
    return FullBlock(ts_ms, columns, valid, reasons)


def decode(data: bytes) -> Block:
    """Decode a block."""
    return Block(*decode_full(data)[:3])


class Encoder:
    """Session blocks."""

    def __init__(self, *, max_error: Sequence[int] | None = None, key_every_ms: int = 900_000) -> None:
        self._max_error, self._key_every_ms = max_error, key_every_ms

    def encode(
        self,
        ts_ms: Int64Array,
        columns: Int64Array,
        *,
        valid: BoolArray | None = None,
        reasons: UInt8Array | None = None,
        key: bool = False,
    ) -> bytes:
        """The next block."""
        bounds = [0] * columns.shape[1] if self._max_error is None else self._max_error
        return encode_bounded(ts_ms, columns, bounds, valid=valid, reasons=reasons)


class Decoder:
    """Follows a session."""

    def decode(self, data: bytes) -> Block:
        """Decode a block."""
        return decode(data)

    def decode_full(self, data: bytes) -> FullBlock:
        """Decode a block with reasons."""
        return decode_full(data)
