"""Users: an administrator's page. Accounts, their roles, and the audit trail of the console."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from dashboards.console import accounts, queries
from dashboards.console.auth import AccountError, Principal, add_account, audit
from dashboards.console.context import console_of
from dashboards.console.guard import address_of, guard
from dashboards.console.passwords import generate
from dashboards.console.roles import Permission, Role
from dashboards.console.web import back_to, page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

Admin = Annotated[Principal, Depends(guard(Permission.USERS))]
UserId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Name = Annotated[str, Form(max_length=64)]
Site = Annotated[str, Form(max_length=32)]


@router.get("/users")
def users_page(request: Request, who: Admin) -> HTMLResponse:
    """Show the accounts and the newest rows of the audit trail."""
    return _users(request, who)


@router.post("/users")
def add_user(request: Request, who: Admin, name: Name, role: Annotated[Role, Form()], site: Site = "") -> Response:
    """Make an account with a generated password, which is shown once."""
    console = console_of(request)
    password = generate(console.door.entropy)
    encoded, at_ms = console.door.passwords.hash(password), console.door.clock.wall_ms()
    try:
        with console.store.transaction() as connection:
            add_account(connection, name=name.strip().lower(), role=role, site=site, password_hash=encoded, at_ms=at_ms)
            _tell(connection, request, who, "user_add", target=f"{name} {role} {site}".strip())
    except AccountError as error:
        return _users(request, who, problem=str(error), status=409)
    return _users(request, who, made=(name.strip().lower(), password))


@router.post("/users/{user_id}")
def change_user(
    request: Request,
    user_id: UserId,
    who: Admin,
    role: Annotated[Role, Form()],
    site: Site = "",
    active: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """Change role, site and state of an account; its sessions end."""
    console = console_of(request)
    try:
        with console.store.transaction() as connection:
            at_ms = console.door.clock.wall_ms()
            name = accounts.change_account(connection, user_id, role=role, site=site, active=active == "yes", at_ms=at_ms)
            state = "active" if active == "yes" else "closed"
            _tell(connection, request, who, "user_change", target=f"{name} {role} {site} {state}")
    except AccountError as error:
        return _users(request, who, problem=str(error), status=409)
    return back_to("/users")


@router.post("/users/{user_id}/password")
def reset_password(request: Request, user_id: UserId, who: Admin) -> Response:
    """Give an account a new generated password, shown once; its sessions end."""
    console = console_of(request)
    password = generate(console.door.entropy)
    encoded = console.door.passwords.hash(password)
    try:
        with console.store.transaction() as connection:
            name = accounts.set_password(connection, user_id, encoded, at_ms=console.door.clock.wall_ms())
            _tell(connection, request, who, "password_reset", target=name)
    except AccountError as error:
        return _users(request, who, problem=str(error), status=409)
    return _users(request, who, made=(name, password))


def _tell(connection: Connection, request: Request, who: Principal, action: str, *, target: str) -> None:
    audit(connection, console_of(request).door.clock, actor=who.name, action=action, target=target, address=address_of(request))


def _users(request: Request, who: Principal, *, problem: str = "", made: tuple[str, str] | None = None, status: int = 200) -> HTMLResponse:
    with console_of(request).store.reading() as connection:
        found = accounts.accounts(connection)
        trail = accounts.audit_trail(connection)
        sites = queries.sites(connection, site=None)
    return page(
        request,
        "users.html",
        who,
        status=status,
        here="users",
        accounts=found,
        trail=trail,
        sites=sites,
        all_roles=list(Role),
        problem=problem,
        made=made,
    )
