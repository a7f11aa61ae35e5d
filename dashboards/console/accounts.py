"""Accounts: what an administrator does to accounts and a person to the own one. Statements only; the caller writes the audit row.

Invariant: there is always an active administrator left; a changed password, role or state ends the account's sessions.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, func, select, update

from dashboards.console.auth import AccountError, Principal, end_sessions
from dashboards.console.roles import SITE_BOUND, Role
from ingest.schema import console_audit, console_session, console_token, console_user

__all__ = [
    "Account",
    "AuditRow",
    "Token",
    "accounts",
    "audit_trail",
    "change_account",
    "revoke_token",
    "session_count",
    "set_password",
    "stored_password",
    "tokens",
]

AUDIT_PAGE_MAX = 100  # the newest; the whole trail is in the store


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the users page shows it."""

    id: int
    name: str
    role: Role
    site: str
    active: bool
    created_ms: int
    last_ms: int | None
    """Newest request of a session that still exists."""


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret. ``key`` (hex of its hash) names it in a form."""

    key: str
    name: str
    created_ms: int
    expires_ms: int
    used_ms: int | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the trail."""

    at_ms: int
    actor: str
    action: str
    target: str
    outcome: str
    address: str


def accounts(connection: Connection) -> tuple[Account, ...]:
    """All accounts by name, active ones first."""
    user, last = console_user.c, func.max(console_session.c.seen_ms)
    query = (
        select(user.id, user.name, user.role, user.site, user.active, user.created_ms, last)
        .join_from(console_user, console_session, console_session.c.user_id == user.id, isouter=True)
        .group_by(user.id)
        .order_by(user.active.desc(), user.name)
    )
    return tuple(Account(row[0], row[1], Role(row[2]), *row[3:]) for row in connection.execute(query))


def change_account(connection: Connection, user_id: int, *, role: Role, site: str, active: bool, at_ms: int) -> str:
    """Change role, site and state; return the account's name.

    Raises ``AccountError`` for an unknown account, a role without its site, and the last active administrator.
    """
    row = _row(connection, user_id)
    if (role in SITE_BOUND) != bool(site):
        raise AccountError(
            f"the role {role} " + ("needs the site that it may see" if role in SITE_BOUND else "sees all sites; leave the site empty")
        )
    stays_admin = role is Role.ADMIN and active
    admins = select(func.count()).select_from(console_user).where(console_user.c.role == Role.ADMIN.value, console_user.c.active)
    if row.role == Role.ADMIN.value and row.active and not stays_admin and connection.execute(admins).scalar_one() < 2:
        raise AccountError("this is the last administrator; make another one first")
    values = {"role": role.value, "site": site, "active": active, "changed_ms": at_ms}
    connection.execute(update(console_user).where(console_user.c.id == user_id).values(values))
    end_sessions(connection, user_id)
    return str(row.name)


def set_password(connection: Connection, user_id: int, password_hash: str, *, at_ms: int, keep: bytes = b"") -> str:
    """Store a new hash, end the account's other sessions, return its name. Raises ``AccountError`` for an unknown account."""
    row = _row(connection, user_id)
    connection.execute(update(console_user).where(console_user.c.id == user_id).values(password=password_hash, changed_ms=at_ms))
    end_sessions(connection, user_id, keep=keep)
    return str(row.name)


def stored_password(connection: Connection, user_id: int) -> str:
    """Return the account's hash, to check the old password before a change."""
    return str(_row(connection, user_id).password)


def tokens(connection: Connection, who: Principal) -> tuple[Token, ...]:
    """The account's API tokens, newest first."""
    query = select(console_token).where(console_token.c.user_id == who.user_id).order_by(console_token.c.created_ms.desc())
    return tuple(Token(row.id.hex(), row.name, row.created_ms, row.expires_ms, row.used_ms or None) for row in connection.execute(query))


def revoke_token(connection: Connection, who: Principal, key: str) -> str:
    """Delete a token of this account and return its name. Raises ``AccountError`` when the account has no such token."""
    try:
        token_id = bytes.fromhex(key)
    except ValueError:
        token_id = b""
    mine = (console_token.c.id == token_id) & (console_token.c.user_id == who.user_id)
    name = connection.execute(select(console_token.c.name).where(mine)).scalar()
    if name is None:
        raise AccountError("you have no such token")
    connection.execute(delete(console_token).where(mine))
    return str(name)


def session_count(connection: Connection, who: Principal, *, now_ms: int) -> int:
    """How many sessions of the account have not ended."""
    live = (console_session.c.user_id == who.user_id) & (console_session.c.expires_ms > now_ms)
    return int(connection.execute(select(func.count()).select_from(console_session).where(live)).scalar_one())


def audit_trail(connection: Connection) -> tuple[AuditRow, ...]:
    """The newest rows of the audit trail."""
    trail = console_audit.c
    query = select(trail.at_ms, trail.actor, trail.action, trail.target, trail.outcome, trail.address)
    return tuple(AuditRow(*row) for row in connection.execute(query.order_by(trail.id.desc()).limit(AUDIT_PAGE_MAX)))


def _row(connection: Connection, user_id: int) -> Row[tuple[int, str, str, str, str, bool, int, int]]:
    row = connection.execute(select(console_user).where(console_user.c.id == user_id)).first()
    if row is None:
        raise AccountError("there is no such account")
    return row
