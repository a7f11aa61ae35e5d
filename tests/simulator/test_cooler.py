import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from protocol.profile import Role, builtin
from protocol.reading import MachineState
from simulator.cooler import IDLE, Cooler, Demand, Sample
from simulator.faults import HEALTHY, Effects, Fault, FaultKind, effects, parse, surprise

PROFILE = builtin("icecap-cooler")
START_MS = 1_767_254_400_000  # a morning
MINUTE = 60
GOLDEN = "e5a07389f43a80714021fbce25125e1d17bcd772cb0d0899999d7156ce4243ce"
PRE_COOL = Demand(phases=(MachineState.PRE_COOL, MachineState.READY))
INFUSION = Demand(phases=(MachineState.INFUSION, MachineState.READY))


def machine(seed: str = "seed") -> Cooler:
    return Cooler(PROFILE, seed=seed, start_ms=START_MS)


def ready_machine(seed: str = "seed") -> Cooler:
    cooler = machine(seed)
    cooler.advance(30 * MINUTE * 1000)
    assert cooler.states[0] is MachineState.READY
    return cooler


def play(cooler: Cooler, seconds: int, demand: Demand = IDLE, effect: Effects = HEALTHY) -> Iterator[Sample]:
    for _ in range(seconds):
        yield cooler.step(1_000, demand, effect)


