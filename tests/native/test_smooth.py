"""Conditioner: what is refused is named, what is lost is coasted over, what is true is followed at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from native import COASTED, MISSING, OK, RANGE, RATE, SENTINEL, SPIKE, STALE, DecodeError, hampel, smooth

SENSOR: dict[str, Any] = {"lo": -5000, "hi": 6000, "sentinels": (8500, -12700), "sigma": 3.0, "max_rate": 10.0}


def settled(level: int = 400, **changes: float) -> smooth.Smoother:
    """A smoother that has seen 30 s of a steady channel."""
    made = smooth.Smoother(**{**SENSOR, **changes})
    for row in range(30):
        made.update(row * 1000, level + (-1) ** row)
    return made


@pytest.mark.parametrize(
    ("code", "quality"), [(8500, SENTINEL), (-12700, SENTINEL), (6001, RANGE), (-5001, RANGE), (400 + 30, RATE), (400 + 21, SPIKE)]
)
def test_a_bad_sample_returns_its_reason_and_the_coasted_value(code: int, quality: int) -> None:
    value, slope, got = settled().update(30_000, code)

    assert got == quality
    assert value == pytest.approx(400, abs=2)
    assert abs(slope) < 1


def test_a_missing_sample_is_coasted_and_then_missing() -> None:
    smoother = settled(coast_ms=5000)

    qualities = [smoother.update(30_000 + 1000 * row, None) for row in range(8)]

    assert [quality for *_, quality in qualities] == [COASTED] * 5 + [MISSING] * 3
    assert all(value == pytest.approx(400, abs=2) for value, _, quality in qualities if quality == COASTED)
    assert math.isnan(qualities[-1][0])
    assert smoother.update(40_000, 900)[0::2] == (900.0, OK)


def test_before_the_first_good_sample_there_is_no_value() -> None:
    smoother = smooth.Smoother(**SENSOR)

    assert smoother.update(0, None)[2] == MISSING
    assert smoother.update(1000, 8500)[2] == SENTINEL
    assert math.isnan(smoother.update(2000, 9999)[0])
    assert smoother.update(3000, 12) == (12.0, 0.0, OK)


@pytest.mark.parametrize("t_ms", [29_000, 28_000, -5])
def test_a_stamp_that_does_not_advance_changes_nothing(t_ms: int) -> None:
    smoother, twin = settled(), settled()

    assert smoother.update(t_ms, 9000)[2] == STALE
    assert smoother.update(30_000, 401) == twin.update(30_000, 401)


def test_three_agreeing_samples_are_believed_two_seconds_after_the_step() -> None:
    smoother = settled()

    qualities = [smoother.update(30_000 + 1000 * row, 1400 + row)[2] for row in range(4)]

    assert qualities == [RATE, RATE, OK, OK]
    assert smoother.jumps == 1
    assert smoother.update(34_000, 1404)[0] == pytest.approx(1404, abs=2)


def test_scattered_outliers_are_never_believed() -> None:
    smoother = settled()

    for row, code in enumerate([1400, 3000, -900, 2200, 5000, -4000]):
        value, _, quality = smoother.update(30_000 + 1000 * row, code)
        assert quality in {SPIKE, RATE}
        assert value == pytest.approx(400, abs=10)


def test_a_ramp_is_followed_without_lag_and_its_slope_is_right() -> None:
    smoother = settled()

    for row in range(120):
        value, slope, quality = smoother.update(30_000 + 1000 * row, 400 + 3 * row)
        assert quality == OK

    assert value == pytest.approx(400 + 3 * 119, abs=0.5)
    assert slope == pytest.approx(3.0, abs=0.05)


def test_missing_rows_and_missing_cells_coast_alike() -> None:
    by_cells, by_rows = settled(), settled()
    for row in range(30, 36):
        by_cells.update(row * 1000, None)

    assert by_cells.update(36_000, 401) == by_rows.update(36_000, 401)


def test_what_is_refused_is_counted() -> None:
    smoother = settled()
    smoother.update(30_000, 8500)
    smoother.update(31_000, None)

    assert smoother.counts[OK] == 30
    assert smoother.counts[SENTINEL] == 1
    assert smoother.counts[COASTED] == 1


def test_a_restored_smoother_goes_on_as_if_nothing_happened() -> None:
    smoother = settled()
    smoother.update(30_000, 1400)
    restored = smooth.Smoother.restore(smoother.state())

    assert restored.counts == smoother.counts
    for row in range(31, 60):
        assert restored.update(row * 1000, 1400 + row % 5) == smoother.update(row * 1000, 1400 + row % 5)
    assert restored.state() == smoother.state()


def test_a_damaged_state_is_refused_by_name() -> None:
    state = settled().state()

    for at in range(len(state)):
        damaged = bytearray(state)
        damaged[at] ^= 1
        with pytest.raises(DecodeError) as refusal:
            smooth.Smoother.restore(bytes(damaged))
        assert refusal.value.reason in {"bad_magic", "bad_crc"}
    with pytest.raises(DecodeError, match="truncated"):
        smooth.Smoother.restore(state[:50])


@pytest.mark.parametrize(
    "bad", [{"lo": 9, "hi": 1}, {"sigma": 0.0}, {"sigma": math.inf}, {"alpha": 0.0}, {"beta": 1.5}, {"window": 3}, {"period_ms": 0}]
)
def test_impossible_parameters_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"must|above"):
        smooth.Smoother(**{**SENSOR, **bad})


def test_hampel_replaces_an_outlier_by_the_median_and_keeps_the_rest() -> None:
    made = hampel.Hampel(lo=-5000, hi=6000, sigma=1.0, window=7)

    values = [made.update(row * 1000, code)[0::2] for row, code in enumerate([10, 11, 10, 12, 900, 11, 10])]

    assert values[3] == (12.0, OK)
    assert values[4] == (11.0, SPIKE)
    assert values[5] == (11.0, OK)


def test_median_is_the_middle_of_the_window() -> None:
    made = hampel.Median(lo=-5000, hi=6000, window=3)

    assert [made.update(row * 1000, code)[0] for row, code in enumerate([5, 9, 1, 7])] == [5.0, 7.0, 5.0, 7.0]


def test_batch_takes_empty_arrays() -> None:
    empty = np.zeros(0, np.int64)

    assert [len(part) for part in settled().batch(empty, empty)] == [0, 0, 0]


@pytest.mark.parametrize("t_ms", [2**62, -(2**62)])
def test_a_stamp_that_is_no_time_is_refused(t_ms: int) -> None:
    with pytest.raises(ValueError, match="not a time"):
        settled().update(t_ms, 400)
    with pytest.raises(ValueError, match="not a time"):
        settled().batch(np.array([t_ms], np.int64), np.array([1], np.int64))
