"""Auth: accounts, sign-in, sessions, API tokens, audit trail, in the cloud store. Not the web (``guard``), not the rules (``roles``).

Invariant: the store holds hashes only. Neither a password, nor a session's cookie, nor an API token can be read back from it.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, delete, func, insert, select, text, update

from dashboards.console import brake
from dashboards.console.passwords import Passwords
from dashboards.console.roles import SITE_BOUND, Role
from dashboards.console.settings import SessionSettings
from ingest.schema import console_audit, console_brake, console_session, console_token, console_user
from ingest.store import Store
from protocol.clock import Clock

__all__ = ["TOKEN_PREFIX", "AccountError", "Denied", "Door", "Principal", "add_account", "audit", "end_sessions", "fingerprint"]

TOKEN_PREFIX = "icecap_"  # noqa: S105  a scanner for leaked secrets can look for it
SECRET_BYTES = 32  # 256 bits: cookies and tokens are compared by their hash, so they need no further protection against guessing
TOKEN_DAYS_MAX = 365  # a token that nobody renews within a year belongs to nobody
TOKENS_EACH_MAX = 20  # per account; more is a script that forgets to revoke
SESSIONS_EACH_MAX = 10  # per account; the oldest end when a new one begins
SEEN_EVERY_MS = 60_000  # a request moves the idle time at most once a minute: pages that poll must not write to the store each second
TARGET_CHARS_MAX = 200  # the audit column's width

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,63}")


class AccountError(ValueError):
    """An account that cannot be made or changed; the message is for the person who asked."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an account, by its session or by an API token. ``site`` is ``None`` unless the role is bound to one."""

    user_id: int
    name: str
    role: Role
    site: str | None
    csrf: str
    """Empty for a token: a token is never sent by a browser on its own, so nothing can be forged with it."""
    session: bytes