def values(samples: Sequence[Sample], channel: str) -> list[float]:
    """Values of a channel without the odd sensor fault, which other tests look for."""
    index = PROFILE.index(channel)
    scale = PROFILE.channels[index].scale
    found = [scale.to_value(code) for sample in samples if (code := sample.codes[index]) is not None]
    middle = sorted(found)[len(found) // 2]
    return [value for value in found if abs(value - middle) < 60]


def mean(samples: Sequence[Sample], channel: str) -> float:
    found = values(samples, channel)
    return sum(found) / len(found)


def test_the_same_seed_gives_the_same_history():
    """Golden: whoever changes the physics or the order of draws changes this number, and says so."""
    digest = hashlib.sha256()
    cooler = machine("golden")
    for demand, effect in ((IDLE, HEALTHY), (PRE_COOL, HEALTHY), (INFUSION, Effects(hose_resistance=(5.0, 1.0)))):
        for sample in play(cooler, 900, demand, effect):
            digest.update(repr((sample.ts_ms, sample.counter, sample.codes)).encode())

    assert digest.hexdigest() == GOLDEN


def test_another_seed_gives_another_history():
    assert [sample.codes for sample in play(machine("a"), 5)] != [sample.codes for sample in play(machine("b"), 5)]


def test_time_and_counter_advance_by_what_was_asked():
    samples = list(play(machine(), 5))

    assert [sample.ts_ms for sample in samples] == [START_MS + 1_000 * number for number in range(1, 6)]
    assert [sample.counter for sample in samples] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_warm_machine_is_ready_within_thirty_minutes_and_not_within_five(seed):
    cooler = machine(seed)
    cooler.advance(5 * MINUTE * 1000)
    early = cooler.states[0]

    cooler.advance(25 * MINUTE * 1000)

    assert early is MachineState.COOLING_DOWN
    assert cooler.states == (MachineState.READY, MachineState.READY)


def test_a_ready_tank_stays_within_the_thermostats_reach():
    samples = list(play(ready_machine(), 40 * MINUTE))

    coolant = values(samples, "coolant_temp_1")
    inside = [value for value in coolant if -5.2 < value < -2.5]
    assert len(inside) > 0.998 * len(coolant)
    assert max(inside) - min(inside) > 0.8, "the compressor cycles"


def test_a_cooled_head_comes_to_the_temperatures_of_practice():
    cooler = ready_machine()
    samples = list(play(cooler, 60 * MINUTE, INFUSION))[-300:]

    assert 1.5 < mean(samples, "cap_temp_1a") < 4.5
    assert 2.0 < mean(samples, "cap_temp_1b") < 5.0
    assert -5 < mean(samples, "coolant_temp_1") < -3
    assert 2.0 < mean(samples, "flow_1") < 2.4
    assert abs(mean(samples, "flow_2")) < 0.1, "the other place stands still"


def test_flow_pressure_and_current_belong_together():
    cooler = ready_machine()
    free = list(play(cooler, 120, INFUSION))[-60:]
    kinked = list(play(cooler, 120, INFUSION, Effects(hose_resistance=(12.0, 1.0))))[-60:]

    assert mean(kinked, "flow_1") < 0.5 * mean(free, "flow_1")
    assert mean(kinked, "pressure_1") > 1.5 * mean(free, "pressure_1")
    assert mean(kinked, "pump_current_1") < mean(free, "pump_current_1")


def test_a_toilet_break_warms_the_cap_and_not_the_tank():
    cooler = ready_machine()
    cold = list(play(cooler, 30 * MINUTE, INFUSION))[-60:]
    away = list(play(cooler, 8 * MINUTE, Demand(phases=(MachineState.PAUSED, MachineState.READY))))[-60:]

    assert mean(away, "cap_temp_1a") > mean(cold, "cap_temp_1a") + 8
    assert abs(mean(away, "coolant_temp_1") - mean(cold, "coolant_temp_1")) < 1.5
    assert abs(mean(away, "flow_1")) < 0.1


def test_the_lifetime_counter_counts_seconds_switched_on():
    cooler = machine()
    index = PROFILE.index("lifetime_s")
    first = cooler.step(1_000).codes[index]
    cooler.advance(600_000, Demand(powered=False))

    second = cooler.step(1_000).codes[index]

    assert first is not None
    assert second == first + 1


def test_sensors_report_on_their_own_steps_within_their_range():
    for sample in play(ready_machine(), 600, INFUSION):
        for channel, code in zip(PROFILE.channels, sample.codes, strict=True):
            if code is not None:
                value = channel.scale.to_value(code)
                assert channel.lo <= value <= channel.hi or value in channel.sentinels


def test_spikes_sentinels_and_gaps_occur_and_are_rare():
    samples = list(play(machine("noise"), 6_000))
    gaps = sum(code is None for sample in samples for code in sample.codes)
    sentinels = sum(
        code is not None and channel.scale.to_value(code) in channel.sentinels
        for sample in samples
        for channel, code in zip(PROFILE.channels, sample.codes, strict=True)
        if channel.sentinels
    )
    ambient = values(samples, "ambient_temp")
    jumps = sum(abs(later - earlier) > 0.3 for earlier, later in pairwise(ambient))

    assert 1 <= gaps < 100
    assert 1 <= sentinels < 60
    assert 1 <= jumps < 40


def test_the_room_has_a_day():
    cooler = machine()
    index = PROFILE.index("ambient_temp")

    def hour_later() -> float:
        cooler.advance(3_600_000 - 1_000, Demand(powered=False))
        code = cooler.step(1_000, Demand(powered=False)).codes[index]
        return (code or 0) / 100

    hours = [hour_later() for _ in range(24)]

    assert 2.0 < max(hours) - min(hours) < 7.0


def test_no_time_is_refused():
    with pytest.raises(ValueError, match="time"):
        machine().step(0)


# faults: each cause must show in the channel that it acts on, and must not without it


def outcome(fault: FaultKind, seconds: int, *, demand: Demand = INFUSION) -> tuple[list[Sample], list[Sample]]:
    """The last minute of a healthy and of a broken machine with the same seed."""
    results = []
    for faults in ((), (Fault(fault, START_MS, 2**62),)):
        cooler = ready_machine()
        now_ms = START_MS + 30 * MINUTE * 1000
        samples = []
        for _ in range(seconds):
            now_ms += 1_000
            samples.append(cooler.step(1_000, demand, effects(faults, now_ms)))
        results.append(samples[-60:])
    return results[0], results[1]


@pytest.mark.parametrize(
    ("fault", "seconds", "channel", "change"),
    [
        (FaultKind.KINKED_HOSE, 120, "flow_1", -1.0),
        (FaultKind.LOW_COOLANT, 1_800, "tank_level", -10.0),
        (FaultKind.LEAKING_CAP, 1_800, "tank_level", -5.0),
        (FaultKind.FAILING_COMPRESSOR, 5_400, "coolant_temp_1", 1.5),
        (FaultKind.MAINS_SAG, 60, "mains_voltage", -50.0),
        (FaultKind.DEAD_PUMP, 300, "flow_1", -1.8),
    ],
)
def test_a_fault_shows_in_what_it_acts_on(fault, seconds, channel, change):
    demand = Demand(phases=(MachineState.INFUSION, MachineState.INFUSION))
    healthy, broken = outcome(fault, seconds, demand=demand)

    difference = mean(broken, channel) - mean(healthy, channel)
    assert difference < change if change < 0 else difference > change


def test_a_dirty_condenser_runs_hot_while_the_tank_is_pulled_down():
    clean, dirty = (
        list(play(machine(), 600, IDLE, effect))[-60:] for effect in (HEALTHY, effects([Fault(FaultKind.DIRTY_CONDENSER, 0, 2**62)], 1))
    )

    assert mean(clean, "condenser_temp") - mean(clean, "ambient_temp") < 10
    assert mean(dirty, "condenser_temp") - mean(dirty, "ambient_temp") > 10


def test_a_dead_pump_draws_too_much_then_trips_and_the_machine_says_fault():
    cooler = ready_machine()
    fault = [Fault(FaultKind.DEAD_PUMP, 0, 2**62)]
    begin = [cooler.step(1_000, INFUSION, effects(fault, 1_000 * second)) for second in range(1, 31)]
    for second in range(31, 120):
        last = cooler.step(1_000, INFUSION, effects(fault, 1_000 * second))

    assert max(values(begin, "pump_current_1")) > 3.5
    assert cooler.states[0] is MachineState.FAULT
    assert cooler.states[1] is MachineState.READY
    assert last.codes[PROFILE.index("state_1")] == MachineState.FAULT


def test_a_drifting_sensor_misleads_the_thermostat():
    _healthy, broken = outcome(FaultKind.DRIFTING_SENSOR, 3_600)
    cooler = ready_machine()
    for second in range(3_600):
        cooler.step(1_000, INFUSION, effects([Fault(FaultKind.DRIFTING_SENSOR, 0, 2**62)], second * 1_000))

    assert -5.5 < mean(broken, "coolant_temp_1") < -2.5, "the display looks right"
    assert cooler._circuits[0].coolant < -6.5, "the tank is not"


def test_a_frozen_screen_repeats_values_and_time_while_the_tank_warms():
    cooler = ready_machine()
    cooler.step(1_000, INFUSION)
    before = cooler._circuits[0].coolant

    frozen = list(play(cooler, 900, INFUSION, Effects(is_frozen=True)))

    assert len({sample.codes for sample in frozen}) == 1
    assert len({sample.ts_ms for sample in frozen}) == 1
    assert [sample.counter for sample in frozen] == list(range(frozen[0].counter, frozen[0].counter + 900))
    assert cooler._circuits[0].coolant > before + 1


def test_below_180_volts_the_compressor_stays_off():
    samples = list(play(machine(), 600, IDLE, Effects(mains=0.7)))

    assert mean(samples[-60:], "coolant_temp_1") > 15


def test_effects_end_with_their_fault():
    fault = Fault(FaultKind.KINKED_HOSE, 1_000, 2_000, circuit=2)

    assert effects([fault], 999) is HEALTHY
    assert effects([fault], 1_000).hose_resistance == (1.0, 12.0)
    assert effects([fault], 2_000) is HEALTHY


def test_a_fault_is_written_in_a_word():
    fault = parse("kinked_hose@10-25:2*0.5", origin_ms=1_000)

    assert fault == Fault(FaultKind.KINKED_HOSE, 601_000, 1_501_000, 2, 0.5)
    assert parse("dead_pump@1", origin_ms=0).end_ms == 2**62


@pytest.mark.parametrize(
    "text", ["", "flood@1", "dead_pump", "dead_pump@x", "dead_pump@5-4", "dead_pump@1:3", "dead_pump@1*2", "dead_pump@1*0"]
)
def test_a_fault_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="fault"):
        parse(text, origin_ms=0)


def test_surprises_are_seeded_and_of_every_kind():
    found = [surprise(f"s{number}", start_ms=0, end_ms=3_600_000) for number in range(200)]

    assert found == [surprise(f"s{number}", start_ms=0, end_ms=3_600_000) for number in range(200)]
    assert {fault.kind for fault in found} == set(FaultKind)
    assert all(0 <= fault.start_ms < 1_800_000 for fault in found)


def test_the_profile_has_a_place_for_every_channel_of_the_machine():
    assert len(machine().step(1_000).codes) == len(PROFILE.channels)
    assert PROFILE.by_role(Role.LIFETIME)
