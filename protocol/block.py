"""Block: the rows of one cooler inside a frame. Raw codes and, for every cell without one, the reason. Not smoothed values, ever.

    body := codec u8 · flags u8 · source_boot u64 · packed_len u32 · packed · runs · kept          (see FORMAT.md)

Invariant: a cell is either valid (its raw code is in ``packed``) or has a reason in ``runs``; the codes of rejected cells are kept up to
``REJECTED_CODES_MAX`` a block, and how many were not kept is stated. No magic number stands for a missing sample.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from native import deltapack
from protocol.reading import CODE_MAX, CODE_MIN, Quality
from protocol.refusal import Reason, Refusal

__all__ = ["BLOCK_CHANNELS_MAX", "BLOCK_ROWS_MAX", "REJECTED_CODES_MAX", "Rows", "decode", "encode"]

BLOCK_ROWS_MAX = 4096  # an hour at 1 Hz with room; bounds what a decoder allocates
BLOCK_CHANNELS_MAX = 128  # the codec takes 255; a cooler with more than 128 channels is a mistake in a profile
REJECTED_CODES_MAX = 1024  # codes of rejected cells kept in one block; beyond it only the reason stays, and the shortfall is counted

CODEC_DELTAPACK = 1
FLAG_COUNTER = 0x01
_HEAD_BYTES = 14

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one block.

    ``ts_ms`` (rows,) wall milliseconds; ``codes`` (rows, channels) raw codes, 0 where ``quality`` is not OK; ``quality`` (rows,
    channels) of ``Quality``; ``counters`` (rows,) the device's sample numbers or ``None``; ``rejected`` maps a flat cell index to the
    code that the gate refused; ``rejected_lost`` counts refused codes beyond the bound.
    """

    ts_ms: Ints
    codes: Ints
    quality: Bytes
    counters: Ints | None
    source_boot: int
    rejected: dict[int, int]
    rejected_lost: int = 0


def encode(rows: Rows, *, max_error: tuple[int, ...] | None = None) -> bytes:
    """Return the body of a block frame.

    ``max_error`` is the profile's bound per channel in codes (``None`` or zeros: lossless). Raises ``ValueError`` on shapes that do not
    fit.
    """
    count, channels = rows.codes.shape
    if not (0 < count <= BLOCK_ROWS_MAX and 0 < channels <= BLOCK_CHANNELS_MAX) or rows.quality.shape != rows.codes.shape:
        msg = f"a block holds 1..{BLOCK_ROWS_MAX} rows of 1..{BLOCK_CHANNELS_MAX} channels, got {rows.codes.shape}"
        raise ValueError(msg)
    columns, valid = rows.codes, rows.quality == Quality.OK
    bounds = list(max_error) if max_error else [0] * channels
    if rows.counters is not None:
        columns = np.column_stack((rows.counters, columns))
        valid = np.column_stack((np.ones(count, dtype=np.bool_), valid))
        bounds = [0, *bounds]
    mask = None if bool(valid.all()) else valid
    if any(bounds):
        packed = deltapack.encode_bounded(rows.ts_ms, columns, bounds, valid=mask)
    else:
        packed = deltapack.encode(rows.ts_ms, columns, valid=mask)
    head = bytes((CODEC_DELTAPACK, FLAG_COUNTER if rows.counters is not None else 0))
    boot = rows.source_boot.to_bytes(8, "little")
    return b"".join((head, boot, len(packed).to_bytes(4, "little"), packed, _encode_quality(rows)))


def _encode_quality(rows: Rows) -> bytes:
    """Runs of reasons over the invalid cells in row order, then the kept codes of rejected ones."""
    flat = rows.quality.ravel()
    cells = np.flatnonzero(flat != Quality.OK)
    reasons = flat[cells]
    out = bytearray()
    starts = [at for at in range(len(cells)) if at == 0 or reasons[at] != reasons[at - 1]]
    _put_varint(out, len(starts))
    for start, end in zip(starts, [*starts[1:], len(cells)], strict=False):  # the last end has no start of its own
        out.append(int(reasons[start]))
        _put_varint(out, end - start)
    kept = sorted(rows.rejected.items())[:REJECTED_CODES_MAX]
    _put_varint(out, len(kept))
    previous = 0
    for cell, code in kept:
        _put_varint(out, cell - previous)
        _put_varint(out, (code << 1) ^ (code >> 63))  # zigzag
        previous = cell
    _put_varint(out, rows.rejected_lost + len(rows.rejected) - len(kept))
    return bytes(out)


