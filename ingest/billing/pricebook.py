"""Price books: what the n-th treatment of a course costs, cumulatively. Pure; not the ledger and not an invoice.

T(n), the price of n treatments, is the only thing a book defines; everything owed, credited or refunded is a difference of two T's. That
is what makes late, reordered and voided sessions come out right without re-ordering. Invariant: T never falls and never exceeds the cap.
"""

import datetime as dt
import tomllib
from functools import cache
from importlib import resources

import msgspec

__all__ = [
    "TREATMENTS_MAX",
    "PriceBook",
    "PriceError",
    "Tier",
    "builtin",
    "check_currency",
    "owed",
    "parse",
    "refund",
    "step",
    "total",
    "void",
]

TREATMENTS_MAX = 1000  # a course has twelve treatments, the longest seen sixteen; a thousand is a bug upstream, not a patient


class PriceError(ValueError):
    """A price that cannot be told: a broken book, a wrong count, a foreign currency."""


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Treatments ``first`` to ``last`` (``None``: and all later ones) cost ``price_minor`` each."""

    first: int
    price_minor: int
    last: int | None = None


class PriceBook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"tiers": "tier"}):
    """Graduated tiers per course with a cap. ``kit_in_first``: the cap kit is part of treatment 1 (amendment A4)."""

    id: str
    version: int
    currency: str
    effective_from: dt.date
    tiers: tuple[Tier, ...]
    cap_minor: int | None = None
    kit_in_first: bool = False
    effective_to: dt.date | None = None

    def covers(self, day: dt.date) -> bool:
        """Tell whether a course enrolled on ``day`` may be pinned to this book (half-open: the last day belongs to the next)."""
        return self.effective_from <= day and (self.effective_to is None or day < self.effective_to)


def parse(text: str) -> PriceBook:
    """Return the book in a TOML text. Raises ``PriceError`` naming every fault."""
    try:
        book = msgspec.convert(tomllib.loads(text), type=PriceBook)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        msg = f"price book: {error}"
        raise PriceError(msg) from error
    faults = _faults(book)
    if faults:
        msg = f"price book {book.id!r}: " + "; ".join(faults)
        raise PriceError(msg)
    return book


def _faults(book: PriceBook) -> list[str]:
    faults = []
    expected = 1
    for tier in book.tiers:
        if tier.first != expected:
            faults.append(f"a tier begins at {tier.first}, expected {expected}")
        if tier.price_minor < 0:
            faults.append(f"tier {tier.first} has a negative price")
        if tier.last is not None and tier.last < tier.first:
            faults.append(f"tier {tier.first} ends before it begins")
        expected = TREATMENTS_MAX + 1 if tier.last is None else tier.last + 1
    if not book.tiers or book.tiers[-1].last is not None:
        faults.append("the last tier must be open, so that every treatment has a price")
    if len(book.currency) != 3 or not book.currency.isupper():
        faults.append(f"currency {book.currency!r} is no ISO 4217 code")
    if book.cap_minor is not None and book.cap_minor < 0:
        faults.append("the cap is negative")
    if book.version < 1:
        faults.append("version must be at least 1")
    return faults


@cache
def builtin(book_id: str) -> PriceBook:
    """Return a book that comes with the product. Raises ``PriceError`` when there is none of that id."""
    path = resources.files("ingest.billing") / "books" / f"{book_id}.toml"
    if not path.is_file():
        msg = f"no price book {book_id!r}"
        raise PriceError(msg)
    return parse(path.read_text(encoding="utf-8"))


def total(book: PriceBook, treatments: int) -> int:
    """Return T(n) in minor units. Raises ``PriceError`` for a count that is no whole number from 0 to ``TREATMENTS_MAX``."""
    if type(treatments) is not int or not 0 <= treatments <= TREATMENTS_MAX:
        msg = f"{treatments!r} is no count of treatments"
        raise PriceError(msg)
    sum_minor = 0
    for tier in book.tiers:
        last = treatments if tier.last is None else min(tier.last, treatments)
        sum_minor += max(0, last - tier.first + 1) * tier.price_minor
    return sum_minor if book.cap_minor is None else min(sum_minor, book.cap_minor)


def step(book: PriceBook, treatment: int) -> int:
    """Return the price of the n-th treatment, T(n) - T(n-1); 0 beyond the cap, and it still counts."""
    return total(book, treatment) - total(book, treatment - 1)


def owed(book: PriceBook, *, treatments: int, under_other_modes: int) -> int:
    """Return what self-pay owes of a course: T(all) less T(those under other payment modes) (amendment A3)."""
    if under_other_modes > treatments:
        msg = f"{under_other_modes} treatments under other modes of {treatments} in all"
        raise PriceError(msg)
    return total(book, treatments) - total(book, under_other_modes)


def refund(book: PriceBook, *, prepaid: int, used: int, kit_returned: bool) -> int:
    """Return what goes back for unused prepaid treatments (amendment A4: an opened kit keeps T(1), used or not)."""
    if used > prepaid:
        msg = f"{used} used of {prepaid} prepaid"
        raise PriceError(msg)
    kept = used
    if book.kit_in_first and used == 0 and prepaid > 0 and not kit_returned:
        kept = 1
    return total(book, prepaid) - total(book, kept)


def void(book: PriceBook, *, treatments: int) -> int:
    """Return the credit for voiding one of ``treatments``: the *last* step, T(n) - T(n-1), whichever session is voided (A5)."""
    if treatments < 1:
        msg = "there is no treatment to void"
        raise PriceError(msg)
    return step(book, treatments)


def check_currency(book: PriceBook, currency: str) -> None:
    """Raise ``PriceError`` unless ``currency`` is the book's: currencies are never mixed (case P27)."""
    if currency != book.currency:
        msg = f"a line in {currency} on a course in {book.currency}"
        raise PriceError(msg)
