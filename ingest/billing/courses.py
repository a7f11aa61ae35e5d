"""Courses: a patient's series of treatments under a pseudonym, with its pinned price book and, by dates, who pays. Not the sessions.

Only the Hub opens a course; a replacement kit, a pause or a change of regimen never does (amendment A8). Invariant: the pinned book and its
version never change; a payment mode is a dated row, so yesterday's treatment keeps yesterday's payer (A3).
"""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, func, insert, select

from ingest.billing import pricebook
from ingest.billing.pricebook import PriceBook
from ingest.billing.tables import course, course_mode
from ingest.errors import IngestError
from provisioning import registry

__all__ = ["Course", "CourseError", "Mode", "book_of", "find", "mode_on", "open_course", "set_mode"]

PSEUDONYM_CHARS_MAX = 64  # a keyed hash in hex; a name would be shorter, which is one more reason to refuse blanks and letters outside hex


class CourseError(IngestError):
    """A course that cannot be opened or changed; the message says why and what next."""


class Mode(StrEnum):
    """Who pays a treatment."""

    SELF_PAY = "self_pay"
    INSURED = "insured"
    ASSISTANCE = "assistance"
    FOUNDATION = "foundation"
    COURTESY = "courtesy"


@dataclass(frozen=True, slots=True)
class Course:
    """A course as it was opened."""

    id: str
    site: str
    enrolled_on: dt.date
    price_book: str
    price_book_version: int
    currency: str


def open_course(  # noqa: PLR0913  # a course is these facts; a record for one call would only rename them
    connection: Connection, course_id: str, *, site: str, enrolled_on: dt.date, book: PriceBook, mode: Mode, payer: str, at_ms: int
) -> bool:
    """Open a course; ``False`` when the same one is open already.

    Raises ``CourseError`` for a pseudonym that is none, a book that does not cover the day of enrolment (case P18: the course waits for a
    person), a site that does not exist, or a course of the same name with other terms.
    """
    wanted = Course(course_id, site, enrolled_on, book.id, book.version, book.currency)
    known = find(connection, course_id)
    if known is not None:
        if known != wanted:
            raise CourseError(f"course {course_id} is open with other terms; terms are pinned, open a new course at the Hub instead")
        return False
    if not course_id.isascii() or not course_id.replace("-", "").isalnum() or not 3 <= len(course_id) <= PSEUDONYM_CHARS_MAX:
        raise CourseError(f"{course_id!r} is no pseudonym: 3 to {PSEUDONYM_CHARS_MAX} letters, digits and hyphens")
    if not book.covers(enrolled_on):
        raise CourseError(f"price book {book.id} does not cover {enrolled_on}: choose the book of that day, or park the course")
    if site not in {one.id for one in registry.sites(connection)}:
        raise CourseError(f"there is no site {site!r}; add it with: icecap provision site")
    connection.execute(
        insert(course).values(
            id=course_id,
            site=site,
            enrolled_on=enrolled_on.isoformat(),
            price_book=book.id,
            price_book_version=book.version,
            currency=book.currency,
            opened_ms=at_ms,
        )
    )
    connection.execute(insert(course_mode).values(course=course_id, from_day=enrolled_on.isoformat(), mode=mode.value, payer=payer))
    return True


def set_mode(connection: Connection, course_id: str, *, from_day: dt.date, mode: Mode, payer: str) -> None:
    """Let another payer pay from ``from_day`` on. Raises ``CourseError`` when that day already has its row: history is not rewritten."""
    if find(connection, course_id) is None:
        raise CourseError(f"there is no course {course_id!r}")
    last = connection.execute(select(func.max(course_mode.c.from_day)).where(course_mode.c.course == course_id)).scalar_one()
    if from_day.isoformat() <= last:
        raise CourseError(f"course {course_id}: a payment mode from {last} on is recorded; a later one needs a later day")
    connection.execute(insert(course_mode).values(course=course_id, from_day=from_day.isoformat(), mode=mode.value, payer=payer))


def find(connection: Connection, course_id: str) -> Course | None:
    """Return a course, or ``None``."""
    row = connection.execute(select(course).where(course.c.id == course_id)).one_or_none()
    if row is None:
        return None
    return Course(row.id, row.site, dt.date.fromisoformat(row.enrolled_on), row.price_book, row.price_book_version, row.currency)


def mode_on(connection: Connection, course_id: str, day: str) -> tuple[Mode, str]:
    """Return who pays a treatment of that service day (ISO). A day before enrolment has the first mode: it was delivered, it is paid."""
    rows = connection.execute(select(course_mode).where(course_mode.c.course == course_id).order_by(course_mode.c.from_day)).all()
    if not rows:
        raise CourseError(f"course {course_id!r} has no payment mode")
    chosen = rows[0]
    for row in rows:
        if row.from_day <= day:
            chosen = row
    return Mode(chosen.mode), chosen.payer


def book_of(one: Course) -> PriceBook:
    """Return the pinned price book. Raises ``CourseError`` when it is not installed in that version."""
    book = pricebook.builtin(one.price_book)
    if book.version != one.price_book_version:
        raise CourseError(f"course {one.id} is pinned to {one.price_book} version {one.price_book_version}; installed is {book.version}")
    return book
