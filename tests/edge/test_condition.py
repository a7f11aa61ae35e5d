"""The gate: a word on every channel, raw codes untouched, late rows kept, the same answer after a restart."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.condition import BEHIND_ROWS_MAX, ConditionedRow, Conditioner, is_in_session
from protocol.clock import ClockQuality
from protocol.profile import Profile, builtin, parse
from protocol.reading import MachineState, Quality, Reading, Stamp
from protocol.refusal import Refusal
from protocol.units import DeviceId

STAMP = Stamp(1, 0, 0, ClockQuality.SYNCED)

SMALL = parse(
    'id = "rig"\nversion = 1\nmodel = "Rig"\nmaker = "Lab"\ncircuits = 1\n'
    '[[channel]]\nname = "temp"\nunit = "degC"\nrole = "cap_temp"\ndecimals = 2\nlo = -20.0\nhi = 50.0\nmax_rate = 3.0\nsigma = 0.03\n'
    "sentinels = [85.0, -127.0]\n"
    '[[channel]]\nname = "state"\nunit = "1"\nrole = "state"\nlo = 0\nhi = 15\ndiscrete = true\n'
)


def reading(ts_ms: int, *codes: int | None, counter: int | None = None) -> Reading:
    return Reading(DeviceId("cooler-0001"), ts_ms, STAMP, codes, counter, 7 if counter is not None else 0)


def settled(profile: Profile = SMALL, rows: int = 30) -> Conditioner:
    conditioner = Conditioner(profile)
    for second in range(rows):
        conditioner.take(reading(second * 1000, 400, 4, counter=second))
    return conditioner


def test_a_steady_channel_is_ok_and_its_smooth_value_in_milli() -> None:
    row = settled().take(reading(30_000, 401, 4))

    assert row.quality == bytes([Quality.OK, Quality.OK])
    assert row.smoothed_milli[0] == pytest.approx(4000, abs=20)
    assert row.smoothed_milli[1] == 4000
    assert row.reading.codes == (401, 4)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, Quality.MISSING), (8500, Quality.SENTINEL), (-12_700, Quality.SENTINEL), (5001, Quality.RANGE), (-2001, Quality.RANGE)],
)
def test_a_sample_that_is_none_says_why_and_keeps_its_code(code: int | None, expected: Quality) -> None:
    row = settled().take(reading(30_000, code, 4))

    assert row.quality[0] == expected
    assert row.reading.codes[0] == code
    assert row.smoothed_milli[0] is not None


def test_a_spike_is_marked_and_a_step_is_believed() -> None:
    conditioner = settled()

    qualities = [conditioner.take(reading(30_000 + step * 1000, 650, 4)).quality[0] for step in range(6)]

    assert qualities[0] in {Quality.SPIKE, Quality.RATE}
    assert qualities[-1] == Quality.OK


def test_discrete_codes_are_never_smoothed() -> None:
    conditioner = settled()

    row = conditioner.take(reading(30_000, 400, 1))

    assert row.quality[1] == Quality.OK
    assert row.smoothed_milli[1] == 1000


def test_samples_of_one_millisecond_are_all_judged_and_none_is_stale() -> None:
    conditioner = settled()

    rows = [conditioner.take(reading(30_000, 400 + extra, 4, counter=30 + extra)) for extra in range(20)]

    assert {row.quality for row in rows} == {bytes([Quality.OK, Quality.OK])}


def test_back_fill_is_judged_by_limits_and_leaves_the_tracker_alone() -> None:
    conditioner = settled()
    before = conditioner.take(reading(60_000, 400, 4)).smoothed_milli

    late = conditioner.take(reading(10_000, 2000, 4))
    sentinel = conditioner.take(reading(11_000, 8500, 4))

    assert late.quality[0] == Quality.OK
    assert sentinel.quality[0] == Quality.SENTINEL
    assert sentinel.smoothed_milli == before


def test_the_same_sample_again_is_stale() -> None:
    conditioner = settled()

    assert conditioner.take(reading(29_000, 400, 4, counter=29)).quality == bytes([Quality.STALE, Quality.STALE])


def test_a_clock_set_back_starts_the_trackers_afresh() -> None:
    conditioner = settled()
    conditioner.take(reading(10_000_000, 400, 4))

    rows = [conditioner.take(reading(50_000 + step * 1000, 1200, 4)) for step in range(BEHIND_ROWS_MAX + 3)]

    assert rows[BEHIND_ROWS_MAX - 1].smoothed_milli[0] == pytest.approx(4000, abs=50)
    assert rows[-1].smoothed_milli[0] == pytest.approx(12_000, abs=50)


def test_a_restored_conditioner_goes_on_as_if_nothing_happened() -> None:
    original = settled()
    restored = Conditioner.restore(SMALL, original.state())
    assert isinstance(restored, Conditioner)

    for step in range(30, 60):
        row = reading(step * 1000, 400 + step % 3, 4, counter=step)
        assert restored.take(row) == original.take(row)


def test_a_state_of_another_profile_or_a_damaged_one_is_refused() -> None:
    state = settled().state()

    assert isinstance(Conditioner.restore(replace(SMALL, version=2), state), Refusal)
    assert isinstance(Conditioner.restore(builtin("icecap-cooler"), state), Refusal)
    assert isinstance(Conditioner.restore(SMALL, state[:-9] + b"\x00" * 9), Refusal)
    assert isinstance(Conditioner.restore(SMALL, b"noise"), Refusal)


@pytest.mark.parametrize("state", list(MachineState))
def test_a_session_is_from_pre_cool_to_warm_up_and_a_fault(state: MachineState) -> None:
    expected = state not in {MachineState.OFF, MachineState.COOLING_DOWN, MachineState.READY}

    assert is_in_session(SMALL, (None, state)) is expected
    assert settled().take(reading(30_000, 400, state)).in_session is expected


def test_codes_of_another_profile_are_a_bug() -> None:
    with pytest.raises(ValueError, match="3 codes for the 2 channels"):
        Conditioner(SMALL).take(reading(0, 1, 2, 3))


CODES = st.none() | st.integers(-(2**40), 2**40)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 10**6), CODES, CODES, st.none() | st.integers(0, 9)), max_size=40))
def test_any_sequence_gives_whole_rows_and_the_same_ones_again(sequence: list[tuple[int, int | None, int | None, int | None]]) -> None:
    def run() -> list[ConditionedRow]:
        conditioner = Conditioner(SMALL)
        return [conditioner.take(reading(ts, temp, state, counter=counter)) for ts, temp, state, counter in sequence]

    rows = run()

    assert rows == run()
    for row in rows:
        assert len(row.quality) == len(row.smoothed_milli) == 2
        assert all(Quality.OK <= one < Quality.COASTED for one in row.quality)
        assert all(
            code is not None or quality in {Quality.MISSING, Quality.STALE}
            for code, quality in zip(row.reading.codes, row.quality, strict=True)
        )
