"""What a compiled kernel and its reference twin have in common: result types, refusals, limits, quality codes.

Not an algorithm: both twins are independent code. Invariant: nothing here computes anything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "CELLS_MAX",
    "CHANNELS_MAX",
    "COASTED",
    "DECIMALS_MAX",
    "DICTIONARY_MAX",
    "ERROR_BOUND_MAX",
    "MISSING",
    "OK",
    "RANGE",
    "RATE",
    "ROWS_MAX",
    "SENTINEL",
    "SPIKE",
    "STALE",
    "WINDOW_MAX",
    "Block",
    "BoolArray",
    "DecodeError",
    "Float64Array",
    "FullBlock",
    "Int64Array",
    "UInt8Array",
]

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# A block is one seal of the outbox (60 or 300 rows); four and a half hours at 1 Hz leaves room for back-fill.
ROWS_MAX = 16_384
# One machine has 8 channels; the count is one byte on the wire.
CHANNELS_MAX = 255
# The most cells a decoder allocates for, whatever the header claims: 8 MiB of values.
CELLS_MAX = 1_048_576
# More levels than this cost more to list than the coding by rank saves.
DICTIONARY_MAX = 255
# Half of the 30-bit working range of a coded channel, so that a quantiser step always fits.
ERROR_BOUND_MAX = 268_435_455
# 10**18 is the largest power of ten in an int64.
DECIMALS_MAX = 18
# A window longer than this follows no cooler; it also bounds the state on disk.
WINDOW_MAX = 63

# Quality of one reading, plain ints because they travel (protocol.reading.Quality).
OK = 0  # accepted
MISSING = 1  # no sample, and nothing to extrapolate from
SENTINEL = 2  # one of the sensor's own error codes
RANGE = 3  # outside lo..hi
SPIKE = 4  # refused by the innovation gate
RATE = 5  # refused, and faster than the physics allows
STALE = 6  # the time stamp did not advance
COASTED = 7  # no sample; the value is extrapolated over the gap


class DecodeError(ValueError):
    """Input that is not a valid block; ``reason`` is one short name, for counters and for `Refusal`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Block(NamedTuple):
    """Decoded rows. An invalid cell is 0 in ``columns`` and False in ``valid``; ``valid`` is None when all are valid."""

    ts_ms: Int64Array
    columns: Int64Array
    valid: BoolArray | None


class FullBlock(NamedTuple):
    """Decoded rows with the reason code of each cell; ``reasons`` is None when every code is 0."""

    ts_ms: Int64Array
    columns: Int64Array
    valid: BoolArray | None
    reasons: UInt8Array | None
