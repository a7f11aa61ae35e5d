"""Block codec: rows of integer codes in, few bytes out. The format is in ``docs/format-deltapack.md``."""

from collections.abc import Sequence

from native.shared import CELLS_MAX as CELLS_MAX
from native.shared import CHANNELS_MAX as CHANNELS_MAX
from native.shared import ERROR_BOUND_MAX as ERROR_BOUND_MAX
from native.shared import ROWS_MAX as ROWS_MAX
from native.shared import Block as Block
from native.shared import BoolArray, Int64Array, UInt8Array
from native.shared import DecodeError as DecodeError
from native.shared import FullBlock as FullBlock

__all__ = [
    "CELLS_MAX",
    "CHANNELS_MAX",
    "CHAIN_MAX",
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

FORMAT_VERSION: int
CHAIN_MAX: int

def encode(
    ts_ms: Int64Array,
    columns: Int64Array,
    *,
    valid: BoolArray | None = None,
    params: bytes | None = None,
    reasons: UInt8Array | None = None,
) -> bytes:
    """Encode rows without loss; ``columns`` is (rows, channels), any int64, any time stamps.

    A cell that is not ``valid`` is marked, its code is not stored. ``reasons`` (a code per cell, 0 for nothing) may mark valid
    and invalid cells alike. ``params`` from ``plan`` skips the search, for blocks like the one that was planned; any block stays
    exact with any plan of its number of channels. ValueError for empty input, too many rows, channels or cells, or shapes that
    disagree.
    """

def encode_bounded(
    ts_ms: Int64Array,
    columns: Int64Array,
    max_error: Sequence[int],
    *,
    valid: BoolArray | None = None,
    params: bytes | None = None,
    reasons: UInt8Array | None = None,
) -> bytes:
    """Encode so that every decoded cell of channel k is within ``max_error[k]`` codes of the input; 0 is lossless."""

def plan(
    ts_ms: Int64Array,
    columns: Int64Array,
    *,
    valid: BoolArray | None = None,
    max_error: Sequence[int] | None = None,
) -> bytes:
    """The choices the encoder would make for this block, as an opaque value for ``params``."""

def decode(data: bytes) -> Block:
    """Decode a standalone or key block. DecodeError with a reason for anything else; invalid cells are 0."""

def decode_full(data: bytes) -> FullBlock:
    """``decode`` with the reason codes."""

class Encoder:
    """Session blocks: a key block, then blocks that lean on the one before. Evict a key and its dependents together."""

    def __init__(self, *, max_error: Sequence[int] | None = None, key_every_ms: int = 900_000) -> None:
        """``key_every_ms`` bounds by row time how far a dependent block is from its key."""

    def encode(
        self,
        ts_ms: Int64Array,
        columns: Int64Array,
        *,
        valid: BoolArray | None = None,
        reasons: UInt8Array | None = None,
        key: bool = False,
    ) -> bytes:
        """The next block of the session; ``key`` forces a key block. The first block is always one."""

class Decoder:
    """Follows a session; also decodes standalone blocks, which do not disturb it."""

    def __init__(self) -> None: ...
    def decode(self, data: bytes) -> Block:
        """DecodeError with reason ``missing_key`` when a dependent block does not follow the last one decoded."""

    def decode_full(self, data: bytes) -> FullBlock:
        """``decode`` with the reason codes."""
