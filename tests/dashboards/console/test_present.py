"""How numbers, ages and little pictures are made."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.console.drawing import SPARK_HEIGHT, SPARK_WIDTH, gauge, spark
from dashboards.console.present import Last, age_text, circuits, label, measures, number, state_name
from dashboards.console.web import moment
from protocol.profile import builtin
from protocol.reading import MachineState

PROFILE = builtin("icecap-cooler")


@pytest.mark.parametrize(
    ("milli", "decimals", "text"),
    [
        (None, 1, "–"),
        (0, 1, "0.0"),
        (-4120, 2, "−4.12"),
        (-4, 1, "0.0"),
        (-40, 1, "0.0"),
        (-60, 1, "−0.1"),
        (21_500, 0, "22"),
        (1, 3, "0.001"),
    ],
)
def test_numbers_have_a_true_minus_no_minus_zero_and_a_dash_for_unknown(milli: int | None, decimals: int, text: str) -> None:
    assert number(milli, decimals) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "never"),
        (-5, "0 s"),
        (89_999, "89 s"),
        (90_000, "1 min"),
        (89 * 60_000, "89 min"),
        (90 * 60_000, "1 h 30 min"),
        (48 * 3_600_000, "2 d 0 h"),
    ],
)
def test_ages_use_their_two_largest_units(ms: int | None, text: str) -> None:
    assert age_text(ms) == text


def test_moments_carry_the_zone_of_the_place_also_across_daylight_saving() -> None:
    winter, summer = 1_767_225_600_000, 1_782_864_000_000

    assert moment(winter, "Europe/Berlin") == "2026-01-01 01:00:00 CET"
    assert moment(summer, "Europe/Berlin") == "2026-07-01 02:00:00 CEST"
    assert moment(winter, "No/Where") == "2026-01-01 00:00:00 UTC"
    assert moment(None) == moment(10**30) == "–"


def test_siblings_get_letters_and_only_children_do_not() -> None:
    names = {channel.name: label(PROFILE, channel) for channel in PROFILE.channels}

    assert (names["cap_temp_1a"], names["cap_temp_1b"], names["flow_1"], names["tank_level"]) == ("Cap A", "Cap B", "Flow", "Tank level")


def test_a_state_code_that_nobody_knows_is_unknown_and_not_off() -> None:
    known = {"state_1": Last(1000, 3000), "state_2": Last(1000, 99_000)}

    parts = circuits(PROFILE, measures(PROFILE, known))

    assert [part.state for part in parts] == [None, MachineState.PRE_COOL, None]
    assert state_name(parts[2].state) == "Unknown"


minutes = st.lists(st.tuples(st.integers(0, 59), st.integers(-30_000, 60_000)), unique_by=lambda one: one[0], max_size=60).map(sorted)


@given(st.lists(minutes, max_size=3))
def test_a_sparkline_stays_in_its_frame_and_breaks_at_gaps(series: list[list[tuple[int, int]]]) -> None:
    drawn = spark(series)

    if drawn is None:
        assert not any(series)
        return
    points = [tuple(map(float, point.split(","))) for runs in drawn.lines for run in runs for point in run.split()]
    assert all(0 <= x <= SPARK_WIDTH and 0 <= y <= SPARK_HEIGHT for x, y in points)
    for line, runs in zip(series, drawn.lines, strict=True):
        gaps = sum(after[0] - before[0] > 1 for before, after in itertools.pairwise(line))
        assert len(runs) == (gaps + 1 if line else 0)


@pytest.mark.parametrize("milli", [None, -(10**9), -4000, 10**9])
def test_a_gauge_keeps_every_value_on_its_scale(milli: int | None) -> None:
    last = {} if milli is None else {"coolant_temp_1": Last(1000, milli)}
    row = measures(PROFILE, last)[0]

    drawn = gauge(row, -4000)

    assert drawn is not None
    assert (drawn.value_x is None) == (milli is None)
    assert all(0 <= float(one) <= 200 for one in (drawn.band_x, drawn.band_width, drawn.value_x or "0", drawn.set_x or "0"))
