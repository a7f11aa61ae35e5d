"""The ledger: balanced, append-only, idempotent for ever. It knows accounts and amounts; what an event means in them is for ``books``.

It does not deduplicate by content and it has no stored balances: a balance is a query (rule L4). Invariant: every transaction sums to zero
per commodity, its key is unique for ever, and it is written in the caller's database transaction, with the effect that caused it.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import cbor2
from sqlalchemy import Connection, func, insert, select, update

from ingest.billing.tables import ledger_account, ledger_chain, ledger_entry, ledger_transaction
from ingest.errors import IngestError
from ingest.sql import insert_new

__all__ = ["HUB", "USE", "Fault", "LedgerError", "Posting", "Transaction", "balance", "balances", "post", "reverse", "stored", "verify"]

HUB = "hub"
"""The scope of transactions that no gateway caused: issues, payments, refunds."""

USE = "USE"
"""The commodity of the USES ledger; every other commodity is an ISO 4217 currency."""

POSTINGS_MAX = 64  # the widest event has six lines; more is a loop gone wrong
AMOUNT_MAX = 2**53  # ninety trillion in minor units: a bug, and still exact in every tool that may read an export
CHAIN_START = bytes(32)


class LedgerError(IngestError):
    """A transaction that must not be written: unbalanced, or a known key with another content. Always a bug or a fork, never retried."""


@dataclass(frozen=True, slots=True, order=True)
class Posting:
    """``amount`` moves into ``account`` (negative: out of it), in uses or minor units."""

    account: str
    commodity: str
    amount: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """One event. ``key`` is made where the event arises (``commit:<session>``); ``at_ms`` is when it happened, not when it was written."""

    key: str
    kind: str
    at_ms: int
    postings: tuple[Posting, ...]
    scope: str = HUB
    reason: str = ""
    reverses: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that ``verify`` found broken."""

    scope: str
    number: int
    what: str


def post(connection: Connection, one: Transaction, *, posted_ms: int) -> bool:
    """Write a transaction; ``False`` when its key is there already with the same content.

    Raises ``LedgerError`` when it does not balance, or when its key stands for another content.
    """
    _check(one)
    known = stored(connection, one.key)
    if known is not None:
        return _same(known, one)
    # The chain's row is inserted before it is locked: two first writers must meet at a row, not pass each other (rule L6).
    connection.execute(insert_new(connection, ledger_chain).values(scope=one.scope, number=0, head=CHAIN_START))
    locked = select(ledger_chain.c.number, ledger_chain.c.head).where(ledger_chain.c.scope == one.scope).with_for_update()
    number, head = connection.execute(locked).one()
    known = stored(connection, one.key)  # whoever held the lock may have written this very key
    if known is not None:
        return _same(known, one)
    accounts = [{"account": account, "opened_ms": posted_ms} for account in sorted({posting.account for posting in one.postings})]
    connection.execute(insert_new(connection, ledger_account), accounts)
    digest = _hash(head, number + 1, one)
    connection.execute(
        insert(ledger_transaction).values(
            scope=one.scope,
            number=number + 1,
            key=one.key,
            kind=one.kind,
            at_ms=one.at_ms,
            posted_ms=posted_ms,
            reason=one.reason,
            reverses=one.reverses,
            hash=digest,
        )
    )
    connection.execute(insert(ledger_entry), _entry_rows(one, number + 1))
    connection.execute(update(ledger_chain).where(ledger_chain.c.scope == one.scope).values(number=number + 1, head=digest))
    return True


def _check(one: Transaction) -> None:
    sums: defaultdict[str, int] = defaultdict(int)
    for posting in one.postings:
        if type(posting.amount) is not int or posting.amount == 0 or abs(posting.amount) > AMOUNT_MAX:
            raise LedgerError(f"{one.key}: {posting.amount!r} is no amount")
        sums[posting.commodity] += posting.amount
    if not 2 <= len(one.postings) <= POSTINGS_MAX:
        raise LedgerError(f"{one.key}: {len(one.postings)} postings")
    unbalanced = {commodity: amount for commodity, amount in sums.items() if amount}
    if unbalanced:
        raise LedgerError(f"{one.key}: does not sum to zero: {unbalanced}")


def _same(known: Transaction, one: Transaction) -> bool:
    if known != _canonical(one):
        raise LedgerError(f"{one.key}: the key is known with another content; one of the two is wrong, and a person must see both")
    return False


def _canonical(one: Transaction) -> Transaction:
    return Transaction(one.key, one.kind, one.at_ms, tuple(sorted(one.postings)), one.scope, one.reason, one.reverses)


def _entry_rows(one: Transaction, number: int) -> list[dict[str, str | int]]:
    return [
        {
            "scope": one.scope,
            "number": number,
            "line": line,
            "account": posting.account,
            "commodity": posting.commodity,
            "amount": posting.amount,
        }
        for line, posting in enumerate(sorted(one.postings))
    ]


