"""Blocks: raw codes survive, rejected cells keep their reason and their evidence, hostile bodies are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import block
from protocol.block import BLOCK_ROWS_MAX, REJECTED_CODES_MAX, Rows
from protocol.reading import Quality
from protocol.refusal import Reason, Refusal


def rows_of(codes, quality=None, *, counters=True, rejected=None, lost=0) -> Rows:
    """Rows at 1 Hz from nested lists."""
    table = np.asarray(codes, dtype=np.int64)
    marks = np.zeros(table.shape, dtype=np.uint8) if quality is None else np.asarray(quality, dtype=np.uint8)
    table = np.where(marks == 0, table, 0)
    count = len(table)
    return Rows(
        ts_ms=1_767_225_600_000 + 1000 * np.arange(count, dtype=np.int64),
        codes=table,
        quality=marks,
        counters=100 + np.arange(count, dtype=np.int64) if counters else None,
        source_boot=5,
        rejected=rejected or {},
        rejected_lost=lost,
    )


def assert_same(left: Rows, right: Rows) -> None:
    """Every field, arrays included."""
    np.testing.assert_array_equal(left.ts_ms, right.ts_ms)
    np.testing.assert_array_equal(left.codes, right.codes)
    np.testing.assert_array_equal(left.quality, right.quality)
    assert (left.counters is None) == (right.counters is None)
    if left.counters is not None:
        np.testing.assert_array_equal(left.counters, right.counters)
    assert (left.source_boot, left.rejected, left.rejected_lost) == (right.source_boot, right.rejected, right.rejected_lost)


@st.composite
def any_rows(draw) -> Rows:
    count, channels = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    cell = st.integers(-(2**63), 2**63 - 1) | st.integers(-500, 500)
    codes = draw(st.lists(st.lists(cell, min_size=channels, max_size=channels), min_size=count, max_size=count))
    marks = st.sampled_from([0, 0, 0, *range(1, 7)])
    quality = draw(st.lists(st.lists(marks, min_size=channels, max_size=channels), min_size=count, max_size=count))
    cells = [index for index, mark in enumerate(np.ravel(quality)) if mark > Quality.MISSING]
    rejected = {index: draw(cell) for index in cells if draw(st.booleans())}
    return rows_of(codes, quality, counters=draw(st.booleans()), rejected=rejected, lost=draw(st.integers(0, 2**40)))


@given(any_rows())
def test_every_block_comes_back_as_it_went(rows):
    back = block.decode(block.encode(rows))

    assert isinstance(back, Rows), back
    assert_same(back, rows)


def test_a_rejected_code_is_kept_as_evidence_and_never_as_a_value():
    rows = rows_of([[400], [8500], [402]], [[0], [Quality.SENTINEL], [0]], rejected={1: 8500})

    back = block.decode(block.encode(rows))

    assert isinstance(back, Rows)
    assert (int(back.codes[1, 0]), back.rejected) == (0, {1: 8500})


def test_rejected_codes_beyond_the_bound_are_counted():
    count = REJECTED_CODES_MAX + 10
    rows = rows_of([[1]] * count, [[Quality.SPIKE]] * count, rejected=dict.fromkeys(range(count), 99))

    back = block.decode(block.encode(rows))

    assert isinstance(back, Rows)
    assert (len(back.rejected), back.rejected_lost) == (REJECTED_CODES_MAX, 10)


def test_missing_is_not_zero():
    back = block.decode(block.encode(rows_of([[0], [0]], [[Quality.OK], [Quality.MISSING]])))

    assert isinstance(back, Rows)
    assert back.quality.ravel().tolist() == [Quality.OK, Quality.MISSING]


def test_a_bounded_channel_stays_within_its_bound_and_a_lossless_one_beside_it_is_exact():
    rng = np.random.default_rng(3)
    codes = np.cumsum(rng.integers(-3, 4, size=(300, 2)), axis=0)
    rows = rows_of(codes)

    back = block.decode(block.encode(rows, max_error=(5, 0)))

    assert isinstance(back, Rows)
    assert int(np.abs(back.codes[:, 0] - codes[:, 0]).max()) <= 5
    np.testing.assert_array_equal(back.codes[:, 1], codes[:, 1])
    assert len(block.encode(rows, max_error=(5, 0))) < len(block.encode(rows))


@pytest.mark.parametrize("shape", [(0, 1), (BLOCK_ROWS_MAX + 1, 1), (1, 0), (1, 129)])
def test_shapes_outside_the_limits_are_bugs_of_ours(shape):
    rows = rows_of([[1]])
    bad = Rows(rows.ts_ms, np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.uint8), None, 0, {})

    with pytest.raises(ValueError, match="a block holds"):
        block.encode(bad)


@given(st.binary(max_size=200))
def test_noise_never_raises(noise):
    assert isinstance(block.decode(noise), Rows | Refusal)
    assert isinstance(block.decode(b"\x01\x01" + noise), Rows | Refusal)


def test_each_altered_byte_of_the_quality_section_is_refused_or_reads_as_something_valid():
    rows = rows_of([[1, 2]] * 6, [[0, 0], [1, 4], [0, 4], [2, 0], [0, 0], [6, 6]], rejected={3: 77, 5: -3})
    body = block.encode(rows)

    outcomes = set()
    for at in range(2, len(body)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            answer = block.decode(body[:at] + bytes([value]) + body[at + 1 :])
            outcomes.add(type(answer))
            if isinstance(answer, Rows):
                assert answer.codes.shape == answer.quality.shape == (6, 2)
                assert all(answer.quality.flat[cell] != Quality.OK for cell in answer.rejected)

    assert outcomes == {Rows, Refusal}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: b"\x09" + body[1:], Reason.UNKNOWN_CODEC),
        (lambda body: body[:1] + b"\x80" + body[2:], Reason.UNKNOWN_FLAGS),
        (lambda body: body[:10] + b"\xff\xff\xff\x7f" + body[14:], Reason.BAD_LENGTH),
        (lambda body: body + b"\x00", Reason.BAD_LENGTH),
        (lambda body: body[:-1], Reason.BAD_LENGTH),
        (lambda body: body[:20] + bytes([body[20] ^ 1]) + body[21:], Reason.BAD_COLUMNS),
        (lambda body: body[:5], Reason.TOO_SHORT),
    ],
)
def test_a_broken_body_is_refused_by_name(change, reason):
    answer = block.decode(change(block.encode(rows_of([[1], [2], [3]]))))

    assert isinstance(answer, Refusal)
    assert answer.reason is reason
