"""App: builds the console from a store, clocks and settings, and says what its errors look like. Starts nothing and listens on nothing.

Invariant: an error never shows a stack trace, a statement or a path; the page says what to do, the log says what happened.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import anyio.to_thread
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from dashboards.console import web
from dashboards.console.auth import Door
from dashboards.console.context import Console
from dashboards.console.drawing import SparkCache
from dashboards.console.guard import ForbiddenError, SignInNeededError
from dashboards.console.headers import Headers
from dashboards.console.passwords import Busy, Cost, Passwords
from dashboards.console.routes import account, api, door, gateways, health, letters, machines, users
from dashboards.console.routes.machines import MissingError
from dashboards.console.settings import Settings
from ingest.store import Store, StoreDownError
from protocol.clock import Clock
from protocol.profile import Profile

__all__ = ["Parts", "create"]

THREADS_MAX = 8  # as many as the store has connections: more would only wait for one
ROUTERS = (door.router, machines.router, gateways.router, letters.router, users.router, account.router, health.router, api.router)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What an entry point hands in. ``clock`` is the machines' time, ``door_clock`` people's; ``entropy`` gives random bytes."""

    store: Store
    clock: Clock
    door_clock: Clock
    entropy: Callable[[int], bytes]
    settings: Settings
    site_profiles: Mapping[str, Profile] = field(default_factory=dict)
    password_cost: Cost = field(default_factory=Cost)


def create(parts: Parts) -> FastAPI:
    """Return the application."""
    settings = parts.settings
    app = FastAPI(
        title="Icecap",
        version="1",
        description="What scalp coolers said, read-only. Times are milliseconds since 1970 UTC. Unknown is null, never 0.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
    )
    guarded_by = Door(parts.store, parts.door_clock, parts.entropy, Passwords(parts.password_cost), settings.session)
    app.state.console = Console(parts.store, parts.clock, guarded_by, settings, dict(parts.site_profiles), web.pages(), SparkCache())
    app.mount("/static", StaticFiles(directory=web.STATIC), name="static")
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Headers, secure=settings.listen.is_secure, mistake=_bug)
    app.add_exception_handler(SignInNeededError, _sign_in_needed)
    app.add_exception_handler(ForbiddenError, _forbidden)
    app.add_exception_handler(MissingError, _missing)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(StoreDownError, _store_down)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _http_error)
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS_MAX
    yield


def _sign_in_needed(request: Request, _error: Exception) -> Response:
    """Send a person to the form and back afterwards; tell a script, and htmx, which follows no redirect to a whole page."""
    if _is_api(request):
        return JSONResponse({"detail": "Sign in, or send an API token as 'Authorization: Bearer'."}, 401, {"www-authenticate": "Bearer"})
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"hx-redirect": "/sign-in"})
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = path if request.method == "GET" else "/fleet"
    return RedirectResponse(f"/sign-in?go_to={quote(target, safe='')}", status_code=303)


def _forbidden(request: Request, error: Exception) -> Response:
    return _problem(request, 403, "Not for your role", str(error))


def _missing(request: Request, error: Exception) -> Response:
    return _problem(request, 404, "Nothing here", str(error))


def _busy(request: Request, _error: Exception) -> Response:
    return _problem(request, 503, "Busy", "Many passwords are being checked at once. Please try again in a few seconds.")


def _store_down(request: Request, error: Exception) -> Response:
    log.warning("store_down", path=request.url.path, error=str(error))
    return _problem(
        request,
        503,
        "The store does not answer",
        "Gateways keep their data meanwhile; nothing is lost. This page can be tried again in a minute.",
    )


def _not_understood(request: Request, error: Exception) -> Response:
    fields = sorted({str(one["loc"][-1]) for one in error.errors()}) if isinstance(error, RequestValidationError) else []
    return _problem(request, 422, "Not understood", f"Please check: {', '.join(fields)}.")


def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers) if isinstance(error, HTTPException) and error.headers else {}
    title = {404: "Nothing here", 405: "Not this way"}.get(status, "That did not work")
    response = _problem(request, status, title, "The address may be mistyped, or what it named is gone.")
    response.headers.update(headers)
    return response


def _bug(request: Request, error: Exception) -> Response:
    log.error("bug", path=request.url.path, exc_info=error)
    return _problem(request, 500, "A mistake of ours", "The console made a mistake and has written it down. Other pages go on working.")


def _problem(request: Request, status: int, title: str, text: str) -> Response:
    if _is_api(request):
        return JSONResponse({"detail": text}, status)
    return web.page(request, "problem.html", None, status=status, title=title, text=text)


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/")
