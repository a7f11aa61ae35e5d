from itertools import pairwise

import pytest

from protocol.reading import MachineState
from simulator.clinic import DAY_MS, MINUTE_MS, Clinic, Shift, plan_day

DAY = 20_465
SEEDS = [f"seed-{number}" for number in range(40)]


def shifts() -> list[Shift]:
    return [plan_day(seed, "cooler-0001", DAY) for seed in SEEDS]


def test_the_same_seed_machine_and_day_give_the_same_shift():
    first = plan_day("a", "cooler-0001", DAY)
    plan_day.cache_clear()

    assert plan_day("a", "cooler-0001", DAY) == first


@pytest.mark.parametrize("other", [("b", "cooler-0001", DAY), ("a", "cooler-0002", DAY), ("a", "cooler-0001", DAY + 1)])
def test_every_seed_machine_and_day_is_different(other):
    assert plan_day(*other) != plan_day("a", "cooler-0001", DAY)


def test_phases_follow_one_another_as_in_practice():
    follows = {
        MachineState.PRE_COOL: {MachineState.INFUSION},
        MachineState.INFUSION: {MachineState.PAUSED, MachineState.POST_COOL},
        MachineState.PAUSED: {MachineState.INFUSION},
        MachineState.POST_COOL: {MachineState.WARM_UP},
        MachineState.WARM_UP: {MachineState.PRE_COOL},
    }
    seen = {pair for shift in shifts() for circuit in shift.circuits for pair in pairwise(segment.phase for segment in circuit)}

    assert {(earlier, later) for earlier, choices in follows.items() for later in choices} == seen
    assert all(circuit[0].phase is MachineState.PRE_COOL for shift in shifts() for circuit in shift.circuits if circuit)


def test_lengths_are_those_of_practice():
    bounds = {
        MachineState.PRE_COOL: (30, 45),
        MachineState.INFUSION: (10, 180),
        MachineState.PAUSED: (4, 9),
        MachineState.POST_COOL: (20, 150),
        MachineState.WARM_UP: (5, 10),
    }
    for shift in shifts():
        for segment in (segment for circuit in shift.circuits for segment in circuit):
            low, high = bounds[segment.phase]
            assert low * MINUTE_MS <= segment.end_ms - segment.start_ms <= high * MINUTE_MS


def test_no_one_is_cooled_twice_at_once_or_while_the_machine_is_off():
    for shift in shifts():
        for circuit in shift.circuits:
            assert all(earlier.end_ms <= later.start_ms for earlier, later in pairwise(circuit))
            assert all(shift.on_ms + 30 * MINUTE_MS <= one.start_ms and one.end_ms < shift.off_ms for one in circuit)


def test_a_day_has_sessions_on_both_places_of_most_machines():
    sessions = [shift.sessions for shift in shifts()]

    assert 2 <= sum(sessions) / len(sessions) <= 6
    assert any(not circuit for shift in shifts() for circuit in shift.circuits), "some places stand idle"


def test_demand_follows_the_timetable():
    shift = next(shift for shift in shifts() if shift.circuits[0])
    first = shift.circuits[0][0]

    assert not shift.demand(shift.on_ms - 1).powered
    assert shift.demand(first.start_ms - 1).phases[0] is MachineState.READY
    assert shift.demand(first.start_ms).phases[0] is MachineState.PRE_COOL
    assert not shift.demand(shift.off_ms).powered


def test_a_shift_ends_on_the_day_on_which_it_began():
    assert all(DAY * DAY_MS < shift.on_ms < shift.off_ms < (DAY + 1) * DAY_MS for shift in shifts())


@pytest.mark.parametrize("coolers", [0, 65])
def test_a_clinic_has_a_sensible_number_of_machines(coolers):
    with pytest.raises(ValueError, match="coolers"):
        Clinic("a", coolers)


def test_serial_numbers_are_counted():
    assert Clinic("a", 3).serials == ("cooler-0001", "cooler-0002", "cooler-0003")
