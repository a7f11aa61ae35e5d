"""Block codec: what goes in comes out, within the bound where there is one; whatever is no block is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from native import CELLS_MAX, DecodeError, crc32c, deltapack
from tests.native.signals import INT64, blocks, cooler, kinds

REASONS = {
    "truncated", "bad_magic", "bad_version", "bad_crc", "bad_count", "too_long", "missing_key", "bad_header", "bad_value", "bad_end",
}  # fmt: skip


def sealed(body: bytes) -> bytes:
    return body + crc32c.crc32c(body).to_bytes(4, "little")


def outcome(data: bytes) -> tuple[str, int]:
    try:
        return "", deltapack.decode(data).columns.size
    except DecodeError as refusal:
        return refusal.reason, 0


def assert_same(block: deltapack.Block, ts_ms: np.ndarray, columns: np.ndarray) -> None:
    np.testing.assert_array_equal(block.ts_ms, ts_ms)
    np.testing.assert_array_equal(block.columns, columns)


@pytest.mark.parametrize("name", sorted(kinds()))
def test_every_kind_of_column_comes_back_exactly(name: str) -> None:
    column = kinds()[name]
    ts_ms = np.arange(len(column), dtype=np.int64) * 1000

    block = deltapack.decode(deltapack.encode(ts_ms, column[:, None]))

    assert_same(block, ts_ms, column[:, None])
    assert block.valid is None


@pytest.mark.parametrize(
    "stamps",
    [
        [0],
        [INT64.min],
        [5, 5, 5],
        [3000, 2000, 1000],
        [0, 1000, 2000, 9000, 10_000, 11_000],
        [0, 1003, 1996, 3001],
        [INT64.min, INT64.max, 0],
        [-5000, -4000, -3000],
        [1_760_000_000_123, 1_760_000_000_160],
    ],
)
def test_every_clock_comes_back_exactly(stamps: list[int]) -> None:
    ts_ms = np.array(stamps, np.int64)
    columns = np.arange(len(stamps), dtype=np.int64)[:, None]

    assert_same(deltapack.decode(deltapack.encode(ts_ms, columns)), ts_ms, columns)


def test_255_channels_and_two_coder_states_come_back() -> None:
    generator = np.random.default_rng(4)
    columns = np.cumsum(generator.integers(-2, 3, (20, 255)), 0)
    ts_ms = np.arange(20, dtype=np.int64)

    assert_same(deltapack.decode(deltapack.encode(ts_ms, columns)), ts_ms, columns)


@settings(max_examples=150, deadline=None)
@given(blocks())
def test_any_block_with_any_mask_round_trips(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ts_ms, columns, valid = block
    reasons = np.where(valid, 0, 4).astype(np.uint8)

    got = deltapack.decode_full(deltapack.encode(ts_ms, columns, valid=valid, reasons=reasons))

    np.testing.assert_array_equal(got.ts_ms, ts_ms)
    np.testing.assert_array_equal(got.columns, np.where(valid, columns, 0))
    np.testing.assert_array_equal(np.ones_like(valid) if got.valid is None else got.valid, valid)
    np.testing.assert_array_equal(np.zeros_like(reasons) if got.reasons is None else got.reasons, reasons)


@settings(max_examples=100, deadline=None)
@given(blocks())
def test_the_bound_holds_for_every_sample(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ts_ms, columns, valid = block
    bounds = [0, 3, 1000][: columns.shape[1]]

    got = deltapack.decode(deltapack.encode_bounded(ts_ms, columns, bounds, valid=valid))

    np.testing.assert_array_equal(got.ts_ms, ts_ms)
    for k, bound in enumerate(bounds):
        for decoded, given_code, good in zip(got.columns[:, k].tolist(), columns[:, k].tolist(), valid[:, k].tolist(), strict=True):
            assert abs(decoded - given_code) <= bound if good else decoded == 0


def test_a_rejected_code_is_kept_beside_its_reason() -> None:
    ts_ms, columns = cooler(30)
    reasons = np.zeros(columns.shape, np.uint8)
    reasons[3, 2], reasons[29, 7] = 4, 2

    got = deltapack.decode_full(deltapack.encode(ts_ms, columns, reasons=reasons))

    np.testing.assert_array_equal(got.reasons, reasons)
    np.testing.assert_array_equal(got.columns, columns)
    assert got.valid is None


def test_a_plan_makes_the_same_block_and_fits_other_blocks() -> None:
    ts_ms, columns = cooler(120)
    _, other = cooler(120, seed=9)
    plan = deltapack.plan(ts_ms, columns)

    assert deltapack.encode(ts_ms, columns, params=plan) == deltapack.encode(ts_ms, columns)
    assert_same(deltapack.decode(deltapack.encode(ts_ms, other * 1000 + 1, params=plan)), ts_ms, other * 1000 + 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda t, x: deltapack.encode(t[:0], x[:0]), "at least one row"),
        (lambda t, x: deltapack.encode(t[:1], x), "time stamps"),
        (lambda t, x: deltapack.encode(t, x, valid=np.ones((1, 1), bool)), "valid"),
        (lambda t, x: deltapack.encode(t, x, params=b"short"), "params"),
        (lambda t, x: deltapack.encode(t, x, params=bytes([9] * 8 * x.shape[1])), "params"),
        (lambda t, x: deltapack.encode_bounded(t, x, [1]), "bounds"),
        (lambda t, x: deltapack.encode_bounded(t, x, [-1] * x.shape[1]), "bound"),
        (lambda t, x: deltapack.encode(t, x.astype(float)), "int64"),
        (lambda _, x: deltapack.encode(np.zeros(20_000, np.int64), np.zeros((20_000, 1), np.int64) + x[0, 0]), "at most"),
    ],
)
def test_what_cannot_be_encoded_is_a_value_error(bad: Callable[..., bytes], message: str) -> None:
    ts_ms, columns = cooler(10)

    with pytest.raises(ValueError, match=message):
        bad(ts_ms, columns)


def test_every_flipped_bit_is_noticed() -> None:
    block = deltapack.encode(*cooler(20))

    for at in range(len(block) * 8):
        flipped = bytearray(block)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(DecodeError):
            deltapack.decode(bytes(flipped))


def test_every_truncation_is_refused_even_with_a_good_checksum() -> None:
    block = deltapack.encode(*cooler(200))

    for length in range(len(block)):
        with pytest.raises(DecodeError) as plain:
            deltapack.decode(block[:length])
        with pytest.raises(DecodeError) as fixed:
            deltapack.decode(sealed(block[: max(0, length - 4)]))
        assert {plain.value.reason, fixed.value.reason} <= REASONS


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (b"\x00" * 20, "bad_magic"),
        (b"\xdf" + b"\x00" * 20, "bad_version"),
        (b"\xd0\x00\x08" + b"\x00\x00\x01\x00" * 4, "bad_count"),
        (b"\xd0\x80\x00\x08" + b"\x00\x00\x01\x00" * 4, "bad_count"),
        (b"\xd0\x08\x00" + b"\x00\x00\x01\x00" * 4, "bad_count"),
        (b"\xd0\xff\xff\x7f\x08" + b"\x00\x00\x01\x00" * 4, "too_long"),
        (b"\xd0\x80\x80\x01\xff" + b"\x00\x00\x01\x00" * 4, "too_long"),
        (b"\xd0\x08\x08" + b"\x00\x00\x00\x00" * 4, "bad_header"),
        (b"\xd2\x08\x08\x01" + b"\x00\x00\x01\x00" * 4, "missing_key"),
    ],
)
def test_hostile_headers_are_refused_by_name(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refusal:
        deltapack.decode(sealed(body))

    assert refusal.value.reason == reason


def test_random_bodies_with_a_good_checksum_never_crash() -> None:
    generator = np.random.default_rng(5)
    for _ in range(2000):
        body = b"\xd0" + bytes([generator.integers(1, 60), generator.integers(1, 9)]) + generator.bytes(int(generator.integers(8, 80)))
        reason, cells = outcome(sealed(body))
        assert reason in REASONS or 0 < cells <= CELLS_MAX


def test_trailing_words_are_refused() -> None:
    block = deltapack.encode(*cooler(20))

    with pytest.raises(DecodeError, match="bad_end"):
        deltapack.decode(sealed(block[:-4] + b"\0\0"))


def test_session_blocks_are_smaller_and_come_back() -> None:
    ts_ms, columns = cooler(600)
    encoder, decoder = deltapack.Encoder(), deltapack.Decoder()
    leaning = alone = 0

    for start in range(0, 600, 60):
        rows = slice(start, start + 60)
        block = encoder.encode(ts_ms[rows], columns[rows])
        assert_same(decoder.decode(block), ts_ms[rows], columns[rows])
        leaning += len(block)
        alone += len(deltapack.encode(ts_ms[rows], columns[rows]))

    assert leaning < 0.93 * alone


def test_session_holds_the_bound_and_masks() -> None:
    ts_ms, columns = cooler(300)
    generator = np.random.default_rng(8)
    bounds = [5] * 8
    encoder, decoder = deltapack.Encoder(max_error=bounds), deltapack.Decoder()

    for start in range(0, 300, 60):
        rows = slice(start, start + 60)
        valid = generator.random((60, 8)) > 0.05
        got = decoder.decode(encoder.encode(ts_ms[rows], columns[rows], valid=valid))
        np.testing.assert_array_equal(got.valid, valid)
        assert np.abs(got.columns - columns[rows])[valid].max() <= 5


def test_a_dependent_block_without_its_key_is_refused_by_name() -> None:
    ts_ms, columns = cooler(180)
    encoder = deltapack.Encoder()
    first, second, third = (encoder.encode(ts_ms[i : i + 60], columns[i : i + 60]) for i in (0, 60, 120))
    decoder = deltapack.Decoder()

    for stranger in (second, third):
        with pytest.raises(DecodeError) as refusal:
            decoder.decode(stranger)
        assert refusal.value.reason == "missing_key"
    decoder.decode(first)
    with pytest.raises(DecodeError) as skipped:
        decoder.decode(third)
    assert skipped.value.reason == "missing_key"
    assert_same(decoder.decode(second), ts_ms[60:120], columns[60:120])
    with pytest.raises(DecodeError, match="missing_key"):
        deltapack.decode(third)


def test_a_block_of_another_session_is_refused() -> None:
    ts_ms, columns = cooler(120)
    other_columns = columns + 1000  # the same steps elsewhere: the wrong key would decode to wrong values without a complaint
    one, other = deltapack.Encoder(), deltapack.Encoder()
    one_key, other_key = one.encode(ts_ms[:60], columns[:60]), other.encode(ts_ms[:60], other_columns[:60])
    one_next = one.encode(ts_ms[60:], columns[60:])
    decoder = deltapack.Decoder()
    decoder.decode(other_key)

    with pytest.raises(DecodeError) as refusal:
        decoder.decode(one_next)

    assert refusal.value.reason == "missing_key"
    decoder.decode(one_key)
    assert_same(decoder.decode(one_next), ts_ms[60:], columns[60:])


def test_a_key_block_comes_at_least_every_fifteen_minutes() -> None:
    ts_ms, columns = cooler(1200)
    encoder = deltapack.Encoder()
    keys = []

    for start in range(0, 1200, 60):
        block = encoder.encode(ts_ms[start : start + 60], columns[start : start + 60])
        if block[0] & 15 == 1:
            keys.append(int(ts_ms[start]))
            deltapack.decode(block)  # a key stands alone

    assert len(keys) >= 2
    assert max(np.diff([*keys, int(ts_ms[-1])])) <= 900_000 + 60_000
