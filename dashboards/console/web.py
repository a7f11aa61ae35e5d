"""Web: how a template becomes an answer: the Jinja environment, its filters, the addresses of static files. No routes and no queries.

Invariant: every value is escaped (autoescape is on for all templates and no template switches it off), and an undefined name is an error.
"""

import hashlib
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any  # a template's context is open
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from dashboards.console import drawing, present
from dashboards.console.auth import Principal
from dashboards.console.context import console_of
from dashboards.console.roles import Permission, may
from protocol.clock import ClockQuality
from protocol.profile import Role as ChannelRole

__all__ = ["STATIC", "back_to", "moment", "page", "pages", "zone"]

STATIC = Path(__file__).parent / "static"
NAVIGATION = (
    ("fleet", "/fleet", "Fleet", Permission.FLEET),
    ("gateways", "/gateways", "Gateways", Permission.GATEWAYS),
    ("letters", "/dead-letters", "Dead letters", Permission.DEAD_LETTERS),
    ("health", "/health", "Health", Permission.HEALTH),
    ("users", "/users", "Users", Permission.USERS),
)


@cache
def pages() -> Environment:
    """Return the environment that all templates are rendered in; it never changes, so a process makes it once."""
    environment = Environment(
        loader=PackageLoader("dashboards.console"),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": present.age_text,
        "iso": _iso,
        "moment": moment,
        "number": present.number,
        "state": present.state_name,
        "thousands": _thousands,
    }
    environment.globals |= {
        "asset": _asset,
        "gauge": drawing.gauge,
        "spark_size": (drawing.SPARK_WIDTH, drawing.SPARK_HEIGHT),
        "gauge_width": drawing.GAUGE_WIDTH,
        "Channel": ChannelRole,
    }
    # Types come from Python's own table, not from whatever the machine has in /etc.
    mimetypes.init(files=[])
    mimetypes.add_type("font/woff2", ".woff2")
    # Everything is read from the disk now: error pages are rendered on the event loop, which must not wait for a file.
    for name in environment.list_templates():
        environment.get_template(name)
    for file in STATIC.rglob("*.*"):
        _asset(file.relative_to(STATIC).as_posix())
    return environment


def page(request: Request, template: str, who: Principal | None, *, status: int = 200, **context: Any) -> HTMLResponse:  # open context
    """Return a rendered template. ``here`` in the context names the entry of the navigation that is lit."""
    console = console_of(request)
    links = tuple((key, href, text) for key, href, text, needed in NAVIGATION if who is not None and may(who.role, needed))
    scaled = console.clock.quality() is ClockQuality.RELATIVE
    values: Mapping[str, Any] = {"who": who, "links": links, "here": "", "now_ms": console.clock.wall_ms(), "scaled": scaled, **context}
    return HTMLResponse(console.pages.get_template(template).render(values), status_code=status)


def back_to(address: str) -> RedirectResponse:
    """Return the answer to a form that worked: go there with GET, so that a reload sends nothing twice."""
    return RedirectResponse(address, status_code=303)


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name; UTC when this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def moment(ms: int | None, zone_name: str = "UTC") -> str:
    """Return a point in time as ``2026-01-31 14:05:09 CET``, or a dash for never."""
    if ms is None:
        return "–"
    try:
        at = datetime.fromtimestamp(ms / 1000, zone(zone_name))
    except (OverflowError, ValueError, OSError):
        return "–"
    return f"{at:%Y-%m-%d %H:%M:%S} {at.tzname()}"


def _iso(ms: int) -> str:
    """Return a point in time for a ``datetime`` attribute."""
    return moment(ms).removesuffix(" UTC").replace(" ", "T") + "Z"


def _thousands(value: int) -> str:
    """Return a count with thin spaces between thousands, as ISO 80000-1 writes it."""
    return f"{value:,}".replace(",", "\u2009")


@cache
def _asset(name: str) -> str:
    """Return the address of a static file with its hash in it, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:12]}"