@dataclass(frozen=True, slots=True)
class Denied:
    """A sign-in that did not happen. One answer for a wrong name and a wrong password; ``wait_ms`` when the brake holds."""

    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Door:
    """Lets people in. ``clock`` is real time, also when the machines' clock is scaled: people are not."""

    store: Store
    clock: Clock
    entropy: Callable[[int], bytes]
    passwords: Passwords
    limits: SessionSettings

    def sign_in(self, name: str, password: str, *, address: str) -> str | Denied:
        """Return the cookie of a new session, or why there is none. Raises ``Busy`` in a flood.

        The failure is counted before the password is looked at, so guesses sent at the same time cannot slip past the brake together.
        """
        keys = _brake_keys(name, address)
        with self.store.reading() as connection:
            wait_ms = _wait_ms(_tallies(connection, keys), self.clock.wall_ms())
        if not wait_ms:
            with self.store.transaction() as connection:
                wait_ms = _count_attempt(connection, keys, self.clock.wall_ms())
                row = connection.execute(select(console_user).where(console_user.c.name == name)).first()
        if wait_ms:
            # Not in the trail: it cannot be shortened, and who is braked can send thousands.
            log.warning("sign_in_braked", address=address, wait_ms=wait_ms)
            return Denied(wait_ms)
        right = self.passwords.verify(password, row.password if row is not None and row.active else None)
        fresh = self.passwords.hash(password) if right and row is not None and self.passwords.is_outdated(row.password) else None
        with self.store.transaction() as connection:
            # A name that nobody has is not written down: now and then it is a password in the wrong field.
            actor, outcome = name if row is not None else "", "ok" if right else "refused"
            audit(connection, self.clock, actor=actor, action="sign_in", outcome=outcome, address=address)
            if not right or row is None:
                return Denied()
            _forgive(connection, keys)
            if fresh is not None:
                connection.execute(update(console_user).where(console_user.c.id == row.id).values(password=fresh))
            return self._open_session(connection, row.id)

    def _open_session(self, connection: Connection, user_id: int) -> str:
        now_ms, cookie, csrf = self.clock.wall_ms(), self._secret(), self._secret()
        older = select(console_session.c.id).where(console_session.c.user_id == user_id).order_by(console_session.c.seen_ms.desc())
        connection.execute(delete(console_session).where(console_session.c.expires_ms <= now_ms))
        surplus = [row.id for row in connection.execute(older.offset(SESSIONS_EACH_MAX - 1))]
        connection.execute(delete(console_session).where(console_session.c.id.in_(surplus)))
        values = {
            "id": fingerprint(cookie),
            "user_id": user_id,
            "csrf": csrf,
            "created_ms": now_ms,
            "seen_ms": now_ms,
            "expires_ms": now_ms + self.limits.lifetime_s * 1000,
        }
        connection.execute(insert(console_session).values(values))
        return cookie

    def by_cookie(self, cookie: str) -> Principal | None:
        """Return whose session a cookie is, or ``None`` when it has ended, idled out or never was. Moves the idle time."""
        now_ms, key = self.clock.wall_ms(), fingerprint(cookie)
        joined = select(console_session, console_user).join(console_user, console_user.c.id == console_session.c.user_id)
        with self.store.reading() as connection:
            row = connection.execute(joined.where(console_session.c.id == key, console_user.c.active)).mappings().first()
        if row is None or now_ms >= row[console_session.c.expires_ms]:
            return None
        idle_ms = now_ms - row[console_session.c.seen_ms]
        if idle_ms >= self.limits.idle_s * 1000:
            return None
        if abs(idle_ms) >= SEEN_EVERY_MS:
            with self.store.transaction() as connection:
                connection.execute(update(console_session).where(console_session.c.id == key).values(seen_ms=now_ms))
        user = console_user.c
        return _principal(row[user.id], row[user.name], row[user.role], site=row[user.site], csrf=row[console_session.c.csrf], session=key)

    def by_token(self, token: str) -> Principal | None:
        """Return whose API token this is, or ``None`` when it has expired, was revoked or never was."""
        if not token.startswith(TOKEN_PREFIX):
            return None
        now_ms, key = self.clock.wall_ms(), fingerprint(token)
        joined = select(console_token, console_user).join(console_user, console_user.c.id == console_token.c.user_id)
        with self.store.reading() as connection:
            row = connection.execute(joined.where(console_token.c.id == key, console_user.c.active)).mappings().first()
        if row is None or now_ms >= row[console_token.c.expires_ms]:
            return None
        if now_ms - row[console_token.c.used_ms] >= SEEN_EVERY_MS:
            with self.store.transaction() as connection:
                connection.execute(update(console_token).where(console_token.c.id == key).values(used_ms=now_ms))
        user = console_user.c
        return _principal(row[user.id], row[user.name], row[user.role], site=row[user.site], csrf="", session=b"")

    def sign_out(self, who: Principal, *, address: str) -> None:
        """End this session; its cookie is worth nothing from now on."""
        with self.store.transaction() as connection:
            connection.execute(delete(console_session).where(console_session.c.id == who.session))
            audit(connection, self.clock, actor=who.name, action="sign_out", address=address)

    def make_token(self, connection: Connection, who: Principal, *, name: str, days: int) -> str:
        """Return a new API token of the account, shown once. Raises ``AccountError`` for a bad name, a bad term or too many tokens."""
        if not (name.strip() and len(name) <= 64 and name.isprintable()):
            raise AccountError("a token's name is 1 to 64 printable characters: what will use it?")
        if not 1 <= days <= TOKEN_DAYS_MAX:
            raise AccountError(f"a token lives 1 to {TOKEN_DAYS_MAX} days")
        now_ms = self.clock.wall_ms()
        live = (console_token.c.user_id == who.user_id) & (console_token.c.expires_ms > now_ms)
        if connection.execute(select(func.count()).select_from(console_token).where(live)).scalar_one() >= TOKENS_EACH_MAX:
            raise AccountError(f"an account has at most {TOKENS_EACH_MAX} tokens; revoke one first")
        token = TOKEN_PREFIX + self._secret()
        values = {
            "id": fingerprint(token),
            "user_id": who.user_id,
            "name": name.strip(),
            "created_ms": now_ms,
            "expires_ms": now_ms + days * 86_400_000,
            "used_ms": 0,
        }
        connection.execute(insert(console_token).values(values))
        return token

    def _secret(self) -> str:
        return base64.urlsafe_b64encode(self.entropy(SECRET_BYTES)).decode("ascii").rstrip("=")


