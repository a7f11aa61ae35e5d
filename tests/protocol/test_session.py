"""The session table: every rule S and B that is about time, each with its exact moment; ids in names are those of the metering cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import session as table
from protocol.session import MINUTE_MS, Changed, Commit, EndReason, Event, Phase, Rules, Session, What

RULES = Rules()
ID = bytes(range(16))


def minutes(number: float) -> int:
    return round(number * MINUTE_MS)


def run(*script: tuple[float, What], until: float | None = None) -> tuple[Session, list[Changed]]:
    """Play ``(minute, event)`` pairs and let time pass until a minute."""
    session, seen = table.begin(ID), []
    for minute, what in script:
        session, changes = table.step(session, Event(what, minutes(minute)), RULES)
        seen.extend(changes)
    if until is not None:
        session, changes = table.advance(session, minutes(until), RULES)
        seen.extend(changes)
    return session, seen


ON, OFF, CAP_OFF, CAP_ON = What.COOLING_ON, What.COOLING_OFF, What.CAP_OFF, What.CAP_ON
START, STOP, END = What.INFUSION_START, What.INFUSION_END, What.END


def test_a_whole_session_goes_through_its_phases_and_counts_its_minutes():
    session, seen = run((1, ON), (31, START), (91, STOP), (181, END))

    assert [one.phase for one in seen] == [Phase.PRECOOL, Phase.PRECOOL, Phase.INFUSION, Phase.POSTCOOL, Phase.COMPLETED]
    assert (session.phase, session.commit, session.end_reason) == (Phase.COMPLETED, Commit.CONFIRMED, EndReason.COMPLETED)
    assert (session.in_range_ms, session.post_in_range_ms) == (minutes(180), minutes(90))


def test_twenty_minutes_in_range_make_it_provisional_at_the_exact_moment():
    _, seen = run((0, ON), until=30)

    assert seen[-1] == Changed(minutes(20), Phase.PRECOOL, Commit.PROVISIONAL)


def test_minutes_out_of_range_do_not_count():
    _, seen = run((0, ON), (15, OFF), (40, ON), until=50)

    assert seen[-1] == Changed(minutes(45), Phase.PRECOOL, Commit.PROVISIONAL)


def test_sixty_minutes_in_range_confirm_without_any_mark():
    _, seen = run((0, ON), until=90)

    assert seen[-1] == Changed(minutes(60), Phase.PRECOOL, Commit.CONFIRMED)


def test_an_infusion_mark_while_cooling_confirms_at_once():
    session, _ = run((0, ON), (5, START))

    assert session.commit is Commit.CONFIRMED


def test_an_infusion_mark_before_any_cooling_counts_when_twenty_minutes_are_reached():
    session, seen = run((0, START), (1, ON), until=30)

    assert (session.phase, session.commit) == (Phase.INFUSION, Commit.CONFIRMED)
    assert seen[-1].at_ms == minutes(21)


def test_e23_an_abort_at_minute_three_releases_the_use():
    session, _ = run((0, ON), (3, END))

    assert (session.phase, session.commit, session.end_reason) == (Phase.RELEASED, Commit.NONE, EndReason.ABORT)


@pytest.mark.parametrize("gap", [10, 16])
def test_e25_a_cap_off_for_ten_or_sixteen_minutes_then_resumed_is_one_session(gap):
    script = [(0, ON), (30, START), (40, CAP_OFF)]
    back = [(40 + gap, What.RESUME)] if gap > 15 else []

    session, seen = run(*script, *back, (40 + gap, CAP_ON), (40 + gap, ON), (90, STOP), (180, END))

    assert (session.phase, session.commit) == (Phase.COMPLETED, Commit.CONFIRMED)
    assert session.session_id == ID
    assert session.in_range_ms == minutes(180 - gap)
    assert any(one.phase is Phase.ENDED_EARLY for one in seen) == (gap > 15)


def test_a_pause_ends_at_exactly_fifteen_minutes():
    _, seen = run((0, ON), (30, START), (40, CAP_OFF), until=60)

    assert seen[-1] == Changed(minutes(55), Phase.ENDED_EARLY, Commit.CONFIRMED, EndReason.GAP)


@pytest.mark.parametrize(("after", "phase"), [(240, Phase.INFUSION), (240.1, Phase.ENDED_EARLY)])
def test_staff_may_resume_for_four_hours(after, phase):
    session, _ = run((0, ON), (30, START), (40, CAP_OFF), (55 + after, What.RESUME))

    assert session.phase is phase


def test_nothing_resumes_after_the_day_has_ended():
    session, _ = run((0, ON), (30, START), (40, CAP_OFF), (60, What.DAY_END), (61, What.RESUME))

    assert session.phase is Phase.ENDED_EARLY


def test_c10_precool_for_25_minutes_and_no_chemotherapy_is_held():
    session, seen = run((0, ON), (25, What.NO_CHEMOTHERAPY), (26, END))

    assert Commit.PROVISIONAL in {one.commit for one in seen}
    assert (session.phase, session.commit) == (Phase.ENDED_EARLY, Commit.HOLD)


def test_a_provisional_session_without_any_mark_is_held_at_the_end_of_the_day():
    session, _ = run((0, ON), (30, END), (600, What.DAY_END))

    assert session.commit is Commit.HOLD


def test_a_late_infusion_mark_confirms_until_the_day_ends_and_not_after():
    early, _ = run((0, ON), (30, END), (100, START), (600, What.DAY_END))
    late, _ = run((0, ON), (30, END), (600, What.DAY_END), (601, START))

    assert (early.commit, late.commit) == (Commit.CONFIRMED, Commit.HOLD)


def test_sixty_minutes_do_not_confirm_against_staff_who_say_no_chemotherapy():
    session, _ = run((0, ON), (10, What.NO_CHEMOTHERAPY), until=70)

    assert session.commit is Commit.HOLD


def test_a_fault_before_the_infusion_ends_is_held_and_after_it_counts():
    before, _ = run((0, ON), (30, START), (60, What.FAULT), until=80)
    after, _ = run((0, ON), (30, START), (60, STOP), (70, What.FAULT), until=90)

    assert (before.phase, before.commit) == (Phase.ENDED_FAULT, Commit.HOLD)
    assert (after.phase, after.commit) == (Phase.ENDED_FAULT, Commit.CONFIRMED)


def test_a_fault_that_is_swapped_to_another_machine_in_time_goes_on_as_one_session():
    session, _ = run((0, ON), (30, START), (60, What.FAULT), (70, What.RESUME), (72, ON), (90, STOP), (180, END))

    assert (session.phase, session.commit) == (Phase.COMPLETED, Commit.CONFIRMED)


def test_a_held_fault_that_staff_resume_is_confirmed_again():
    session, _ = run((0, ON), (30, START), (60, What.FAULT), (80, What.RESUME))

    assert (session.phase, session.commit) == (Phase.INFUSION, Commit.CONFIRMED)


def test_a_fault_explains_a_cap_that_is_off_but_a_cap_does_not_explain_a_fault():
    first, _ = run((0, ON), (25, CAP_OFF), (26, What.FAULT), until=60)
    second, _ = run((0, ON), (25, What.FAULT), (26, CAP_OFF), until=60)

    assert first.end_reason is second.end_reason is EndReason.FAULT


def test_power_lost_before_the_commit_point_releases():
    session, _ = run((0, ON), (10, What.POWER_LOST), until=30)

    assert (session.phase, session.end_reason) == (Phase.RELEASED, EndReason.POWER)


def test_marks_while_paused_count_when_the_patient_is_back():
    session, _ = run((0, ON), (30, CAP_OFF), (32, START), (35, CAP_ON))

    assert session.phase is Phase.INFUSION


def test_a_second_mark_does_not_move_the_first():
    session, _ = run((0, ON), (30, START), (40, START), (90, STOP), (95, STOP))

    assert (session.infusion_start_ms, session.infusion_end_ms) == (minutes(30), minutes(90))


def test_an_infusion_cannot_end_before_it_began():
    session, _ = run((0, ON), (30, STOP))

    assert session.infusion_end_ms is None


def test_ending_without_post_cooling_is_early_and_counts():
    session, _ = run((0, ON), (30, START), (60, END))

    assert (session.phase, session.commit, session.end_reason) == (Phase.ENDED_EARLY, Commit.CONFIRMED, EndReason.STAFF)


events = st.lists(st.tuples(st.integers(0, 40 * MINUTE_MS), st.sampled_from(What)), max_size=25)


def played(script) -> list[Event]:
    at, out = 0, []
    for delay, what in script:
        at += delay
        out.append(Event(what, at))
    return out


@given(events)
def test_replaying_the_same_events_gives_the_same_session(script):
    facts = played(script)
    session = table.begin(ID)
    for event in facts:
        session, _ = table.step(session, event, RULES)

    assert table.replay(ID, tuple(facts), RULES) == session


@given(events, st.integers(MINUTE_MS, 30 * MINUTE_MS))
def test_looking_at_the_clock_more_often_changes_nothing(script, every):
    coarse = fine = table.begin(ID)
    coarse_seen, fine_seen = [], []
    for event in played(script):
        coarse, changes = table.step(coarse, event, RULES)
        coarse_seen.extend(changes)
        for at in range(fine.now_ms, event.at_ms, every):
            fine, changes = table.advance(fine, at, RULES)
            fine_seen.extend(changes)
        fine, changes = table.step(fine, event, RULES)
        fine_seen.extend(changes)

    assert (fine, fine_seen) == (coarse, coarse_seen)


@given(events)
def test_durations_add_up_and_never_run_backward(script):
    session = table.begin(ID)
    for event in played(script):
        before = session
        session, changes = table.step(session, event, RULES)
        assert all(before.now_ms <= one.at_ms <= session.now_ms for one in changes)
        assert 0 <= session.post_in_range_ms <= session.in_range_ms
        assert session.in_range_ms + session.paused_ms <= session.now_ms
        assert session.session_id == ID


@given(events, st.integers(-(10**9), -1))
def test_an_event_from_the_past_does_not_turn_time_back(script, skew):
    session = table.replay(ID, tuple(played(script)), RULES)

    after, _ = table.step(session, Event(What.CAP_ON, session.now_ms + skew), RULES)

    assert after.now_ms == session.now_ms


@given(events)
def test_a_released_session_is_never_a_treatment_and_a_treatment_is_never_released(script):
    session = table.replay(ID, tuple(played(script)), RULES)

    assert (session.phase is Phase.RELEASED) <= (session.commit in {Commit.NONE, Commit.HOLD})
    if session.commit is Commit.CONFIRMED:
        assert session.phase is not Phase.RELEASED
