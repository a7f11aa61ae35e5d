"""From facts to books: each session once, whatever comes late, doubled or reordered; ids in names are those of the metering cases."""

import datetime as dt
import random

import pytest
from sqlalchemy import select

from ingest.billing import courses, grants, settle
from ingest.billing.courses import CourseError, Mode
from ingest.billing.grants import GrantError, Issue
from ingest.billing.tables import billing_session
from ingest.store import Store
from protocol.session import What
from tests.billing.world import ABORTED, BOOK, COURSE, NO_INFUSION, NOW_MS, SITE, WHOLE, Clinic, session_id, token_hash


@pytest.fixture
def clinic(store: Store) -> Clinic:
    return Clinic(store)


@pytest.fixture
def selling(clinic: Clinic) -> Clinic:
    """A course with a token of six uses."""
    clinic.open_course()
    clinic.issue(6)
    return clinic


def test_one_session_is_one_treatment_and_one_price(selling):
    selling.play(1)

    assert selling.standings() == {1: "funded"}
    assert (selling.uses("outstanding"), selling.uses("redeemed")) == (5, 1)
    assert (selling.money("revenue"), selling.money("receivable")) == (350_00, -350_00)


def test_i01_the_same_facts_five_times_count_once(selling):
    messages = selling.session(1)
    for _ in range(5):
        selling.apply(*messages)

    assert (selling.uses("redeemed"), selling.money("revenue")) == (1, 350_00)


def test_a_running_session_reserves_and_charges_nothing(selling):
    selling.play(1, ((0, What.COOLING_ON), (10, What.CAP_OFF)))

    assert selling.standings() == {1: "reserved"}
    assert (selling.uses("outstanding"), selling.money("revenue")) == (5, 0)


def test_e23_an_aborted_session_gives_its_use_back(selling):
    selling.play(1, ABORTED)

    assert selling.standings() == {1: "released"}
    assert (selling.uses("outstanding"), selling.money("revenue")) == (6, 0)


def test_p14_an_abort_between_the_second_and_the_third_does_not_move_the_price(selling):
    for number, script in ((1, WHOLE), (2, WHOLE), (3, ABORTED), (4, WHOLE)):
        selling.play(number, script, use=number)

    assert selling.money("revenue") == 1_050_00


def test_c10_no_infusion_is_held_costs_nothing_and_restores_the_use(selling):
    selling.play(1, NO_INFUSION)

    assert selling.standings() == {1: "held"}
    assert (selling.uses("outstanding"), selling.money("revenue")) == (6, 0)
    assert "session_held" in selling.events()


def test_a_fact_that_changes_a_posted_session_takes_it_back_by_new_entries(selling):
    messages = selling.session(1, (*WHOLE, (181, What.NO_CHEMOTHERAPY)))
    selling.apply(*messages[:5])
    assert selling.money("revenue") == 350_00

    selling.apply(*messages[5:])

    assert selling.standings() == {1: "held"}
    assert (selling.money("revenue"), selling.money("receivable"), selling.uses("outstanding")) == (0, 0, 6)


def test_i04_events_before_their_opening_wait_and_then_count_once(selling):
    messages = selling.session(1)

    selling.apply(*messages[1:])
    assert selling.standings() == {}
    selling.apply(messages[0])

    assert (selling.standings(), selling.money("revenue")) == ({1: "funded"}, 350_00)


def test_n10_any_order_and_any_doubling_gives_the_same_books(tmp_path):
    """Six orders of four sessions' facts, each fact twice, in batches of two."""
    rng = random.Random(5)
    books = []
    for attempt in range(6):
        one = Store.open(f"sqlite:///{tmp_path}/order-{attempt}.db")
        one.migrate()
        clinic = Clinic(one)
        clinic.open_course()
        clinic.issue(2)
        messages = [
            m for number, script in ((1, WHOLE), (2, ABORTED), (3, WHOLE), (4, WHOLE)) for m in clinic.session(number, script, use=number)
        ]
        arriving = messages * 2
        rng.shuffle(arriving)
        for batch in zip(arriving[::2], arriving[1::2], strict=True):
            clinic.apply(*batch)
        books.append(clinic.balances())
        assert sorted(clinic.standings().values()) == ["funded", "funded", "released", "unfunded"]
        one.close()

    assert all(book == books[0] for book in books)


def test_e19_two_offline_gateways_accept_one_use(clinic):
    clinic.open_course()
    clinic.issue(1)

    clinic.play(1, gateway="gw-a")
    clinic.play(2, gateway="gw-b")

    assert clinic.standings() == {1: "funded", 2: "unfunded"}
    assert (clinic.money("revenue"), clinic.money("receivable_unfunded"), clinic.uses("grace")) == (700_00, -350_00, -1)
    assert clinic.events().count("session_unfunded") == 1


def test_a6_a_second_presentation_funds_itself_while_another_use_is_left(clinic):
    clinic.open_course()
    clinic.issue(2)

    clinic.play(1, gateway="gw-a", use=0)
    clinic.play(2, gateway="gw-b", use=0)

    assert clinic.standings() == {1: "funded", 2: "funded"}