def fingerprint(secret: str) -> bytes:
    """Return the SHA-256 under which a cookie or a token is stored. Looking it up tells nothing by its time: nobody can steer a hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def add_account(connection: Connection, *, name: str, role: Role, site: str, password_hash: str, at_ms: int) -> int:
    """Return the id of a new account. Raises ``AccountError`` for a bad or taken name and for a role that needs a site and has none."""
    if _NAME.fullmatch(name) is None:
        raise AccountError("a name is 2 to 64 of a-z 0-9 . _ - and begins with a letter or digit")
    if (role in SITE_BOUND) != bool(site):
        raise AccountError(
            f"the role {role} " + ("needs the site that it may see" if role in SITE_BOUND else "sees all sites; leave the site empty")
        )
    if connection.execute(select(console_user.c.id).where(console_user.c.name == name)).first():
        raise AccountError(f"there is an account {name!r} already")
    values = {
        "name": name,
        "role": role.value,
        "site": site,
        "password": password_hash,
        "active": True,
        "created_ms": at_ms,
        "changed_ms": at_ms,
    }
    made = connection.execute(insert(console_user).values(values))
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def end_sessions(connection: Connection, user_id: int, *, keep: bytes = b"") -> None:
    """End every session of an account but ``keep``: after a new password, another role, or when the account is closed."""
    connection.execute(delete(console_session).where(console_session.c.user_id == user_id, console_session.c.id != keep))


def audit(
    connection: Connection, clock: Clock, *, actor: str, action: str, target: str = "", outcome: str = "ok", address: str = ""
) -> None:
    """Write one row of the audit trail, in the transaction of what it tells."""
    values = {
        "at_ms": clock.wall_ms(),
        "actor": actor[:64],
        "action": action,
        "target": target[:TARGET_CHARS_MAX],
        "outcome": outcome,
        "address": address[:64],
    }
    connection.execute(insert(console_audit).values(values))


def _principal(user_id: int, name: str, role: str, *, site: str, csrf: str, session: bytes) -> Principal:
    known = Role(role)
    return Principal(user_id, name, known, site if known in SITE_BOUND else None, csrf, session)


def _brake_keys(name: str, address: str) -> dict[str, bytes]:
    """Hashes, not names: what people type into the name field is now and then their password."""
    return {
        "pair": fingerprint(f"pair\0{name}\0{address}"),
        "account": fingerprint(f"account\0{name}"),
        "address": fingerprint(f"address\0{address}"),
    }


_RULES = {"pair": brake.PAIR, "account": brake.ACCOUNT, "address": brake.ADDRESS}


def _count_attempt(connection: Connection, keys: dict[str, bytes], now_ms: int) -> int:
    """Return how long to wait, else 0 after counting this attempt as a failure (a right password takes it back)."""
    if connection.dialect.name == "postgresql":  # SQLite's writers stand in line anyway
        connection.execute(text("lock table console_brake in share row exclusive mode"))
    tallies = _tallies(connection, keys)
    wait_ms = _wait_ms(tallies, now_ms)
    if wait_ms:
        return wait_ms
    connection.execute(delete(console_brake).where(console_brake.c.last_ms < now_ms - brake.FORGET_MS))
    connection.execute(delete(console_brake).where(console_brake.c.key.in_(list(keys.values()))))
    counted = {rule: brake.failed(tally, now_ms) for rule, tally in tallies.items()}
    rows_new = [{"key": keys[rule], "failures": tally.failures, "last_ms": tally.last_ms} for rule, tally in counted.items()]
    connection.execute(insert(console_brake), rows_new)
    return 0


def _tallies(connection: Connection, keys: dict[str, bytes]) -> dict[str, brake.Tally]:
    rows = connection.execute(select(console_brake).where(console_brake.c.key.in_(list(keys.values()))))
    known = {row.key: brake.Tally(row.failures, row.last_ms) for row in rows}
    return {rule: known.get(key, brake.Tally()) for rule, key in keys.items()}


def _wait_ms(tallies: dict[str, brake.Tally], now_ms: int) -> int:
    return max(brake.blocked_ms(_RULES[rule], tally, now_ms) for rule, tally in tallies.items())


def _forgive(connection: Connection, keys: dict[str, bytes]) -> None:
    """Forget the account's failures, and take back the one attempt from the address: a guesser with an account of his own stays counted."""
    connection.execute(delete(console_brake).where(console_brake.c.key.in_([keys["pair"], keys["account"]])))
    address = console_brake.c.key == keys["address"]
    connection.execute(update(console_brake).where(address).values(failures=console_brake.c.failures - 1))
