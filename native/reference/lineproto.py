"""Slow twin of ``native/lineproto``: exact integers and ``repr`` do the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Literal

from native.shared import CHANNELS_MAX, DECIMALS_MAX, BoolArray, Float64Array, Int64Array

__all__ = ["encode_block", "encode_floats", "escape_field_key", "escape_measurement", "escape_tag"]

_STAMP_MS_MAX = (2**63 - 1) // 10**6  # nanoseconds must fit a signed 64-bit number
_CONTROL_MAX = 31
_DELETE = 127
_C1_LAST = 159


def encode_block(  # noqa: PLR0913 - the kernel's signature
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
    """One line a row of integer codes; the contract is in ``native/lineproto.pyi``."""
    _check_layout(prefix, field_names, ts_ms, columns)
    fields = len(field_names)
    for name, given in (("decimals", decimals), ("ints", ints), ("multipliers", multipliers)):
        if given is not None and len(given) != fields:
            raise ValueError(f"{len(given)} {name} for {fields} columns")
    if any(not 0 <= count <= DECIMALS_MAX for count in decimals):
        raise ValueError(f"decimals must be 0 to {DECIMALS_MAX}")
    if ints is not None and any(whole and count for whole, count in zip(ints, decimals, strict=True)):
        raise ValueError("an integer field has no decimals")
    if valid is not None and valid.shape != columns.shape:
        raise ValueError("valid must have the shape of columns")

    def row_fields(row: int) -> Iterator[bytes]:
        for k, key in enumerate(field_names):
            if valid is not None and not valid[row, k]:
                continue
            number = int(columns[row, k]) * (1 if multipliers is None else multipliers[k])
            if not -(2**63) <= number < 2**63:
                raise ValueError("a code times its multiplier does not fit 64 bits")
            yield key + b"=" + _decimal(number, decimals[k]) + (b"i" if ints is not None and ints[k] else b"")

    return _lines(prefix, ts_ms, precision, [b",".join(row_fields(row)) for row in range(len(ts_ms))])


def encode_floats(
    prefix: bytes,
    field_names: Sequence[bytes],
    ts_ms: Int64Array,
    columns: Float64Array,
    *,
    precision: Literal["ns", "ms"] = "ns",
) -> bytes:
    """One line a row of float64 columns; the contract is in ``native/lineproto.pyi``."""
    _check_layout(prefix, field_names, ts_ms, columns)

    def row_fields(row: int) -> Iterator[bytes]:
        for k, key in enumerate(field_names):
            value = float(columns[row, k])
            if isfinite(value):
                yield key + b"=" + repr(value).removesuffix(".0").encode()

    return _lines(prefix, ts_ms, precision, [b",".join(row_fields(row)) for row in range(len(ts_ms))])


def escape_measurement(text: str) -> bytes:
    """Escape a measurement name."""
    if text.startswith("#"):
        raise ValueError(f"measurement {text!r} starts with '#': the line would be a comment")
    return _escape(text, ", ", "measurement")


def escape_tag(text: str) -> bytes:
    """Escape a tag key or a tag value."""
    return _escape(text, ",= ", "tag")


def escape_field_key(text: str) -> bytes:
    """Escape a field key."""
    if text == "time":
        raise ValueError("InfluxDB drops a field named 'time'")
    return _escape(text, ",= ", "field key")


def _escape(text: str, specials: str, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be str")
    if not text:
        raise ValueError(f"empty {what}")
    if any(ord(character) <= _CONTROL_MAX or _DELETE <= ord(character) <= _C1_LAST for character in text):
        raise ValueError(f"control character in {what} {text!r}")
    if text.endswith("\\"):
        raise ValueError(f"{what} {text!r} ends with a backslash, which would escape what follows")
    return "".join("\\" + character if character in specials else character for character in text).encode()


def _check_layout(prefix: bytes, field_names: Sequence[bytes], ts_ms: Int64Array, columns: Int64Array | Float64Array) -> None:
    _refuse_unsafe(prefix, b" ")
    if prefix.startswith(b"#"):
        raise ValueError(f"{prefix!r} starts with '#': the line would be a comment")
    rows, channels = columns.shape
    if len(field_names) != channels:
        raise ValueError(f"{len(field_names)} field names for {channels} columns")
    if not 1 <= channels <= CHANNELS_MAX:
        raise ValueError(f"{channels} columns; 1 to {CHANNELS_MAX} are possible")
    for name in field_names:
        _refuse_unsafe(name, b" ,=")
    if len(ts_ms) != rows:
        raise ValueError(f"{len(ts_ms)} time stamps for {rows} rows")
    for stamp in ts_ms.tolist():
        if abs(stamp) > _STAMP_MS_MAX:
            raise ValueError(f"time stamp {stamp} ms does not fit InfluxDB's range")


def _refuse_unsafe(text: bytes, specials: bytes) -> None:
    if not text:
        raise ValueError("empty prefix or field key")
    before = 0
    for byte in text:
        if byte <= _CONTROL_MAX or byte == _DELETE:
            raise ValueError(f"control character {byte:#04x} in {text!r}")
        if byte in specials and before != ord("\\"):
            raise ValueError(f"unescaped {chr(byte)!r} in {text!r}")
        before = byte
    if before == ord("\\"):
        raise ValueError(f"{text!r} ends with a backslash, which would escape what follows")


def _decimal(number: int, decimals: int) -> bytes:
    sign = "-" if number < 0 else ""
    whole, part = divmod(abs(number), 10**decimals)
    text = f"{part:0{decimals}d}".rstrip("0") if part else ""
    return f"{sign}{whole}{'.' if text else ''}{text}".encode()


def _lines(prefix: bytes, ts_ms: Int64Array, precision: str, rows: Sequence[bytes]) -> bytes:
    if precision not in {"ns", "ms"}:
        raise ValueError(f"precision {precision!r}; 'ns' and 'ms' are possible")
    factor = 10**6 if precision == "ns" else 1
    return b"".join(b"%s %s %d\n" % (prefix, fields, stamp * factor) for stamp, fields in zip(ts_ms.tolist(), rows, strict=True) if fields)