def decode(body: bytes) -> Rows | Refusal:
    """Return the rows in a block's body, or why they cannot be read. Allocates only what ``BLOCK_ROWS_MAX`` allows."""
    if len(body) < _HEAD_BYTES:
        return Refusal(Reason.TOO_SHORT, "block head")
    if body[0] != CODEC_DELTAPACK:
        return Refusal(Reason.UNKNOWN_CODEC, str(body[0]))
    if body[1] & ~FLAG_COUNTER:
        return Refusal(Reason.UNKNOWN_FLAGS, hex(body[1]))
    packed_end = _HEAD_BYTES + int.from_bytes(body[10:14], "little")
    if packed_end > len(body):
        return Refusal(Reason.BAD_LENGTH, "packed columns run past the end")
    first = 1 if body[1] & FLAG_COUNTER else 0
    packed = _unpack(body[_HEAD_BYTES:packed_end], first)
    if isinstance(packed, Refusal):
        return packed
    columns, valid, ts_ms = packed
    reasons = _decode_quality(body[packed_end:], ~valid[:, first:])
    if isinstance(reasons, Refusal):
        return reasons
    quality, rejected, lost = reasons
    return Rows(
        ts_ms=ts_ms,
        codes=np.ascontiguousarray(columns[:, first:]),
        quality=quality,
        counters=np.ascontiguousarray(columns[:, 0]) if first else None,
        source_boot=int.from_bytes(body[2:10], "little"),
        rejected=rejected,
        rejected_lost=lost,
    )


def _unpack(data: bytes, first: int) -> tuple[Ints, npt.NDArray[np.bool_], Ints] | Refusal:
    """Columns, validity and times; ``first`` columns are counters and must be whole."""
    try:
        packed = deltapack.decode(data)
    except ValueError as error:
        return Refusal(Reason.BAD_COLUMNS, str(error))
    count, width = packed.columns.shape
    if count > BLOCK_ROWS_MAX or not first < width <= BLOCK_CHANNELS_MAX + first:
        return Refusal(Reason.BAD_COLUMNS, f"{count} rows of {width} columns")
    valid = np.ones((count, width), dtype=np.bool_) if packed.valid is None else packed.valid
    if first and not bool(valid[:, 0].all()):
        return Refusal(Reason.BAD_COLUMNS, "a counter is missing")
    return packed.columns, valid, packed.ts_ms


def _decode_quality(data: bytes, invalid: npt.NDArray[np.bool_]) -> tuple[Bytes, dict[int, int], int] | Refusal:
    reader = _Varints(data)
    cells = np.flatnonzero(invalid)
    quality = np.zeros(invalid.size, dtype=np.uint8)
    at = 0
    for _ in range(min(reader.varint(), len(cells) + 1)):
        reason, length = reader.byte(), reader.varint()
        if not Quality.MISSING <= reason < Quality.COASTED or not 0 < length <= len(cells) - at:
            return Refusal(Reason.BAD_QUALITY, "run of reasons")
        quality[cells[at : at + length]] = reason
        at += length
    if at != len(cells):
        return Refusal(Reason.BAD_QUALITY, f"{at} reasons for {len(cells)} cells")
    rejected: dict[int, int] = {}
    kept, cell = reader.varint(), 0
    if kept > REJECTED_CODES_MAX:
        return Refusal(Reason.BAD_QUALITY, f"{kept} kept codes")
    for index in range(kept):
        step, zigzag = reader.varint(), reader.varint()
        cell += step
        if cell >= invalid.size or not invalid.flat[cell] or (index and not step):
            return Refusal(Reason.BAD_QUALITY, "kept code of no rejected cell")
        code = (zigzag >> 1) ^ -(zigzag & 1)
        if not CODE_MIN <= code <= CODE_MAX:
            return Refusal(Reason.BAD_QUALITY, "kept code over 64 bits")
        rejected[cell] = code
    lost = reader.varint()
    if reader.failed or reader.at != len(data):
        return Refusal(Reason.BAD_LENGTH, "quality section")
    return quality.reshape(invalid.shape), rejected, lost


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)


class _Varints:
    """Reads LEB128 numbers of at most ten bytes; past the end it answers 0 and remembers that it failed."""

    __slots__ = ("at", "data", "failed")

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.failed = data, 0, False

    def byte(self) -> int:
        if self.at >= len(self.data):
            self.failed = True
            return 0
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value
        self.failed = True
        return 0
