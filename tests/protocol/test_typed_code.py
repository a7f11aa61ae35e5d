"""Typed codes: each works once, on one gateway, and guessing is braked without braking care."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import typed_code
from protocol.typed_code import AHEAD, BEHIND, BRAKE_MINUTES_MAX, MS_PER_MINUTE, CodeState

KEY = bytes(range(32))


def test_a_code_is_twenty_digits_in_groups_that_one_can_read_out():
    text = typed_code.make(5, KEY)

    assert [len(group) for group in text.split()] == [5, 5, 5, 5]
    assert text.replace(" ", "").isdigit()


@given(st.integers(1, 2**62))
def test_every_code_in_the_window_is_accepted_once(highest):
    state = CodeState(highest=highest)

    for counter in {max(1, highest - BEHIND), highest + 1, highest + AHEAD}:
        outcome = typed_code.check(typed_code.make(counter, KEY), state, KEY)
        assert outcome.counter == counter
        assert typed_code.check(typed_code.make(counter, KEY), outcome.state, KEY).reason == "used"


def test_codes_outside_the_window_are_wrong():
    state = CodeState(highest=1000)

    for counter in (1000 - BEHIND - 1, 1000 + AHEAD + 1, 1000 + 1024):
        assert typed_code.check(typed_code.make(counter, KEY), state, KEY).counter is None


def test_a_code_of_another_gateway_is_wrong():
    assert typed_code.check(typed_code.make(1, KEY), CodeState(), bytes(32)).reason == "wrong"


def test_blanks_and_hyphens_do_not_count():
    text = typed_code.make(3, KEY).replace(" ", "-")

    assert typed_code.check(f" {text} ", CodeState(), KEY).counter == 3


@pytest.mark.parametrize("text", ["", "123", "1" * 19, "1" * 21, "1234567890123456789x", "١" * 20])
def test_what_is_no_code_is_malformed_and_costs_nothing(text):
    outcome = typed_code.check(text, CodeState(), KEY)

    assert (outcome.reason, outcome.state) == ("malformed", CodeState())


def test_e18_wrong_codes_brake_from_one_to_512_minutes_and_a_power_cycle_does_not_lift_it():
    state, waits = CodeState(), []
    for _ in range(13):
        outcome = typed_code.check("0" * 20, state.after(state.brake_left_ms), KEY)
        state = outcome.state
        waits.append(state.brake_left_ms // MS_PER_MINUTE)

    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512]
    assert max(waits) == BRAKE_MINUTES_MAX
    restored = CodeState(state.highest, state.used, state.wrong, state.brake_left_ms)
    assert typed_code.check(typed_code.make(1, KEY), restored, KEY).reason == "braked"
    assert typed_code.check(typed_code.make(1, KEY), restored.after(512 * MS_PER_MINUTE), KEY).counter == 1


def test_a_good_code_clears_the_brake():
    state = typed_code.check("0" * 20, CodeState(), KEY).state

    outcome = typed_code.check(typed_code.make(1, KEY), state, KEY)

    assert (outcome.counter, outcome.state.wrong) == (1, 0)


def test_ten_thousand_guesses_find_nothing():
    rng = random.Random(1)

    assert all(typed_code.check(f"{rng.randrange(10**20):020d}", CodeState(), KEY).counter is None for _ in range(10_000))


@pytest.mark.parametrize(("counter", "key"), [(0, KEY), (2**63, KEY), (1, b"short")])
def test_no_code_is_made_that_cannot_be_checked(counter, key):
    with pytest.raises(ValueError, match="32-byte key"):
        typed_code.make(counter, key)
