"""The compiled kernels and their twins: the same bytes and the same bits, in both directions."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import native
from native import DecodeError, crc32c, deltapack, hampel, lineproto, smooth
from native.reference import crc32c as slow_crc32c
from native.reference import deltapack as slow_deltapack
from native.reference import hampel as slow_hampel
from native.reference import lineproto as slow_lineproto
from native.reference import smooth as slow_smooth
from tests.native.signals import blocks, cooler, kinds

pytestmark = pytest.mark.skipif(native.BACKEND != "compiled", reason=f"the compiled kernels are not in use: {native.WHY_REFERENCE}")


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_checksums_are_equal_in_hardware_by_table_and_in_python(data: bytes, value: int) -> None:
    assert crc32c.crc32c(data, value) == crc32c.crc32c_table_only(data, value) == slow_crc32c.crc32c(data, value)


@settings(max_examples=80, deadline=None)
@given(blocks(), st.booleans())
def test_blocks_are_byte_for_byte_equal(block: tuple[np.ndarray, np.ndarray, np.ndarray], masked: bool) -> None:  # noqa: FBT001
    ts_ms, columns, valid = block
    mask = valid if masked else None
    bounds = [4, 0, 100][: columns.shape[1]]

    quick = deltapack.encode(ts_ms, columns, valid=mask)
    loose = deltapack.encode_bounded(ts_ms, columns, bounds, valid=mask)

    assert quick == slow_deltapack.encode(ts_ms, columns, valid=mask)
    assert loose == slow_deltapack.encode_bounded(ts_ms, columns, bounds, valid=mask)
    for data in (quick, loose):
        one, other = deltapack.decode(data), slow_deltapack.decode(data)
        np.testing.assert_array_equal(one.ts_ms, other.ts_ms)
        np.testing.assert_array_equal(one.columns, other.columns)


@pytest.mark.parametrize("rows", [60, 200])
def test_cooler_blocks_are_byte_for_byte_equal_with_and_without_a_plan(rows: int) -> None:
    ts_ms, columns = cooler(rows)
    plan = deltapack.plan(ts_ms, columns)

    assert plan == slow_deltapack.plan(ts_ms, columns)
    assert deltapack.encode(ts_ms, columns) == slow_deltapack.encode(ts_ms, columns)
    assert deltapack.encode(ts_ms, columns, params=plan) == slow_deltapack.encode(ts_ms, columns, params=plan)


def test_every_kind_of_column_is_byte_for_byte_equal() -> None:
    ts_ms = np.arange(50, dtype=np.int64) * 1000
    columns = np.stack(list(kinds().values()), 1)

    assert deltapack.encode(ts_ms, columns) == slow_deltapack.encode(ts_ms, columns)


def test_sessions_are_byte_for_byte_equal() -> None:
    ts_ms, columns = cooler(240)
    columns = np.hstack([columns, np.stack(list(kinds(240).values()), 1)])
    valid = np.random.default_rng(2).random(columns.shape) > 0.03
    quick, slow = deltapack.Encoder(max_error=[3] * columns.shape[1]), slow_deltapack.Encoder(max_error=[3] * columns.shape[1])
    reader, slow_reader = deltapack.Decoder(), slow_deltapack.Decoder()

    for start in range(0, 240, 60):
        rows = slice(start, start + 60)
        mask = valid[rows] if start >= 120 else None
        data = quick.encode(ts_ms[rows], columns[rows], valid=mask)
        assert data == slow.encode(ts_ms[rows], columns[rows], valid=mask)
        np.testing.assert_array_equal(reader.decode(data).columns, slow_reader.decode(data).columns)


def test_both_refuse_the_same_mutated_blocks() -> None:
    generator = np.random.default_rng(6)
    seeds = [deltapack.encode(*cooler(12)), deltapack.encode(np.arange(50, dtype=np.int64), np.stack(list(kinds().values()), 1))]
    accepted = 0
    for _ in range(300):
        body = bytearray(seeds[int(generator.integers(2))][:-4])
        for _ in range(int(generator.integers(1, 4))):
            body[int(generator.integers(1, len(body)))] = int(generator.integers(256))
        data = bytes(body) + crc32c.crc32c(bytes(body)).to_bytes(4, "little")
        results: list[native.FullBlock | None] = []
        for decode in (deltapack.decode_full, slow_deltapack.decode_full):
            try:
                results.append(decode(data))
            except DecodeError:
                results.append(None)
        assert (results[0] is None) == (results[1] is None)
        if results[0] is not None and results[1] is not None:
            accepted += 1
            np.testing.assert_array_equal(results[0].columns, results[1].columns)
            np.testing.assert_array_equal(results[0].ts_ms, results[1].ts_ms)
    assert accepted < 300


_codes = st.one_of(st.integers(-200, 200), st.sampled_from([8500, -12700, 10**6]), st.none())
_series = st.lists(st.tuples(st.sampled_from([1000, 1000, 1000, 1003, 0, -500, 5000, 90_000]), _codes), max_size=120)
_FILTERS = [
    (smooth.Smoother, slow_smooth.Smoother, {"sigma": 3.0, "max_rate": 20.0}),
    (smooth.Smoother, slow_smooth.Smoother, {"sigma": 0.5, "max_rate": 1000.0, "window": 8, "alpha": 0.6, "beta": 0.15}),
    (hampel.Hampel, slow_hampel.Hampel, {"sigma": 1.0, "window": 7}),
    (hampel.Hampel, slow_hampel.Hampel, {"sigma": 0.0, "window": 8}),
    (hampel.Median, slow_hampel.Median, {"window": 5}),
]


@pytest.mark.parametrize(("quick", "slow", "parameters"), _FILTERS)
@settings(max_examples=60, deadline=None)
@given(series=_series)
def test_filters_agree_bit_for_bit_by_call_and_by_batch(quick: type, slow: type, parameters: dict, series: list) -> None:
    made = [kind(lo=-5000, hi=5000, sentinels=(8500, -12700), **parameters) for kind in (quick, slow, quick)]
    ts_ms = np.cumsum([step for step, _ in series], dtype=np.int64) if series else np.zeros(0, np.int64)
    codes = np.array([0 if code is None else code for _, code in series], np.int64)
    valid = np.array([code is not None for _, code in series], bool)

    one, other = made[0].batch(ts_ms, codes, valid), made[1].batch(ts_ms, codes, valid)
    called = [made[2].update(t_ms, code) for t_ms, (_, code) in zip(ts_ms.tolist(), series, strict=True)]

    for got, expected in zip(one, other, strict=True):
        assert got.tobytes() == expected.tobytes()
    assert [quality for _, _, quality in called] == one[2].tolist()
    for (value, slope, _), expected_value, expected_slope in zip(called, one[0].tolist(), one[1].tolist(), strict=True):
        assert value == expected_value or (math.isnan(value) and math.isnan(expected_value))
        assert slope == expected_slope
    assert made[0].counts == made[1].counts == made[2].counts
    if quick is smooth.Smoother:
        assert made[0].state() == made[1].state()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), min_size=1, max_size=8),
    st.lists(st.integers(0, 18), min_size=3, max_size=3),
    st.sampled_from(["ns", "ms"]),
    st.lists(st.booleans(), min_size=24, max_size=24),
)
def test_line_protocol_of_codes_is_byte_for_byte_equal(rows: list, decimals: list, precision: Literal["ns", "ms"], mask: list) -> None:
    columns = np.array(rows, np.int64)
    ts_ms = np.arange(len(rows), dtype=np.int64) * 999 - 1500
    valid = np.array(mask, bool)[: columns.size].reshape(columns.shape)
    arguments = (b"m,tag=a", [b"a", b"long\\ name\\,with\\=escapes", b"c"], decimals, ts_ms, columns, valid)

    assert lineproto.encode_block(*arguments, precision=precision) == slow_lineproto.encode_block(*arguments, precision=precision)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=64), min_size=1, max_size=20))
def test_line_protocol_of_floats_is_byte_for_byte_equal(values: list[float]) -> None:
    columns = np.array(values)[:, None]
    ts_ms = np.arange(len(values), dtype=np.int64)

    assert lineproto.encode_floats(b"m", [b"f"], ts_ms, columns) == slow_lineproto.encode_floats(b"m", [b"f"], ts_ms, columns)
