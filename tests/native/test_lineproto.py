"""Line protocol: what is written reads back as the same numbers; what would break a line is refused."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import lineproto


def parse(text: bytes) -> list[tuple[str, dict[str, str], dict[str, str], int]]:
    """An independent reader of the protocol: measurement, tags, fields, stamp; escapes undone."""
    return [_parse_line(line) for line in text.decode().splitlines()]


def _parse_line(line: str) -> tuple[str, dict[str, str], dict[str, str], int]:
    head, fields, stamp = _split(line, " ")
    name, *tags = _split(head, ",")
    return _plain(name), _pairs(tags), _pairs(_split(fields, ",")), int(stamp)


def _split(text: str, separator: str) -> list[str]:
    parts, escaped = [""], False
    for character in text:
        if character == separator and not escaped:
            parts.append("")
        else:
            parts[-1] += character
        escaped = character == "\\" and not escaped
    return parts


def _pairs(parts: list[str]) -> dict[str, str]:
    found = {}
    for part in parts:
        key, value = _split(part, "=")
        found[_plain(key)] = _plain(value)
    return found


def _plain(text: str) -> str:
    for special in ",= ":
        text = text.replace("\\" + special, special)
    return text


def test_a_row_is_one_line_in_nanoseconds() -> None:
    text = lineproto.encode_block(
        b"cooler,device=IC-1", [b"t", b"p", b"n"], [2, 0, 1], np.array([1500], np.int64), np.array([[-1250, 7, 30]], np.int64)
    )

    assert text == b"cooler,device=IC-1 t=-12.5,p=7,n=3 1500000000\n"


def test_integers_multipliers_and_milliseconds() -> None:
    text = lineproto.encode_block(
        b"m",
        [b"state", b"skin"],
        [0, 4],
        np.array([7], np.int64),
        np.array([[3, 500]], np.int64),
        ints=[True, False],
        multipliers=[1, 625],
        precision="ms",
    )

    assert text == b"m state=3i,skin=31.25 7\n"


def test_invalid_cells_are_left_out_and_so_are_rows_without_any() -> None:
    valid = np.array([[True, False], [False, False], [False, True]])

    text = lineproto.encode_block(b"m", [b"a", b"b"], [0, 0], np.arange(3, dtype=np.int64), np.ones((3, 2), np.int64), valid)

    assert text == b"m a=1 0\nm b=1 2000000\n"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 18)), min_size=1, max_size=5),
    st.integers(-9_000_000_000_000, 9_000_000_000_000),
)
def test_every_code_reads_back_exactly(cells: list, stamp: int) -> None:
    codes, decimals = zip(*cells, strict=True)
    keys = [f"f{k}" for k in range(len(cells))]

    ((_, _, fields, nanoseconds),) = parse(
        lineproto.encode_block(b"m", [key.encode() for key in keys], decimals, np.array([stamp], np.int64), np.array([codes], np.int64))
    )

    assert nanoseconds == stamp * 10**6
    for key, code, places in zip(keys, codes, decimals, strict=True):
        assert Decimal(fields[key]) == Decimal(code).scaleb(-places)
        assert len(fields[key]) <= 22


@settings(max_examples=400, deadline=None)
@given(st.lists(st.floats(width=64), min_size=1, max_size=8))
def test_every_double_reads_back_as_the_same_double(values: list[float]) -> None:
    keys = [f"f{k}".encode() for k in range(len(values))]

    lines = parse(lineproto.encode_floats(b"m", keys, np.array([5], np.int64), np.array([values])))

    finite = {f"f{k}": value for k, value in enumerate(values) if math.isfinite(value)}
    assert len(lines) == bool(finite)
    for _, _, fields, _ in lines:
        assert {key: float(text) for key, text in fields.items()} == finite
        for key, text in fields.items():
            assert len(text) <= len(repr(finite[key]))


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_escaped_names_come_back_or_are_refused(measurement: str, tag: str, key: str) -> None:
    try:
        head = lineproto.escape_measurement(measurement) + b",t=" + lineproto.escape_tag(tag)
        field = lineproto.escape_field_key(key)
        text = lineproto.encode_block(head, [field], [0], np.array([1], np.int64), np.array([[5]], np.int64))
    except ValueError:
        unsafe = any(ord(c) < 32 or 127 <= ord(c) < 160 for c in measurement + tag + key)
        ends = any(part.endswith("\\") for part in (measurement, tag, key))
        surrogate = any(0xD800 <= ord(c) < 0xE000 for c in measurement + tag + key)
        assert unsafe or ends or surrogate or measurement.startswith("#") or key == "time"
        return
    if "\\" in measurement + tag + key:
        return  # a backslash of the text's own is not undone by InfluxDB either; it is kept as it is
    assert text.count(b"\n") == 1
    name, tags, fields, _ = parse(text[:-1].replace("\u2028".encode(), b"?").replace("\u2029".encode(), b"?"))[0]
    clean = {text: text.replace("\u2028", "?").replace("\u2029", "?") for text in (measurement, tag, key)}
    assert (name, tags, fields) == (clean[measurement], {"t": clean[tag]}, {clean[key]: "5"})


@pytest.mark.parametrize("byte", [*range(32), 127])
def test_control_characters_never_get_out(byte: int) -> None:
    bad = b"a" + bytes([byte]) + b"b"
    ts_ms, columns = np.array([1], np.int64), np.array([[5]], np.int64)

    for prefix, key in ((bad, b"f"), (b"m", bad)):
        with pytest.raises(ValueError, match="control"):
            lineproto.encode_block(prefix, [key], [0], ts_ms, columns)
        with pytest.raises(ValueError, match="control"):
            lineproto.encode_floats(prefix, [key], ts_ms, columns.astype(float))
    for escape in (lineproto.escape_measurement, lineproto.escape_tag, lineproto.escape_field_key):
        with pytest.raises(ValueError, match="control"):
            escape(bad.decode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefix": b"m x"}, "unescaped"),
        ({"prefix": b"#m"}, "comment"),
        ({"prefix": b"m\\"}, "backslash"),
        ({"prefix": b""}, "empty"),
        ({"field_names": [b"a=b"]}, "unescaped"),
        ({"field_names": [b"a", b"b"]}, "field names"),
        ({"decimals": [19]}, "decimals"),
        ({"ints": [True]}, "integer field"),
        ({"multipliers": [2**40]}, "64 bits"),
        ({"ts_ms": np.array([2**62], np.int64)}, "range"),
        ({"ts_ms": np.array([1, 2], np.int64)}, "time stamps"),
        ({"precision": "s"}, "precision"),
    ],
)
def test_what_cannot_be_a_line_is_refused(change: dict, message: str) -> None:
    good = {
        "prefix": b"m",
        "field_names": [b"f"],
        "decimals": [2],
        "ts_ms": np.array([1], np.int64),
        "columns": np.array([[2**40]], np.int64),
    }

    with pytest.raises(ValueError, match=message):
        lineproto.encode_block(**{**good, **change})
