"""The own account: password, API tokens, other sessions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse

from dashboards.console import accounts
from dashboards.console.auth import AccountError, Principal, audit, end_sessions
from dashboards.console.context import console_of
from dashboards.console.guard import address_of, guard
from dashboards.console.passwords import PASSWORD_CHARS_MAX, complaint
from dashboards.console.roles import Permission
from dashboards.console.web import back_to, page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

Self = Annotated[Principal, Depends(guard(Permission.ACCOUNT))]
Password = Annotated[str, Form(max_length=PASSWORD_CHARS_MAX)]


@router.get("/account")
def account_page(request: Request, who: Self) -> HTMLResponse:
    """Show the account."""
    return _account(request, who)


@router.post("/account/password")
def change_password(request: Request, who: Self, old: Password, new: Password) -> Response:
    """Change the password; every other session of the account ends."""
    console = console_of(request)
    with console.store.reading() as connection:
        stored = accounts.stored_password(connection, who.user_id)
    right = console.door.passwords.verify(old, stored)
    problem = "the present password is wrong" if not right else complaint(new, who.name)
    encoded = "" if problem else console.door.passwords.hash(new)
    with console.store.transaction() as connection:
        if not problem:
            accounts.set_password(connection, who.user_id, encoded, at_ms=console.door.clock.wall_ms(), keep=who.session)
        outcome = "refused" if problem else "ok"
        audit(connection, console.door.clock, actor=who.name, action="password_change", outcome=outcome, address=address_of(request))
    if problem:
        return _account(request, who, problem=f"Password not changed: {problem}.", status=422)
    return _account(request, who, note="Password changed. Other sessions of this account have ended.")


@router.post("/account/tokens")
def make_token(
    request: Request, who: Self, name: Annotated[str, Form(max_length=64)], days: Annotated[int, Form(ge=1, le=365)] = 90
) -> Response:
    """Make an API token, shown once."""
    console = console_of(request)
    try:
        with console.store.transaction() as connection:
            token = console.door.make_token(connection, who, name=name, days=days)
            audit(connection, console.door.clock, actor=who.name, action="token_make", target=name, address=address_of(request))
    except AccountError as error:
        return _account(request, who, problem=f"No token: {error}.", status=422)
    return _account(request, who, token=token)


@router.post("/account/tokens/revoke")
def revoke_token(request: Request, who: Self, key: Annotated[str, Form(max_length=64)]) -> Response:
    """Make an API token worthless."""
    console = console_of(request)
    try:
        with console.store.transaction() as connection:
            name = accounts.revoke_token(connection, who, key)
            audit(connection, console.door.clock, actor=who.name, action="token_revoke", target=name, address=address_of(request))
    except AccountError as error:
        return _account(request, who, problem=f"Not revoked: {error}.", status=404)
    return back_to("/account")


@router.post("/account/sessions/end")
def end_others(request: Request, who: Self) -> Response:
    """End every other session of the account."""
    console = console_of(request)
    with console.store.transaction() as connection:
        end_sessions(connection, who.user_id, keep=who.session)
        audit(connection, console.door.clock, actor=who.name, action="sessions_end", address=address_of(request))
    return back_to("/account")


def _account(request: Request, who: Principal, *, problem: str = "", note: str = "", token: str = "", status: int = 200) -> HTMLResponse:
    console = console_of(request)
    now_ms = console.door.clock.wall_ms()
    with console.store.reading() as connection:
        found = accounts.tokens(connection, who)
        sessions = accounts.session_count(connection, who, now_ms=now_ms)
    values = {"tokens": found, "sessions": sessions, "problem": problem, "note": note, "token": token, "door_ms": now_ms}
    return page(request, "account.html", who, status=status, here="account", **values)