def test_p26_two_unfunded_among_six(clinic):
    clinic.open_course()
    clinic.issue(4)

    for number in range(1, 7):
        clinic.play(number, use=number)

    assert clinic.money("revenue") == 1_800_00
    assert clinic.money("receivable_unfunded") == -(200_00 + 200_00)


def test_a_later_token_settles_the_grace(clinic):
    clinic.open_course()
    clinic.issue(1)
    clinic.play(1)
    clinic.play(2, token=None)
    assert clinic.uses("grace") == -1

    clinic.issue(3, first=2)
    with clinic.store.transaction() as connection:
        settle.settle_course(connection, COURSE, key="issue:2:settled", posted_ms=NOW_MS)

    assert clinic.standings() == {1: "funded", 2: "funded"}
    assert (clinic.uses("grace"), clinic.uses("outstanding"), clinic.money("receivable_unfunded")) == (0, 2, 0)
    assert (clinic.money("revenue"), clinic.money("receivable")) == (700_00, -700_00)


def test_prepaid_money_is_drawn_before_anything_is_owed(selling):
    with selling.store.transaction() as connection:
        assert grants.prepay(connection, COURSE, payment="p1", amount_minor=500_00, currency="USD", at_ms=NOW_MS)
        assert not grants.prepay(connection, COURSE, payment="p1", amount_minor=500_00, currency="USD", at_ms=NOW_MS)

    selling.play(1)
    assert (selling.money("deferred"), selling.money("receivable")) == (150_00, 0)
    selling.play(2, use=1)

    assert (selling.money("deferred"), selling.money("receivable"), selling.money("revenue")) == (0, -200_00, 700_00)


def test_e27_an_override_without_token_runs_and_is_unfunded(clinic):
    clinic.open_course()

    clinic.play(1, token=None)

    assert clinic.standings() == {1: "unfunded"}
    assert clinic.money("receivable_unfunded") == -350_00


def test_i10_a_session_of_an_unknown_course_is_billed_when_it_is_linked(clinic):
    clinic.play(1, token=None)
    assert (clinic.standings(), clinic.balances()) == ({1: "orphan"}, {})

    clinic.open_course()
    clinic.issue(1)
    with clinic.store.transaction() as connection:
        assert settle.adopt_orphans(connection, COURSE, posted_ms=NOW_MS) == 1
        assert settle.adopt_orphans(connection, COURSE, posted_ms=NOW_MS) == 0

    assert (clinic.standings(), clinic.money("revenue")) == ({1: "funded"}, 350_00)


def test_s5_a_second_treatment_on_one_service_day_is_billed_once_and_asked_about(selling):
    selling.play(1)
    again = selling.session(1, use=1)
    other = [selling._stamped("gw-a", one, 1) for one in _renamed(again)]

    selling.apply(*other)

    assert selling.standings() == {1: "funded", 77: "double"}
    assert selling.money("revenue") == 350_00
    assert "session_double" in selling.events()


def _renamed(messages):
    """The facts of the messages under session id 77."""
    import msgspec

    from protocol import facts, frame

    for message in messages:
        fact = facts.decode(frame.decode(message.payload).body).fact
        yield msgspec.structs.replace(fact, session=session_id(77))


def test_s5_a_machine_swap_continues_the_same_treatment(selling):
    first = ((0, What.COOLING_ON), (15, What.FAULT))
    rest = ((0, What.RESUME), (0, What.COOLING_ON), (20, What.INFUSION_START), (80, What.INFUSION_END), (150, What.END))
    selling.play(1, first)
    selling.play(2, rest, gateway="gw-b", token=None, continues=session_id(1))

    assert selling.standings() == {1: "funded", 2: "continued"}
    assert selling.money("revenue") == 350_00
    with selling.store.reading() as connection:
        row = connection.execute(select(billing_session).where(billing_session.c.session == session_id(1))).one()
    assert row.in_range_ms == (15 + 150) * 60_000


def test_a3_three_insured_and_one_self_paid(clinic):
    clinic.open_course(mode=Mode.INSURED)
    clinic.issue(8)
    with clinic.store.transaction() as connection:
        courses.set_mode(connection, COURSE, from_day=dt.date(2026, 1, 5), mode=Mode.SELF_PAY, payer="patient")

    for number in range(1, 5):
        clinic.play(number, use=number)

    assert clinic.money("revenue") == 350_00


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5, 6, 7, 8), (8, 7, 6, 5, 4, 3, 2, 1), (7, 1, 8, 2, 3, 4, 5, 6)])
def test_a3_six_insured_and_two_self_paid_in_any_order(clinic, order):
    clinic.open_course(mode=Mode.INSURED)
    clinic.issue(8)
    with clinic.store.transaction() as connection:
        courses.set_mode(connection, COURSE, from_day=dt.date(2026, 1, 8), mode=Mode.SELF_PAY, payer="patient")

    for number in order:
        clinic.play(number, use=number)

    assert clinic.money("revenue") == 200_00


