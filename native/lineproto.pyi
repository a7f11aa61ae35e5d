"""InfluxDB line protocol from integer codes and from float64 columns."""

from collections.abc import Sequence
from typing import Literal

from native.shared import BoolArray, Float64Array, Int64Array

__all__ = ["encode_block", "encode_floats", "escape_field_key", "escape_measurement", "escape_tag"]

def encode_block(
    prefix: bytes,
    field_names: Sequence[bytes],
    decimals: Sequence[int],
    ts_ms: Int64Array,
    columns: Int64Array,
    valid: BoolArray | None = None,
    *,
    ints: Sequence[bool] | None = None,
    multipliers: Sequence[int] | None = None,
    precision: Literal["ns", "ms"] = "ns",
) -> bytes:
    """One line a row: field = ``code * multipliers[k] / 10**decimals[k]``, exact, without trailing zeros.

    ``prefix`` (measurement and tags) and ``field_names`` are already escaped. An invalid cell is left out, and so is a row
    without a valid cell. ``ints[k]`` writes the field as InfluxDB's integer type (``12i``) and needs ``decimals[k] == 0``.
    Every line ends with a line feed. ValueError for shapes that disagree, control or unescaped characters, or a product beyond int64.
    """

def encode_floats(
    prefix: bytes,
    field_names: Sequence[bytes],
    ts_ms: Int64Array,
    columns: Float64Array,
    *,
    precision: Literal["ns", "ms"] = "ns",
) -> bytes:
    """One line a row, each field with the shortest digits that read back as the same double; NaN and infinities are left out."""

def escape_measurement(text: str) -> bytes:
    """Escape a measurement name; ValueError for an empty name, control characters, a leading ``#`` or a trailing backslash."""

def escape_tag(text: str) -> bytes:
    """Escape a tag key or value; ValueError for an empty text, control characters or a trailing backslash."""

def escape_field_key(text: str) -> bytes:
    """Escape a field key; ValueError as for a tag, and for ``time``, which InfluxDB drops."""
