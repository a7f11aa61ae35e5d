"""Grants: batches of minted tokens in a hash-chained log, and the uses they put into the ledger. Not the minting (a key's business).

Invariant: a token outside this log is a token that nobody sold; reconciliation refuses it, whoever signed it (threat: an insider mints).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cbor2
from sqlalchemy import Connection, func, insert, select

from ingest.billing import ledger
from ingest.billing.ledger import USE, Posting, Transaction
from ingest.billing.tables import grant_log, token
from ingest.errors import IngestError

__all__ = ["TWO_APPROVERS_ABOVE", "GrantError", "Issue", "issue", "prepay", "verify", "void_unused"]

TWO_APPROVERS_ABOVE = 20  # tokens in one batch: more than a clinic's busiest week (security: high-value minting needs two people)
CHAIN_START = bytes(32)


class GrantError(IngestError):
    """A batch that must not be issued; the message says why."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One minted token as the cloud knows it: by its keyed hash. ``uses`` include the ``spare`` ones (amendment A7)."""

    token: bytes
    token_class: str
    uses: int
    spare: int = 0
    replaces: bytes | None = None


def issue(  # a batch is these facts
    connection: Connection, issues: Sequence[Issue], *, course: str, site: str, requested_by: str, approved_by: str = "", at_ms: int
) -> int:
    """Log a batch and put its uses into the course; return the batch's number.

    Raises ``GrantError`` when the batch is empty, needs a second approver and has none, or holds a token that is known.
    """
    if not issues:
        raise GrantError("an empty batch")
    if len(issues) > TWO_APPROVERS_ABOVE and approved_by in {"", requested_by}:
        raise GrantError(f"{len(issues)} tokens need two people: more than {TWO_APPROVERS_ABOVE} are approved by somebody else")
    hashes = [one.token for one in issues]
    known = connection.execute(select(token.c.token).where(token.c.token.in_(hashes))).first()
    if known is not None or len(set(hashes)) != len(hashes):
        raise GrantError("a token of this batch is in the log already")
    last = connection.execute(select(grant_log).order_by(grant_log.c.number.desc()).limit(1)).one_or_none()
    number, previous = (last.number + 1, last.hash) if last else (1, CHAIN_START)
    uses = sum(one.uses for one in issues)
    digest = hashlib.sha256(b"".join(sorted(hashes))).digest()
    row = {
        "number": number,
        "course": course,
        "tokens": len(issues),
        "uses": uses,
        "requested_by": requested_by,
        "approved_by": approved_by,
        "at_ms": at_ms,
        "digest": digest,
    }
    connection.execute(insert(grant_log).values(**row, hash=_link(previous, row)))
    connection.execute(insert(token), [_token_row(one, course=course, site=site, batch=number, at_ms=at_ms) for one in issues])
    if course:  # TEST tokens have no course, are never billed and never counted (B6)
        postings = (Posting("issued", USE, -uses), Posting(f"outstanding:{course}", USE, uses))
        ledger.post(connection, Transaction(f"issue:{number}", "issue", at_ms, postings), posted_ms=at_ms)
    return number


def _token_row(one: Issue, *, course: str, site: str, batch: int, at_ms: int) -> dict[str, object]:
    return {
        "token": one.token,
        "course": course,
        "site": site,
        "token_class": one.token_class,
        "uses": one.uses,
        "spare": one.spare,
        "batch": batch,
        "replaces": one.replaces,
        "issued_ms": at_ms,
    }


def _link(previous: bytes, row: dict[str, object]) -> bytes:
    return hashlib.sha256(previous + cbor2.dumps(sorted(row.items()), canonical=True)).digest()


def verify(connection: Connection) -> list[int]:
    """Return the numbers of batches whose chain, count or tokens do not fit; an empty list is the proof."""
    broken, previous = [], CHAIN_START
    expected = 1
    for row in connection.execute(select(grant_log).order_by(grant_log.c.number)):
        content = {name: getattr(row, name) for name in grant_log.c.keys() if name != "hash"}  # noqa: SIM118  # columns, not a dict
        hashes = connection.execute(select(token.c.token).where(token.c.batch == row.number)).scalars().all()
        digest = hashlib.sha256(b"".join(sorted(hashes))).digest()
        if row.number != expected or _link(previous, content) != row.hash or digest != row.digest or len(hashes) != row.tokens:
            broken.append(row.number)
        previous, expected = row.hash, row.number + 1
    return broken


def prepay(connection: Connection, course: str, *, payment: str, amount_minor: int, currency: str, at_ms: int) -> bool:
    """Record money paid in advance: cash to deferred. ``payment`` is the payment's own id; the same one again changes nothing."""
    postings = (Posting("cash", currency, -amount_minor), Posting(f"deferred:{course}", currency, amount_minor))
    return ledger.post(connection, Transaction(f"prepay:{payment}", "prepayment", at_ms, postings), posted_ms=at_ms)


def void_unused(connection: Connection, course: str, *, uses: int, reason: str, key: str, at_ms: int) -> bool:
    """Take unspent uses out of a course (refund, expiry, reissue). Raises ``GrantError`` when fewer are left."""
    if ledger.stored(connection, key) is not None:
        return False
    left = ledger.balance(connection, f"outstanding:{course}", USE)
    if not 0 < uses <= left:
        raise GrantError(f"course {course} has {left} unspent uses, not {uses}")
    postings = (Posting(f"outstanding:{course}", USE, -uses), Posting(f"voided:{course}", USE, uses))
    return ledger.post(connection, Transaction(key, "void", at_ms, postings, reason=reason), posted_ms=at_ms)


def issued_uses(connection: Connection) -> int:
    """Return how many uses were ever issued to courses: the left side of the nightly identity."""
    return int(connection.execute(select(func.coalesce(func.sum(grant_log.c.uses), 0)).where(grant_log.c.course != "")).scalar_one())
