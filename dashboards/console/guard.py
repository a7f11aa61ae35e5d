"""Guard: the one gate before every route that is not public. Who asks, may they, and did the request come from our own page.

Invariant: a route without ``guard`` is either in ``PUBLIC`` or does not exist (a test walks them all); a request that changes something
without the session's CSRF token changes nothing.
"""

import hmac
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from dashboards.console.auth import Principal, audit
from dashboards.console.context import console_of
from dashboards.console.roles import Permission, may

__all__ = [
    "CSRF_FIELD",
    "CSRF_HEADER",
    "PUBLIC",
    "ForbiddenError",
    "SignInNeededError",
    "address_of",
    "cookie_name",
    "guard",
    "is_cross_site",
]

CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
PUBLIC = frozenset({"/sign-in", "/static", "/alive"})
SAFE_METHODS = frozenset({"GET", "HEAD"})


class SignInNeededError(Exception):
    """Nobody is signed in."""


class ForbiddenError(Exception):
    """Somebody is signed in and may not do this; the message says why."""


def cookie_name(*, secure: bool) -> str:
    """Return the session cookie's name; the prefix makes browsers insist on Secure, on the whole path and on this very host."""
    return "__Host-icecap" if secure else "icecap"


def address_of(request: Request) -> str:
    """Return the address that the request came from, for the brake and the audit trail."""
    return request.client.host if request.client else ""


def identify(request: Request) -> Principal | None:
    """Return who asks, by session cookie or, for the API, by ``Authorization: Bearer``."""
    console = console_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and request.url.path.startswith("/api/"):
        return console.door.by_token(token.strip())
    cookie = request.cookies.get(cookie_name(secure=console.settings.listen.is_secure))
    return console.door.by_cookie(cookie) if cookie else None


async def sent_csrf(request: Request) -> str:
    """Return the CSRF token that came with a request that changes something: htmx sends a header, a plain form a field."""
    if request.method in SAFE_METHODS:
        return ""
    if header := request.headers.get(CSRF_HEADER):
        return header
    form = await request.form()
    value = form.get(CSRF_FIELD, "")
    return value if isinstance(value, str) else ""


def guard(permission: Permission) -> Callable[..., Principal]:
    """Return the dependency that lets only holders of ``permission`` through and gives the route their ``Principal``."""

    def checked(
        request: Request,
        who: Annotated[Principal | None, Depends(identify)],
        csrf: Annotated[str, Depends(sent_csrf)],
    ) -> Principal:
        if who is None:
            raise SignInNeededError
        if not may(who.role, permission):
            _tell(request, who, f"needs {permission}")
            raise ForbiddenError(f"Your role ({who.role}) does not include this.")
        if request.method not in SAFE_METHODS:
            right = bool(who.csrf) and hmac.compare_digest(csrf.encode(), who.csrf.encode())
            if not right or is_cross_site(request):
                _tell(request, who, "csrf")
                raise ForbiddenError("The request did not come from a page of this session. Reload the page and try again.")
        return who

    checked.permission = permission  # type: ignore[attr-defined]  # the test that walks all routes reads it
    return checked


def is_cross_site(request: Request) -> bool:
    """Tell whether the browser says that another site sent this: a second lock beside the token. Old browsers say nothing."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def _tell(request: Request, who: Principal, why: str) -> None:
    console = console_of(request)
    with console.store.transaction() as connection:
        target = f"{request.method} {request.url.path}: {why}"
        audit(
            connection, console.door.clock, actor=who.name, action="refused", target=target, outcome="refused", address=address_of(request)
        )
