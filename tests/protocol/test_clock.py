"""Clocks: scaled time is shared time, wall steps never touch durations."""

from protocol.clock import ClockQuality, MachineClock, ManualClock, ScaledClock

SECOND_NS = 1_000_000_000


def test_two_processes_with_one_origin_agree_on_scaled_time():
    now = [5 * SECOND_NS]
    first = ScaledClock(lambda: now[0], origin_ns=5 * SECOND_NS, start_wall_ms=1000, scale=60)
    second = ScaledClock(lambda: now[0], origin_ns=5 * SECOND_NS, start_wall_ms=1000, scale=60)

    now[0] += 2 * SECOND_NS

    assert first.wall_ms() == second.wall_ms() == 1000 + 120_000
    assert first.quality() is ClockQuality.RELATIVE


def test_a_wall_step_does_not_move_the_monotonic_clock():
    clock = ManualClock()
    before = clock.monotonic_ms()

    clock.step_wall(-86_400_000)
    clock.advance(10)

    assert clock.monotonic_ms() - before == 10


def test_the_machine_clock_says_when_nothing_disciplines_it():
    synced = [False]
    clock = MachineClock(lambda: 7_000_000, lambda: 9_000_000, lambda: synced[0])

    assert (clock.wall_ms(), clock.monotonic_ms(), clock.quality().letter) == (7, 9, "I")
    synced[0] = True
    assert clock.quality().letter == "S"
