"""Settlement: what sessions come to, written into the ledger as the difference to what is there, in the transaction that stores the facts.

    touched sessions → replay → standing → USES moves and the course's MONEY difference, under one key

A session's standing is a function of its facts; a course's money is a function of how many treatments stand how (cumulative T(n)). So late,
doubled and reordered facts come to the same books (N10). Invariant: nothing is ever taken back by deleting; a change of mind is a new
transaction, and what only a person can decide becomes an event for a person.
"""

import datetime as dt
from collections import Counter
from collections.abc import Collection
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, func, select

from ingest import effects
from ingest.billing import courses, ledger, pricebook, sessions
from ingest.billing.courses import Mode
from ingest.billing.ledger import USE, Posting, Transaction
from ingest.billing.sessions import Replayed
from ingest.billing.tables import billing_session, course, ledger_entry, ledger_transaction, token
from ingest.intake import Happening
from ingest.sql import upsert
from protocol.session import Commit, Rules
from protocol.token import TokenClass
from provisioning import registry

__all__ = ["Standing", "adopt_orphans", "settle", "settle_course"]

MS_PER_S = 1000


class Standing(StrEnum):
    """How a session stands in the books."""

    RESERVED = "reserved"
    WAITING = "waiting"
    """Running, and no unspent use was left to reserve."""
    FUNDED = "funded"
    UNFUNDED = "unfunded"
    FREE = "free"
    """TEST class: never billed, never counted (B6)."""
    RELEASED = "released"
    HELD = "held"
    DOUBLE = "double"
    """A second treatment of the same course on the same service day: bill one, ask a person (S5)."""
    CONTINUED = "continued"
    """Part of another session after a machine swap."""
    ORPHAN = "orphan"


TREATMENTS = (Standing.FUNDED, Standing.UNFUNDED)


def settle(connection: Connection, touched: Collection[bytes], *, posted_ms: int, rules: Rules | None = None) -> None:
    """Bring the books up to what the facts of these sessions now say."""
    roots = sorted({sessions.root_of(connection, one) for one in touched})
    others = sorted({*touched, *(follower for root in roots for follower in sessions.followers(connection, root))} - set(roots))
    # A session that goes on elsewhere must stand before its parts can point to it, and hears of them afterwards.
    for session_id in [*roots, *others, *(roots if others else ())]:
        replayed = sessions.replay(connection, session_id, rules or Rules())
        if replayed is not None:
            _settle_one(connection, session_id, replayed, posted_ms=posted_ms)


def _settle_one(connection: Connection, session_id: bytes, replayed: Replayed, *, posted_ms: int) -> None:
    before = connection.execute(select(billing_session).where(billing_session.c.session == session_id)).one_or_none()
    row = _row_of(connection, session_id, replayed)
    was = Standing(before.standing) if before else None
    becomes = _standing(connection, row, replayed, was)
    postings = before.postings if before else 0
    moves = _use_moves(session_id, str(row["course"]), was, becomes)
    changed = was is not becomes
    _store(connection, row | {"standing": becomes.value, "postings": postings + changed})
    if changed:
        key = f"session:{session_id.hex()}:{postings + 1}"
        _post(connection, key, becomes.value, row, moves=moves, posted_ms=posted_ms)
        _tell(connection, session_id, row, becomes, posted_ms=posted_ms)


def _row_of(connection: Connection, session_id: bytes, replayed: Replayed) -> dict[str, object]:
    opened, state = replayed.opened, replayed.state
    known = connection.execute(select(token).where(token.c.token == opened.fact.token)).one_or_none() if opened.fact.token else None
    named = known.course if known else opened.fact.course  # what was sold wins over what a gateway says
    open_course = courses.find(connection, named) if named else None
    return {
        "session": session_id,
        "gateway": opened.gateway,
        "device": opened.fact.device,
        "circuit": opened.fact.circuit,
        "course": open_course.id if open_course else "",
        "token": opened.fact.token,
        "use_index": opened.fact.use_index,
        "token_class": known.token_class if known else opened.fact.token_class,
        "start": opened.fact.start,
        "opened_ms": opened.wall_ms,
        "service_day": _service_day(connection, opened.gateway, opened.wall_ms),
        "phase": state.phase.value,
        "step": state.commit.value,
        "end_reason": state.end_reason.value if state.end_reason else "",
        "elapsed_ms": state.now_ms,
        "in_range_ms": state.in_range_ms,
        "post_in_range_ms": state.post_in_range_ms,
        "continues": opened.fact.continues,
        "agrees": replayed.agrees,
    }


def _service_day(connection: Connection, gateway: str, wall_ms: int) -> str:
    """The local date at the clinic when the session began (rule K1)."""
    known = registry.find_gateways(connection, [gateway]).get(gateway)
    zones = {one.id: one.time_zone for one in registry.sites(connection)}
    zone = ZoneInfo(zones.get(known.site, "UTC") if known else "UTC")
    return dt.datetime.fromtimestamp(wall_ms / MS_PER_S, zone).date().isoformat()


