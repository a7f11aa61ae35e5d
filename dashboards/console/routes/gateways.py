"""The gateways page: who is connected, what is missing, how good is the clock."""

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

Reader = Annotated[Principal, Depends(guard(Permission.GATEWAYS))]

LANES = {"t": "Telemetry", "m": "Metering", "a": "Alarms"}


@router.get("/gateways")
def gateways_page(request: Request, who: Reader) -> HTMLResponse:
    """Show every gateway that may be seen."""
    return _gateways(request, who, template="gateways.html")


@router.get("/gateways/rows")
def gateways_rows(request: Request, who: Reader) -> HTMLResponse:
    """Give the part of the page that refreshes itself."""
    return _gateways(request, who, template="gateways_rows.html")


def _gateways(request: Request, who: Principal, *, template: str) -> HTMLResponse:
    with console_of(request).store.reading() as connection:
        rows = queries.gateways(connection, site=who.site)
    # Offline first, then those with something missing, then by id; revoked ones are history and come last.
    ordered = sorted(rows, key=lambda one: (one.revoked, one.online is True, -one.missing, one.id))
    return page(request, template, who, here="gateways", rows=ordered, lanes=LANES)
