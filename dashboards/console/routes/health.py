"""Health: how far the cloud side is behind, in numbers, and what this program is."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from dashboards.console import queries
from dashboards.console.auth import Principal
from dashboards.console.context import console_of
from dashboards.console.guard import guard
from dashboards.console.roles import Permission
from dashboards.console.web import page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/health")
def health_page(request: Request, who: Annotated[Principal, Depends(guard(Permission.HEALTH))]) -> HTMLResponse:
    """Show counts, projections and versions."""
    console = console_of(request)
    with console.store.reading() as connection:
        found = queries.health(connection)
    have, want = console.store.version()
    return page(
        request,
        "health.html",
        who,
        here="health",
        health=found,
        engine="PostgreSQL" if console.store.dialect == "postgresql" else "SQLite",
        schema=(have, want),
        program=_version(),
        clock=console.clock,
    )


def _version() -> str:
    try:
        return version("icecap")
    except PackageNotFoundError:
        return "unpackaged"