def _standing(connection: Connection, row: dict[str, object], replayed: Replayed, was: Standing | None) -> Standing:
    apart = _outside_the_books(connection, row, replayed)
    if apart is not None:
        return apart
    state, course_id = replayed.state, str(row["course"])
    if state.commit is Commit.CONFIRMED:
        if was in TREATMENTS or was is Standing.DOUBLE:
            return was
        if _treated_that_day(connection, row):
            return Standing.DOUBLE
        return Standing.FUNDED if was is Standing.RESERVED or _use_left(connection, course_id) else Standing.UNFUNDED
    if state.phase.closed and state.commit is Commit.NONE:
        return Standing.RELEASED
    return Standing.RESERVED if was is Standing.RESERVED or _use_left(connection, course_id) else Standing.WAITING


def _outside_the_books(connection: Connection, row: dict[str, object], replayed: Replayed) -> Standing | None:
    """Why a session holds no use and costs nothing, whatever was cooled."""
    continues = replayed.opened.fact.continues
    if continues and connection.execute(select(billing_session.c.session).where(billing_session.c.session == continues)).first():
        return Standing.CONTINUED
    if row["token_class"] == TokenClass.TEST:
        return Standing.FREE
    if not row["course"]:
        return Standing.ORPHAN
    return Standing.HELD if replayed.state.commit is Commit.HOLD else None


def _treated_that_day(connection: Connection, row: dict[str, object]) -> bool:
    here = billing_session.c
    same = (here.course == row["course"]) & (here.service_day == row["service_day"]) & (here.session != row["session"])
    return connection.execute(select(here.session).where(same & here.standing.in_(TREATMENTS))).first() is not None


def _use_left(connection: Connection, course_id: str) -> bool:
    return ledger.balance(connection, f"outstanding:{course_id}", USE) > 0


def _use_moves(session_id: bytes, course_id: str, was: Standing | None, becomes: Standing) -> list[Posting]:
    """The moves of one use from where the old standing holds it to where the new one does."""
    held: Counter[str] = Counter()
    for standing, sign in ((was, -1), (becomes, 1)):
        source, target = {
            Standing.RESERVED: (f"outstanding:{course_id}", f"reserved:{session_id.hex()}"),
            Standing.FUNDED: (f"outstanding:{course_id}", f"redeemed:{course_id}"),
            Standing.UNFUNDED: (f"grace:{course_id}", f"redeemed:{course_id}"),
        }.get(standing or Standing.ORPHAN, ("", ""))
        if source:
            held[source] -= sign
            held[target] += sign
    return [Posting(account, USE, amount) for account, amount in held.items() if amount]


def _post(connection: Connection, key: str, kind: str, row: dict[str, object], *, moves: list[Posting], posted_ms: int) -> None:
    course_id = str(row["course"])
    postings = [*moves, *(_money(connection, course_id, key, posted_ms) if course_id else ())]
    if postings:
        at_ms = row["opened_ms"]
        scope = str(row["gateway"])
        one = Transaction(key, kind, at_ms if isinstance(at_ms, int) else posted_ms, tuple(postings), scope)
        ledger.post(connection, one, posted_ms=posted_ms)


def _money(connection: Connection, course_id: str, key: str, posted_ms: int) -> list[Posting]:
    """What must move so that the course's accounts stand where its treatments put them (§3.5, A3, A5, P26)."""
    found = courses.find(connection, course_id)
    if found is None:
        return []
    book, currency = courses.book_of(found), found.currency
    every, other, unfunded = _counts(connection, course_id)
    revenue = pricebook.owed(book, treatments=every, under_other_modes=other)
    accounts = {name: f"{name}:{course_id}" for name in ("revenue", "deferred", "receivable", "receivable_unfunded")}
    now = {name: ledger.balance(connection, account, currency) for name, account in accounts.items()}
    if revenue > now["revenue"] and every < _treatments_posted(connection, course_id):
        # A correction never charges the patient more (A5): what the other payers' shares then miss goes to a person.
        detail = f"course {course_id}: a correction would raise what self-pay owes from {now['revenue']} to {revenue}"
        effects.tell(connection, [Happening(f"price_correction/{key}", "price_correction", "warning", "", posted_ms, detail=detail)])
        revenue = now["revenue"]
    prepaid = now["deferred"] + _drawn(connection, course_id, currency)
    on_grace = min(revenue, pricebook.total(book, every) - pricebook.total(book, every - unfunded))
    drawn = min(prepaid, revenue - on_grace)
    wanted = {
        "revenue": revenue,
        "deferred": prepaid - drawn,
        "receivable": -(revenue - on_grace - drawn) + _paid(connection, accounts["receivable"], currency),
        "receivable_unfunded": -on_grace + _paid(connection, accounts["receivable_unfunded"], currency),
    }
    return [Posting(accounts[name], currency, amount - now[name]) for name, amount in wanted.items() if amount != now[name]]