def _hash(previous: bytes, number: int, one: Transaction) -> bytes:
    """The chain: everything that a transaction says, after everything before it. ``posted_ms`` is left out: a rebuild gives the same."""
    entries = [[posting.account, posting.commodity, posting.amount] for posting in sorted(one.postings)]
    content = [one.scope, number, one.key, one.kind, one.at_ms, one.reason, one.reverses, entries]
    return hashlib.sha256(previous + cbor2.dumps(content, canonical=True)).digest()


def stored(connection: Connection, key: str) -> Transaction | None:
    """Return the transaction of that key, postings in canonical order, or ``None``."""
    row = connection.execute(select(ledger_transaction).where(ledger_transaction.c.key == key)).one_or_none()
    if row is None:
        return None
    mine = (ledger_entry.c.scope == row.scope) & (ledger_entry.c.number == row.number)
    entries = connection.execute(select(ledger_entry).where(mine).order_by(ledger_entry.c.line))
    postings = tuple(Posting(entry.account, entry.commodity, entry.amount) for entry in entries)
    return Transaction(row.key, row.kind, row.at_ms, postings, row.scope, row.reason, row.reverses)


def reverse(connection: Connection, key: str, *, at_ms: int, posted_ms: int, reason: str) -> bool:
    """Take a transaction back by its mirror (rule L2: nothing is updated or deleted); ``False`` when that was done already.

    Raises ``LedgerError`` when there is no such transaction, or when it is itself a reversal.
    """
    original = stored(connection, key)
    if original is None or original.reverses is not None:
        raise LedgerError(f"{key}: there is no transaction to take back")
    mirror = tuple(Posting(posting.account, posting.commodity, -posting.amount) for posting in original.postings)
    again = Transaction(f"reverse:{key}", "reversal", at_ms, mirror, original.scope, reason, reverses=key)
    known = stored(connection, again.key)
    return False if known is not None else post(connection, again, posted_ms=posted_ms)


def balance(connection: Connection, account: str, commodity: str) -> int:
    """Return what an account holds: the sum of its entries."""
    mine = (ledger_entry.c.account == account) & (ledger_entry.c.commodity == commodity)
    return int(connection.execute(select(func.coalesce(func.sum(ledger_entry.c.amount), 0)).where(mine)).scalar_one())


def balances(connection: Connection, *, prefix: str = "") -> dict[tuple[str, str], int]:
    """Return every account (of a prefix) that holds something, by (account, commodity)."""
    amount = func.sum(ledger_entry.c.amount)
    query = select(ledger_entry.c.account, ledger_entry.c.commodity, amount).group_by(ledger_entry.c.account, ledger_entry.c.commodity)
    if prefix:
        query = query.where(ledger_entry.c.account.startswith(prefix, autoescape=True))
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query.having(amount != 0))}


def verify(connection: Connection) -> list[Fault]:
    """Recompute every chain and every sum; the faults are an alarm (F27), an empty list is the nightly proof."""
    faults = []
    entries: defaultdict[tuple[str, int], list[Posting]] = defaultdict(list)
    for row in connection.execute(select(ledger_entry).order_by(ledger_entry.c.scope, ledger_entry.c.number, ledger_entry.c.line)):
        entries[row.scope, row.number].append(Posting(row.account, row.commodity, row.amount))
    heads: dict[str, tuple[int, bytes]] = {}
    for row in connection.execute(select(ledger_transaction).order_by(ledger_transaction.c.scope, ledger_transaction.c.number)):
        number, head = heads.get(row.scope, (0, CHAIN_START))
        one = Transaction(
            row.key, row.kind, row.at_ms, tuple(entries.pop((row.scope, row.number), [])), row.scope, row.reason, row.reverses
        )
        if row.number != number + 1:
            faults.append(Fault(row.scope, row.number, f"follows {number}"))
        if _hash(head, row.number, one) != row.hash:
            faults.append(Fault(row.scope, row.number, "its hash does not fit its content"))
        try:
            _check(one)
        except LedgerError as error:
            faults.append(Fault(row.scope, row.number, str(error)))
        heads[row.scope] = (row.number, row.hash)
    faults.extend(Fault(scope, number, "entries without a transaction") for scope, number in entries)
    ends = connection.execute(select(ledger_chain).where(ledger_chain.c.number > 0)).all()
    wrong = [row for row in ends if heads.pop(row.scope, None) != (row.number, row.head)]
    faults.extend(Fault(row.scope, row.number, "the chain's head is not its last transaction") for row in wrong)
    faults.extend(Fault(scope, number, "a chain without a head") for scope, (number, _) in heads.items())
    return faults
