"""The past of a machine: exact values, honest gaps, marked rejections, bounded answers."""

import numpy as np
import pytest

from dashboards.console.history import MARKS_MAX, POINTS_MAX, Range, Series, read
from protocol import block
from protocol.reading import Quality
from tests.dashboards.console.world import PROFILE, World, rows

SERIAL, GATEWAY = "cooler-0004", "gw-uferpark-1"


def past(world: World, span: Range, *channels: str, serial: str = SERIAL) -> Series:
    with world.store.reading() as connection:
        return read(connection, serial, PROFILE, channels=channels, span=span, to_ms=world.clock.wall)


def test_single_samples_come_back_as_they_were_measured(world: World) -> None:
    start = world.clock.wall - 300_000
    values = [4.0 + 0.01 * n for n in range(120)]
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"cap_temp_1a": values})))

    found = past(world, Range.QUARTER, "cap_temp_1a")

    assert found.bucket_ms == 0
    assert found.t_ms == [start + 1000 * n for n in range(120)]
    assert found.curves[0].mean == [round(one, 2) for one in values]
    assert found.curves[0].lo == found.curves[0].hi == found.curves[0].mean


def test_blocks_that_arrive_in_any_order_and_overlap_give_each_row_once(world: World) -> None:
    start = world.clock.wall - 300_000
    early, late = rows(start, {"flow_1": [1.0] * 60}), rows(start + 30_000, {"flow_1": [1.0] * 60})
    world.apply([*world.blocks(SERIAL, GATEWAY, late), *world.blocks(SERIAL, GATEWAY, early)])

    assert past(world, Range.QUARTER, "flow_1").t_ms == [start + 1000 * n for n in range(90)]


def test_a_gap_is_an_empty_point_between_two_lines(world: World) -> None:
    start = world.clock.wall - 300_000
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"flow_1": [2.0] * 30})))
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start + 90_000, {"flow_1": [2.0] * 30})))

    found = past(world, Range.QUARTER, "flow_1")

    assert found.curves[0].mean == [2.0] * 30 + [None] + [2.0] * 30
    assert found.t_ms == sorted(found.t_ms)


def test_a_missing_sample_is_unknown_and_its_neighbours_are_not(world: World) -> None:
    start = world.clock.wall - 60_000
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"flow_1": [2.0, None, 0.0], "tank_level": [60.0, 60.0, 60.0]})))

    found = past(world, Range.QUARTER, "flow_1", "tank_level")

    assert found.curves[0].mean == [2.0, None, 0.0]
    assert found.curves[1].mean == [60.0] * 3
    assert [(one.t_ms, one.value, one.reason) for one in found.curves[0].marks] == [(start + 1000, None, "missing")]


def test_a_rejected_sample_keeps_its_raw_value_and_its_reason(world: World) -> None:
    start = world.clock.wall - 60_000
    made = rows(start, {"coolant_temp_1": [-4.0] * 10})
    index = PROFILE.index("coolant_temp_1")
    made.codes[3, index], made.quality[3, index] = 0, Quality.SENTINEL
    made.rejected[3 * len(PROFILE.channels) + index] = 8500
    world.apply(world.blocks(SERIAL, GATEWAY, made))

    curve = past(world, Range.QUARTER, "coolant_temp_1").curves[0]

    assert curve.mean[3] is None
    assert curve.rejected == 1
    assert [(one.t_ms, one.value, one.reason) for one in curve.marks] == [(start + 3000, 85.0, "sentinel")]


def test_an_hour_at_4_hz_is_thinned_without_losing_a_spike(world: World) -> None:
    start = world.clock.wall - 3_600_000
    values = [2.0] * 14_400
    values[7_201] = 9.5
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"flow_1": values}, every_ms=250)))

    found = past(world, Range.HOUR, "flow_1")

    assert 500 < len(found.t_ms) <= POINTS_MAX
    assert found.bucket_ms > 0
    assert max(one for one in found.curves[0].hi if one is not None) == 9.5
    assert min(one for one in found.curves[0].lo if one is not None) == 2.0
    assert None not in found.curves[0].mean


