"""The self-pay price list to the cent; the ids in the names are those of the metering cases P."""

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.billing import pricebook
from ingest.billing.pricebook import PriceError

BOOK = pricebook.builtin("us-self-pay-2023")


@pytest.mark.parametrize(
    ("case", "treatments", "expected"),
    [
        ("P01", 0, 0),
        ("P02", 1, 350_00),
        ("P03", 2, 700_00),
        ("P04", 4, 1_400_00),
        ("P05", 5, 1_600_00),
        ("P06", 6, 1_800_00),
        ("P07", 7, 1_900_00),
        ("P08", 12, 2_400_00),
        ("P09", 13, 2_400_00),
        ("P10", 20, 2_400_00),
    ],
)
def test_p01_to_p10_totals(case, treatments, expected):
    assert pricebook.total(BOOK, treatments) == expected, case


def test_p09_the_thirteenth_treatment_costs_nothing_and_has_a_step():
    assert pricebook.step(BOOK, 13) == 0


def test_p12_void_one_of_twelve_then_one_more():
    credit = pricebook.void(BOOK, treatments=12)

    assert credit == 100_00
    assert pricebook.total(BOOK, 12) - credit == pricebook.total(BOOK, 11) == 2_300_00
    assert pricebook.step(BOOK, 12) == 100_00


@pytest.mark.parametrize(("day", "priced"), [(dt.date(2023, 3, 31), False), (dt.date(2023, 4, 1), True)])
def test_p18_a_course_enrolled_before_the_list_is_not_priced_by_it(day, priced):
    assert BOOK.covers(day) is priced


@pytest.mark.parametrize(
    ("prepaid", "used", "kit_returned", "expected"),
    [
        (4, 3, False, 350_00),
        (6, 3, False, 750_00),
        (12, 5, False, 800_00),
        (12, 0, True, 2_400_00),
        (12, 0, False, 2_050_00),
        (0, 0, False, 0),
    ],
)
def test_p24_refunds(prepaid, used, kit_returned, expected):
    assert pricebook.refund(BOOK, prepaid=prepaid, used=used, kit_returned=kit_returned) == expected


def test_p27_a_line_in_another_currency_is_refused():
    with pytest.raises(PriceError, match="EUR"):
        pricebook.check_currency(BOOK, "EUR")


@pytest.mark.parametrize("count", [-1, 2.5, "3", math.nan, True, None, 1001])
def test_p28_what_is_no_count_is_refused_at_the_boundary(count):
    with pytest.raises(PriceError, match="no count"):
        pricebook.total(BOOK, count)


@pytest.mark.parametrize(("other", "own", "expected"), [(3, 1, 350_00), (6, 2, 200_00), (0, 6, 1_800_00), (12, 1, 0)])
def test_a3_self_pay_owes_the_difference_to_what_others_pay(other, own, expected):
    assert pricebook.owed(BOOK, treatments=other + own, under_other_modes=other) == expected


@given(st.integers(0, 1000))
def test_tiers_alone_reach_exactly_the_cap(treatments):
    by_tiers = sum(35000 if n <= 4 else 20000 if n <= 6 else 10000 if n <= 12 else 0 for n in range(1, treatments + 1))

    assert pricebook.total(BOOK, treatments) == by_tiers == min(by_tiers, 240_000)


@given(st.integers(1, 1000))
def test_a_total_never_falls_and_steps_add_up_to_it(treatments):
    assert pricebook.step(BOOK, treatments) >= 0
    assert sum(pricebook.step(BOOK, n) for n in range(1, min(treatments, 40) + 1)) == pricebook.total(BOOK, min(treatments, 40))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("first = 5", "first = 6"), "begins at 6"),
        (("price_minor = 20000", "price_minor = -1"), "negative price"),
        (('"USD"', '"usd"'), "ISO 4217"),
        (("first = 13", "first = 13\nlast = 20"), "must be open"),
        (("last = 6", "last = 4"), "ends before"),
        (("cap_minor = 240000", "cap_minor = -5"), "cap is negative"),
        (("version = 1", "version = 0"), "version"),
        (("cap_minor = 240000", "cap_minor = 2400.00"), "price book"),
        (("kit_in_first = true", "surprise = 1"), "price book"),
    ],
)
def test_a_broken_book_is_refused_with_its_fault(change, fault):
    from importlib import resources

    text = (resources.files("ingest.billing") / "books" / "us-self-pay-2023.toml").read_text()

    with pytest.raises(PriceError, match=fault):
        pricebook.parse(text.replace(*change))


def test_an_unknown_book_is_named():
    with pytest.raises(PriceError, match="nosuch"):
        pricebook.builtin("nosuch")