def _counts(connection: Connection, course_id: str) -> tuple[int, int, int]:
    """Treatments in all, those under other modes than self-pay, and the unfunded among the self-paid."""
    here = billing_session.c
    query = select(here.service_day, here.standing).where((here.course == course_id) & here.standing.in_(TREATMENTS))
    every = other = unfunded = 0
    for row in connection.execute(query):
        mode, _payer = courses.mode_on(connection, course_id, row.service_day)
        every += 1
        other += mode is not Mode.SELF_PAY
        unfunded += mode is Mode.SELF_PAY and row.standing == Standing.UNFUNDED
    return every, other, unfunded


def _sum(connection: Connection, account: str, commodity: str, kinds: Collection[str]) -> int:
    """What transactions of these kinds moved into an account."""
    joined = (ledger_transaction.c.scope == ledger_entry.c.scope) & (ledger_transaction.c.number == ledger_entry.c.number)
    mine = (ledger_entry.c.account == account) & (ledger_entry.c.commodity == commodity) & ledger_transaction.c.kind.in_(list(kinds))
    query = select(func.coalesce(func.sum(ledger_entry.c.amount), 0)).select_from(ledger_entry.join(ledger_transaction, joined))
    return int(connection.execute(query.where(mine)).scalar_one())


KINDS = (*(one.value for one in Standing), "course")
"""The kinds of transactions that settlement itself writes."""


def _drawn(connection: Connection, course_id: str, currency: str) -> int:
    """What settlement has drawn from prepayments so far."""
    return -_sum(connection, f"deferred:{course_id}", currency, KINDS)


def _paid(connection: Connection, account: str, currency: str) -> int:
    """What others than settlement (payments, goodwill, write-offs) put into a receivable."""
    return ledger.balance(connection, account, currency) - _sum(connection, account, currency, KINDS)


def _treatments_posted(connection: Connection, course_id: str) -> int:
    return ledger.balance(connection, f"redeemed:{course_id}", USE)


def _store(connection: Connection, row: dict[str, object]) -> None:
    statement = upsert(connection, billing_session).values(row)
    changes = {name: statement.excluded[name] for name in row if name != "session"}
    connection.execute(statement.on_conflict_do_update(index_elements=["session"], set_=changes))


def _tell(connection: Connection, session_id: bytes, row: dict[str, object], standing: Standing, *, posted_ms: int) -> None:
    """Hand to a person what only a person can decide."""
    asks = {
        Standing.UNFUNDED: "a treatment without a use to pay for it",
        Standing.HELD: "a session that is held: by default no charge, the use is restored",
        Standing.DOUBLE: "a second treatment of the course on one service day: one is billed",
        Standing.ORPHAN: "a session of no known course: billed when it is linked",
    }
    if standing in asks:
        key = f"{standing}/{session_id.hex()}"
        gateway, device = str(row["gateway"]), str(row["device"])
        happening = Happening(key, f"session_{standing}", "info", gateway, posted_ms, device, asks[standing])
        effects.tell(connection, [happening])


def settle_course(connection: Connection, course_id: str, *, key: str, posted_ms: int) -> None:
    """After new uses, a payment or a change of mode: fund what waits, first received first, and move the money to where it belongs."""
    here = billing_session.c
    waiting = (here.course == course_id) & here.standing.in_([Standing.UNFUNDED, Standing.WAITING])
    rows: list[Row[tuple[bytes, str, int, str, int]]] = list(
        connection.execute(
            select(here.session, here.standing, here.postings, here.gateway, here.opened_ms).where(waiting).order_by(here.opened_ms)
        )
    )
    for row in rows:
        if not _use_left(connection, course_id):
            break
        was = Standing(row.standing)
        becomes = Standing.FUNDED if was is Standing.UNFUNDED else Standing.RESERVED
        changed = {"standing": becomes.value, "postings": row.postings + 1}
        connection.execute(billing_session.update().where(here.session == row.session).values(changed))
        moves = _use_moves(row.session, course_id, was, becomes)
        again = f"session:{row.session.hex()}:{row.postings + 1}"
        one = {"course": course_id, "gateway": row.gateway, "opened_ms": row.opened_ms}
        _post(connection, again, becomes.value, one, moves=moves, posted_ms=posted_ms)
    money = _money(connection, course_id, key, posted_ms)
    if money and ledger.stored(connection, key) is None:
        ledger.post(connection, Transaction(key, "course", posted_ms, tuple(money)), posted_ms=posted_ms)


def adopt_orphans(connection: Connection, course_id: str, *, posted_ms: int) -> int:
    """Settle the sessions that waited for this course to be known (case I10); return how many there were."""
    if connection.execute(select(course.c.id).where(course.c.id == course_id)).first() is None:
        return 0
    orphans = connection.execute(select(billing_session.c.session).where(billing_session.c.standing == Standing.ORPHAN)).scalars().all()
    settle(connection, orphans, posted_ms=posted_ms)
    left = select(billing_session.c.session).where(billing_session.c.standing == Standing.ORPHAN)
    return len(orphans) - len(connection.execute(left).all())
