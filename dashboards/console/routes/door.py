"""Sign-in and sign-out. The only routes that work without a session.

Invariant: the sign-in form carries a token that must equal a cookie of the same browser, so no other site can sign somebody in.
"""

import base64
import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from dashboards.console.auth import Denied, Principal
from dashboards.console.context import console_of
from dashboards.console.guard import address_of, cookie_name, guard, is_cross_site
from dashboards.console.passwords import Busy
from dashboards.console.roles import Permission
from dashboards.console.web import back_to, page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

FORM_COOKIE = "icecap-form"
FORM_TOKEN_BYTES = 16
NAME_CHARS_MAX = 64  # an account's name is no longer


@router.get("/alive")
def alive() -> PlainTextResponse:
    """Answer that the process lives; says nothing else to strangers."""
    return PlainTextResponse("ok\n")


@router.get("/sign-in")
def sign_in_form(request: Request, go_to: str = "/fleet") -> HTMLResponse:
    """Show the form."""
    return _form(request, go_to=go_to)


@router.post("/sign-in")
def sign_in(
    request: Request,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    token: Annotated[str, Form()] = "",
    go_to: Annotated[str, Form()] = "/fleet",
) -> Response:
    """Open a session, or show the form again with one sentence that does not tell which part was wrong."""
    console = console_of(request)
    expected = request.cookies.get(FORM_COOKIE, "")
    if not expected or not hmac.compare_digest(expected.encode(), token.encode()) or is_cross_site(request):
        return _form(request, go_to=go_to, problem="The form had expired. Please sign in again.", status=403)
    try:
        answer = console.door.sign_in(name.strip().lower()[:NAME_CHARS_MAX], password, address=address_of(request))
    except Busy:
        return _form(request, go_to=go_to, problem="Many people are signing in. Please try again in a few seconds.", status=503)
    if isinstance(answer, Denied):
        problem = "Name or password is wrong."
        if answer.wait_ms:
            problem = f"Too many attempts. Try again in {-(-answer.wait_ms // 1000)} s."
        return _form(request, go_to=go_to, problem=problem, name=name[:NAME_CHARS_MAX], status=429 if answer.wait_ms else 401)
    response = back_to(go_to if _is_ours(go_to) else "/fleet")
    secure = console.settings.listen.is_secure
    response.set_cookie(
        cookie_name(secure=secure),
        answer,
        max_age=console.settings.session.lifetime_s,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )
    response.delete_cookie(FORM_COOKIE, path="/sign-in")
    return response


@router.post("/sign-out")
def sign_out(request: Request, who: Annotated[Principal, Depends(guard(Permission.ACCOUNT))]) -> Response:
    """End the session here and in the store."""
    console = console_of(request)
    console.door.sign_out(who, address=address_of(request))
    secure = console.settings.listen.is_secure
    response = back_to("/sign-in")
    response.delete_cookie(cookie_name(secure=secure), path="/", secure=secure, httponly=True, samesite="lax")
    return response


def _form(request: Request, *, go_to: str, problem: str = "", name: str = "", status: int = 200) -> HTMLResponse:
    console = console_of(request)
    token = base64.urlsafe_b64encode(console.door.entropy(FORM_TOKEN_BYTES)).decode("ascii").rstrip("=")
    target = go_to if _is_ours(go_to) else "/fleet"
    response = page(request, "sign_in.html", None, status=status, token=token, go_to=target, problem=problem, name=name)
    secure = console.settings.listen.is_secure
    response.set_cookie(FORM_COOKIE, token, max_age=3600, path="/sign-in", secure=secure, httponly=True, samesite="strict")
    return response


def _is_ours(address: str) -> bool:
    """A path of this console: not another host (``//host``), not a trick with a backslash or a control character."""
    return address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable() and "\\" not in address
