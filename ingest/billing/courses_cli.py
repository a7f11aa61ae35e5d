"""``icecap courses``: open a course, say who pays from when, see how it stands and why. An entry point: reads the clock."""

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, select

from ingest.billing import courses, ledger, pricebook, settle
from ingest.billing.courses import Mode
from ingest.billing.settle import TREATMENTS
from ingest.billing.tables import billing_session, course_mode
from ingest.cli_options import ConfigOption, DatabaseOption, store_of
from ingest.errors import IngestError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Courses of treatment: open one, say who pays, see how it stands.")

CourseArgument = Annotated[str, typer.Argument(help="The course's pseudonym; never a name.")]
DEFAULT_BOOK = "us-self-pay-2023"


@app.command(name="open")
def open_one(  # one option a term
    course: CourseArgument,
    *,
    site: Annotated[str, typer.Option(help="The clinic's site.")],
    enrolled: Annotated[dt.datetime, typer.Option(formats=["%Y-%m-%d"], help="Day of enrolment; it pins the price book.")],
    book: Annotated[str, typer.Option(help="Price book.")] = DEFAULT_BOOK,
    mode: Annotated[Mode, typer.Option(help="Who pays.")] = Mode.SELF_PAY,
    payer: Annotated[str, typer.Option(help="Payer of record, as a pseudonym or an organisation.")] = "patient",
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Open a course, pin its price book, and take over sessions that waited for it."""
    at_ms = _now_ms()
    with _plain_errors(), store_of(database, config) as (store, _), store.transaction() as connection:
        terms = pricebook.builtin(book)
        new = courses.open_course(
            connection, course, site=site, enrolled_on=enrolled.date(), book=terms, mode=mode, payer=payer, at_ms=at_ms
        )
        adopted = settle.adopt_orphans(connection, course, posted_ms=at_ms)
    state = "opened" if new else "was open already, with the same terms"
    typer.echo(f"course {course} {state}; {adopted} waiting session(s) linked")


@app.command()
def mode(
    course: CourseArgument,
    *,
    mode: Annotated[Mode, typer.Option(help="Who pays.")],
    since: Annotated[dt.datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First service day of this mode.")],
    payer: Annotated[str, typer.Option(help="Payer of record.")],
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Let another payer pay from a day on; earlier days keep theirs."""
    at_ms = _now_ms()
    with _plain_errors(), store_of(database, config) as (store, _), store.transaction() as connection:
        courses.set_mode(connection, course, from_day=since.date(), mode=mode, payer=payer)
        key = f"mode:{course}:{since.date()}"
        settle.settle_course(connection, course, key=key, posted_ms=at_ms)
    typer.echo(f"course {course}: {mode} by {payer} from {since.date()}")


@app.command()
def show(course: CourseArgument, *, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Print a course: terms, each session with its step of the price, what is owed and what is left."""
    with _plain_errors(), store_of(database, config) as (store, _), store.reading() as connection:
        _print(connection, course)


def _print(connection: Connection, course_id: str) -> None:
    found = courses.find(connection, course_id)
    if found is None:
        raise IngestError(f"there is no course {course_id!r}")
    book, console = courses.book_of(found), Console()
    console.print(f"[bold]{found.id}[/] at {found.site}, enrolled {found.enrolled_on}, {book.id} v{book.version} in {found.currency}")
    for row in connection.execute(select(course_mode).where(course_mode.c.course == course_id).order_by(course_mode.c.from_day)):
        console.print(f"  from {row.from_day}: {row.mode}, payer {row.payer}")
    here = billing_session.c
    rows = connection.execute(select(billing_session).where(here.course == course_id).order_by(here.service_day, here.opened_ms)).all()
    table = Table("service day", "session", "machine", "phase", "in range", "after infusion", "stands", "step")
    treatment = 0
    for row in rows:
        counts = row.standing in TREATMENTS
        treatment += counts
        step = _money(pricebook.step(book, treatment), found.currency) if counts else ""
        cooled, after = f"{row.in_range_ms // 60_000} min", f"{row.post_in_range_ms // 60_000} min"
        table.add_row(row.service_day, row.session.hex()[:8], f"{row.device}/{row.circuit}", row.phase, cooled, after, row.standing, step)
    console.print(table)
    for name in ("outstanding", "reserved", "redeemed", "grace", "voided"):
        amount = sum(held for (_, unit), held in ledger.balances(connection, prefix=f"{name}:{course_id}").items() if unit == ledger.USE)
        if amount:
            console.print(f"  {name}: {amount} use(s)")
    for name in ("revenue", "deferred", "receivable", "receivable_unfunded"):
        amount = ledger.balance(connection, f"{name}:{course_id}", found.currency)
        if amount:
            console.print(f"  {name}: {_money(amount, found.currency)}")


def _money(amount_minor: int, currency: str) -> str:
    sign, whole = "-" if amount_minor < 0 else "", abs(amount_minor)
    return f"{sign}{whole // 100:,}.{whole % 100:02d} {currency}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (IngestError, ValueError) as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error