def test_b6_a_test_token_is_never_billed_and_never_counted(selling):
    with selling.store.transaction() as connection:
        grants.issue(connection, [Issue(token_hash(9), "TEST", 5)], course="", site=SITE, requested_by="hub", at_ms=NOW_MS)

    selling.play(1, token=9, course="")

    assert selling.standings() == {1: "free"}
    assert (selling.uses("redeemed"), selling.uses("outstanding"), selling.money("revenue")) == (0, 6, 0)


def test_k1_the_service_day_is_the_local_one_at_the_clinic(selling):
    selling.play(1)

    with selling.store.reading() as connection:
        assert connection.execute(select(billing_session.c.service_day)).scalar_one() == "2026-01-02"


def test_a_gateway_that_summed_up_otherwise_is_found(selling):
    from protocol.facts import SessionClosed

    messages = selling.session(1)[:-1]
    lie = selling._stamped("gw-a", SessionClosed(session_id(1), "completed", "confirmed", "completed", 1, 1, 1, 0), 1)
    selling.apply(*messages, lie)

    with selling.store.reading() as connection:
        assert connection.execute(select(billing_session.c.agrees)).scalar_one() is False


def test_a_settlement_that_fails_is_told_and_the_facts_are_kept(clinic, monkeypatch):
    clinic.open_course()
    monkeypatch.setattr(courses, "book_of", lambda _course: 1 / 0)
    messages = clinic.session(1, token=None)
    clinic.apply(*messages)
    assert (clinic.standings(), clinic.events()) == ({}, ["settlement_failed"])
    monkeypatch.undo()

    clinic.apply(*clinic.session(2, token=None))
    with clinic.store.transaction() as connection:
        settle.settle(connection, [session_id(1)], posted_ms=NOW_MS)

    assert clinic.standings() == {1: "unfunded", 2: "unfunded"}
    assert clinic.money("revenue") == 700_00


def test_more_than_twenty_tokens_need_two_people(selling):
    many = [Issue(token_hash(100 + n), "PAID", 1) for n in range(21)]
    with selling.store.transaction() as connection:
        for approved_by in ("", "hub"):
            with pytest.raises(GrantError, match="two people"):
                grants.issue(connection, many, course=COURSE, site=SITE, requested_by="hub", approved_by=approved_by, at_ms=NOW_MS)
        assert grants.issue(connection, many, course=COURSE, site=SITE, requested_by="hub", approved_by="boss", at_ms=NOW_MS) == 2
        assert grants.verify(connection) == []


def test_a_token_is_issued_once(selling):
    with selling.store.transaction() as connection, pytest.raises(GrantError, match="in the log already"):
        grants.issue(connection, [Issue(token_hash(1), "PAID", 1)], course=COURSE, site=SITE, requested_by="hub", at_ms=NOW_MS)


def test_f27_a_token_slipped_past_the_log_is_found(selling):
    from sqlalchemy import insert

    from ingest.billing.tables import token

    with selling.store.transaction() as connection:
        stray = {
            "token": b"S" * 16,
            "course": COURSE,
            "site": SITE,
            "token_class": "PAID",
            "uses": 9,
            "spare": 0,
            "batch": 1,
            "issued_ms": 0,
        }
        connection.execute(insert(token).values(stray))
        assert grants.verify(connection) == [1]


def test_p17_p18_terms_are_pinned_and_a_day_before_the_list_is_parked(clinic):
    clinic.open_course()
    clinic.open_course()
    with clinic.store.transaction() as connection:
        terms = {"site": SITE, "book": BOOK, "mode": Mode.SELF_PAY, "payer": "patient", "at_ms": 0}
        with pytest.raises(CourseError, match="does not cover"):
            courses.open_course(connection, "course-old", enrolled_on=dt.date(2023, 3, 31), **terms)
        with pytest.raises(CourseError, match="other terms"):
            courses.open_course(connection, COURSE, enrolled_on=dt.date(2025, 7, 1), **terms)
        with pytest.raises(CourseError, match="no pseudonym"):
            courses.open_course(connection, "Jane Doe", enrolled_on=dt.date(2025, 7, 1), **terms)
        with pytest.raises(CourseError, match="later day"):
            courses.set_mode(connection, COURSE, from_day=dt.date(2025, 6, 1), mode=Mode.INSURED, payer="x")


def test_the_nightly_identity_holds_after_everything(selling):
    for number, script in ((1, WHOLE), (2, ABORTED), (3, NO_INFUSION), (4, WHOLE), (5, ((0, What.COOLING_ON), (9, What.CAP_OFF)))):
        selling.play(number, script, use=number)
    with selling.store.transaction() as connection:
        assert grants.void_unused(connection, COURSE, uses=2, reason="refund", key="void:1", at_ms=NOW_MS)
        assert not grants.void_unused(connection, COURSE, uses=2, reason="refund", key="void:1", at_ms=NOW_MS)
        with pytest.raises(GrantError, match="unspent uses"):
            grants.void_unused(connection, COURSE, uses=9, reason="refund", key="void:2", at_ms=NOW_MS)
        issued = grants.issued_uses(connection)

    held = {account.split(":")[0]: amount for (account, commodity), amount in selling.balances().items() if commodity == "USE"}
    assert issued == 6 == held["outstanding"] + held["reserved"] + held["redeemed"] + held["voided"]
