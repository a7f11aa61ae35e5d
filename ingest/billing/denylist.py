"""Denylists: which tokens of a site are void, by version; and refunds that wait until every gateway of the site has heard (rule T9).

A gateway tells by a ``configuration_applied`` fact of document ``denylist/<site>`` which version it holds. Invariant: uses leave a
course only when no gateway that may accept the token can still be ignorant of it; a use spent meanwhile cancels the refund (E22).
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, func, insert, select, update

from ingest import effects
from ingest.billing import grants, ledger
from ingest.billing.ledger import USE
from ingest.billing.tables import billing_session, denied, document_held, refund
from ingest.intake import Happening
from ingest.sql import upsert
from provisioning import registry
from provisioning.registry import Status

__all__ = ["RefundState", "Revoked", "document_name", "entries", "heard", "request_refund", "revoke", "version"]


class RefundState(StrEnum):
    """Where a refund stands."""

    PENDING = "pending"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Revoked:
    """A token that a site's gateways must answer with REVOKED."""

    token: bytes
    version: int
    reason: str


def document_name(site: str) -> str:
    """Return the name under which a site's denylist travels and is acknowledged."""
    return f"denylist/{site}"


def version(connection: Connection, site: str) -> int:
    """Return the newest version of a site's denylist; 0 while it is empty."""
    query = select(func.coalesce(func.max(denied.c.version), 0)).where(denied.c.site == site)
    return int(connection.execute(query).scalar_one())


def entries(connection: Connection, site: str, *, after: int = 0) -> list[Revoked]:
    """Return what a site's denylist gained after a version: the delta that goes down."""
    query = select(denied).where((denied.c.site == site) & (denied.c.version > after)).order_by(denied.c.version)
    return [Revoked(row.token, row.version, row.reason) for row in connection.execute(query)]


def revoke(connection: Connection, token: bytes, *, site: str, reason: str, at_ms: int) -> int:
    """Put a token on its site's denylist; return the version that holds it. The same token again changes nothing."""
    known = connection.execute(select(denied.c.version).where(denied.c.token == token)).scalar_one_or_none()
    if known is not None:
        return int(known)
    new = version(connection, site) + 1
    connection.execute(insert(denied).values(token=token, site=site, version=new, reason=reason, at_ms=at_ms))
    return new


def request_refund(  # a refund is these facts
    connection: Connection, token: bytes, *, course: str, site: str, uses: int, reason: str, at_ms: int
) -> int:
    """Revoke a token and ask for its unspent uses back; return the version that every gateway must reach first.

    Raises ``GrantError`` when the course has fewer unspent uses.
    """
    left = ledger.balance(connection, f"outstanding:{course}", USE)
    if uses > left:
        raise grants.GrantError(f"course {course} has {left} unspent uses, not {uses}")
    needed = revoke(connection, token, site=site, reason=reason, at_ms=at_ms)
    row = {
        "token": token,
        "course": course,
        "site": site,
        "uses": uses,
        "reason": reason,
        "version": needed,
        "state": RefundState.PENDING.value,
        "spent_before": _spent(connection, token),
        "at_ms": at_ms,
    }
    connection.execute(upsert(connection, refund).values(row).on_conflict_do_nothing())
    _finish(connection, site, at_ms=at_ms)
    return needed


def heard(connection: Connection, gateway: str, *, document: str, held: int, at_ms: int) -> None:
    """Note which version of a document a gateway holds, and finish the refunds that waited for it. Versions never go backwards here."""
    statement = upsert(connection, document_held).values(gateway=gateway, document=document, version=held, at_ms=at_ms)
    newer = statement.excluded.version > document_held.c.version
    changes = {"version": statement.excluded.version, "at_ms": statement.excluded.at_ms}
    connection.execute(statement.on_conflict_do_update(index_elements=["gateway", "document"], set_=changes, where=newer))
    site = document.removeprefix("denylist/")
    if site != document:
        _finish(connection, site, at_ms=at_ms)


def _finish(connection: Connection, site: str, *, at_ms: int) -> None:
    reached = _reached_by_all(connection, site)
    waiting = (refund.c.site == site) & (refund.c.state == RefundState.PENDING.value) & (refund.c.version <= reached)
    for row in connection.execute(select(refund).where(waiting).order_by(refund.c.version)).all():
        left = ledger.balance(connection, f"outstanding:{row.course}", USE)
        if _spent(connection, row.token) > row.spent_before or left < row.uses:
            state = RefundState.CANCELLED
            detail = f"course {row.course}: a use was spent while its refund was pending"
            event = Happening(f"refund_cancelled/{row.token.hex()}", "refund_cancelled", "warning", "", at_ms, detail=detail)
            effects.tell(connection, [event])
        else:
            state = RefundState.DONE
            key = f"refund:{row.token.hex()}"
            grants.void_unused(connection, row.course, uses=row.uses, reason=row.reason, key=key, at_ms=at_ms)
        connection.execute(update(refund).where(refund.c.token == row.token).values(state=state.value))


def _reached_by_all(connection: Connection, site: str) -> int:
    """The version that every active gateway of the site holds; 0 while one has said nothing, or while there is none."""
    active = [one.id for one in registry.gateways(connection) if one.site == site and one.status is Status.ACTIVE]
    query = select(document_held.c.gateway, document_held.c.version).where(document_held.c.document == document_name(site))
    held = {row.gateway: row.version for row in connection.execute(query)}
    return min((held.get(gateway, 0) for gateway in active), default=0)


def _spent(connection: Connection, token: bytes) -> int:
    """How many sessions hold or have spent a use of this token."""
    here = billing_session.c
    kept = here.standing.in_(["reserved", "funded", "unfunded", "waiting"])
    return int(connection.execute(select(func.count()).where((here.token == token) & kept)).scalar_one())