def test_the_answer_is_bounded_however_many_gaps_there_are(world: World) -> None:
    count = 1400
    start = world.clock.wall - 3_500_000
    made = rows(start, {"flow_1": [2.0] * count})
    times = start + np.cumsum(np.where(np.arange(count) % 4 == 0, 9_000, 100)).astype(np.int64)
    scattered = block.Rows(times, made.codes, made.quality, None, 9, {})
    world.apply(world.blocks(SERIAL, GATEWAY, scattered))

    found = past(world, Range.HOUR, "flow_1")

    assert len(found.t_ms) <= POINTS_MAX
    assert len(found.curves[0].mean) == len(found.t_ms)


def test_the_marks_are_bounded_and_the_count_is_not(world: World) -> None:
    start = world.clock.wall - 800_000
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"flow_1": [None] * 700, "tank_level": [60.0] * 700})))

    curve = past(world, Range.QUARTER, "flow_1").curves[0]

    assert curve.rejected == 700
    assert len(curve.marks) == MARKS_MAX
    assert curve.marks[-1].t_ms == start + 699_000  # the newest are kept


def test_a_day_comes_from_the_roll_up_with_exact_means_and_extremes(world: World) -> None:
    start = world.clock.wall // 60_000 * 60_000 - 3_600_000
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"flow_1": [1.0, 2.0, 3.0] * 20, "tank_level": [60.0] * 60})))
    world.roll()

    found = past(world, Range.DAY, "flow_1", "tank_level")

    assert found.bucket_ms == 60_000
    assert len(found.t_ms) == 1440
    at = found.t_ms.index(start)
    flow = found.curves[0]
    assert (flow.mean[at], flow.lo[at], flow.hi[at]) == (2.0, 1.0, 3.0)
    assert [one for one in flow.mean if one is not None] == [2.0]


def test_a_week_is_thinned_by_weight(world: World) -> None:
    start = world.clock.wall // 480_000 * 480_000 - 6 * 3_600_000
    from_ms = world.clock.wall - Range.WEEK.length_ms
    world.apply(world.blocks(SERIAL, GATEWAY, rows(start, {"flow_1": [1.0] * 60 + [4.0] * 30})))
    world.roll()

    found = past(world, Range.WEEK, "flow_1")

    assert found.from_ms == from_ms
    assert len(found.t_ms) <= POINTS_MAX
    known = [(mean, lo, hi) for mean, lo, hi in zip(found.curves[0].mean, found.curves[0].lo, found.curves[0].hi, strict=True) if mean]
    total = 60 * 1.0 + 30 * 4.0
    assert known in ([(round(total / 90, 3), 1.0, 4.0)], [(1.0, 1.0, 1.0), (4.0, 4.0, 4.0)])


def test_nothing_known_is_an_empty_answer(world: World) -> None:
    assert past(world, Range.HOUR, "flow_1").t_ms == []
    assert set(past(world, Range.DAY, "flow_1").curves[0].mean) == {None}


def test_an_unknown_channel_is_an_error_of_the_caller(world: World) -> None:
    with pytest.raises(KeyError):
        past(world, Range.HOUR, "no_such_channel")


def test_the_simulated_machine_shows_its_gap_and_its_rejections(world: World) -> None:
    found = past(world, Range.HOUR, *[one.name for one in PROFILE.channels], serial="cooler-0001")

    coolant = found.curves[0]
    holes = [at for at, one in zip(found.t_ms, coolant.mean, strict=True) if one is None]
    assert any(world.clock.wall - 600_000 <= at < world.clock.wall - 420_000 for at in holes)
    assert sum(one.rejected for one in found.curves) > 0
    assert found.unreadable == 0
