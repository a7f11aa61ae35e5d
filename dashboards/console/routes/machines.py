"""The fleet page and the page of one machine, with the fragments that refresh themselves."""

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from dashboards.console import charts, queries
from dashboards.console.auth import Principal
from dashboards.console.context import console_of
from dashboards.console.fleet import SEARCH_CHARS_MAX, SORTS, Filter, FleetRow, fleet, one_machine, select_rows
from dashboards.console.guard import guard
from dashboards.console.history import Range
from dashboards.console.present import Standing
from dashboards.console.roles import Permission
from dashboards.console.web import page

__all__ = ["MissingError", "router"]

router = APIRouter(include_in_schema=False)

Reader = Annotated[Principal, Depends(guard(Permission.FLEET))]


class MissingError(Exception):
    """There is no such thing, or it is not for the person who asks: one answer for both."""


def _filter(
    *,
    search: Annotated[str, Query(max_length=SEARCH_CHARS_MAX)] = "",
    site: Annotated[str, Query(max_length=32)] = "",
    only: Annotated[str, Query(max_length=16)] = "",
    sort: Annotated[str, Query(max_length=16)] = "worst",
    down: Annotated[str, Query(max_length=1)] = "",
) -> Filter:
    return Filter(search, site, only, sort if sort in SORTS else "worst", down == "1")


Wanted = Annotated[Filter, Depends(_filter)]


@router.get("/")
def root(_who: Reader) -> RedirectResponse:
    """Go to the fleet."""
    return RedirectResponse("/fleet", status_code=303)


@router.get("/fleet")
def fleet_page(request: Request, who: Reader, wanted: Wanted) -> HTMLResponse:
    """Show every machine, worst first."""
    return _fleet(request, who, wanted, template="fleet.html")


@router.get("/fleet/rows")
def fleet_rows(request: Request, who: Reader, wanted: Wanted) -> HTMLResponse:
    """Give the part of the fleet page that refreshes itself."""
    return _fleet(request, who, wanted, template="fleet_rows.html")


def _fleet(request: Request, who: Principal, wanted: Filter, *, template: str) -> HTMLResponse:
    console = console_of(request)
    with console.store.reading() as connection:
        rows = fleet(connection, console, site=who.site)
        sites = queries.sites(connection, site=who.site)
    counts = {standing: sum(row.standing is standing for row in rows) for standing in Standing}
    shown = select_rows(rows, wanted)
    return page(
        request, template, who, here="fleet", rows=shown, total=len(rows), counts=counts, sites=sites, wanted=wanted, Standing=Standing
    )


@router.get("/machines/{serial}")
def machine_page(
    request: Request, serial: str, who: Reader, span: Annotated[str, Query(alias="range", max_length=4)] = "15m"
) -> HTMLResponse:
    """Show one machine: live values, charts, what happened."""
    console = console_of(request)
    with console.store.reading() as connection:
        row = one_machine(connection, console, serial, site=who.site)
        if row is None:
            raise MissingError(f"There is no machine {serial!r} here.")
        events = queries.machine_events(connection, serial)
    ranges = [one.key for one in Range]
    chosen = span if span in ranges else ranges[0]
    groups = charts.groups(row.profile) if row.profile else ()
    plan = charts.plan_json(groups)
    return page(
        request,
        "machine.html",
        who,
        here="fleet",
        row=row,
        live=_live_json(row),
        events=events,
        ranges=ranges,
        chosen=chosen,
        groups=groups,
        plan=plan,
    )


@router.get("/machines/{serial}/live")
def machine_live(request: Request, serial: str, who: Reader) -> HTMLResponse:
    """Give the panels of one machine as they are now."""
    console = console_of(request)
    with console.store.reading() as connection:
        row = one_machine(connection, console, serial, site=who.site)
    if row is None:
        raise MissingError(f"There is no machine {serial!r} here.")
    return page(request, "machine_live.html", who, row=row, live=_live_json(row))


def _live_json(row: FleetRow) -> str:
    """The newest values for the end of the live chart: they are there before the block that will hold them."""
    values = {one.channel.name: one.milli / 1000 for one in row.values if one.milli is not None}
    return json.dumps({"t": row.machine.newest_ms, "values": values})
