"""Profiles: the built-in cooler is whole, and a wrong profile is told everything that is wrong with it at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import native
from protocol import profile
from protocol.profile import ProfileError, Role
from protocol.reading import Quality
from protocol.units import Scale

COOLER = profile.builtin("icecap-cooler")


def test_the_cooler_has_two_circuits_with_all_their_channels():
    for circuit in (1, 2):
        roles = [channel.role for channel in COOLER.channels if channel.circuit == circuit]
        assert roles.count(Role.CAP_TEMP) == 2
        assert {Role.COOLANT_TEMP, Role.FLOW, Role.PRESSURE, Role.PUMP_CURRENT, Role.SET_POINT, Role.STATE} <= set(roles)
    machine = {channel.role for channel in COOLER.channels if channel.circuit == 0}
    assert machine == {Role.TANK_LEVEL, Role.AMBIENT_TEMP, Role.CONDENSER_TEMP, Role.MAINS_VOLTAGE, Role.LIFETIME}


def test_the_cooler_is_lossless_by_default():
    assert not any(COOLER.max_error_codes)


def test_quality_numbers_are_those_of_the_kernel():
    assert {one.name: one.value for one in Quality} == {name: getattr(native, name) for name in Quality.__members__}


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(ProfileError, match="icecap-cooler"):
        profile.builtin("nosuch")


def test_all_errors_are_reported_at_once():
    text = """
        id = "X"
        version = 0
        model = "m"
        maker = "m"
        circuits = 1
        [[channel]]
        name = "A"
        unit = "furlong"
        role = "flow"
        lo = 2
        hi = 1
        circuit = 3
        decimals = 12
        raw = "z"
    """

    with pytest.raises(ProfileError) as caught:
        profile.parse(text)

    for part in (
        "id must be",
        "version must be",
        "lower case",
        "furlong",
        "lo must be below hi",
        "circuit 3",
        "decimals 0 to 9",
        "raw must be",
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize("text", ["id = ", "id = 'abc'", "id='abc'\nversion=1\nmodel='m'\nmaker='m'\ncircuits=1\nchannel=[]\nsurprise=1"])
def test_a_broken_document_is_a_profile_error(text):
    with pytest.raises(ProfileError):
        profile.parse(text)


@given(st.integers(-(10**9), 10**9), st.integers(1, 250), st.integers(0, 4))
def test_a_printed_decimal_comes_back_to_its_code(code, multiplier, decimals):
    scale = Scale(multiplier, decimals)

    assert scale.to_code(scale.to_value(code)) == code


@given(st.integers(-(10**12), 10**12), st.integers(1, 250), st.integers(0, 9))
def test_milli_is_the_exact_value_rounded_half_to_even(code, multiplier, decimals):
    from fractions import Fraction

    assert Scale(multiplier, decimals).to_milli(code) == round(Fraction(code * multiplier * 1000, 10**decimals))


def test_a_code_prints_with_the_digits_its_sensor_has():
    assert Scale(1, 2).format(-412) == "-4.12"
    assert Scale(5, 1).format(3) == "1.5"
