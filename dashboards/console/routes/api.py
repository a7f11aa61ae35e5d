"""The JSON API, version 1: read-only, by the same roles, described by OpenAPI. For scripts and finance systems; the charts use it too.

Invariant: a published field keeps its name, type and meaning within ``/api/v1``; fields may be added. Unknown values are ``null``, never 0.
"""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from dashboards.console import history, queries
from dashboards.console.auth import Principal
from dashboards.console.context import console_of
from dashboards.console.fleet import FleetRow, fleet, one_machine
from dashboards.console.guard import guard
from dashboards.console.present import unit_text
from dashboards.console.roles import Permission
from dashboards.console.routes.machines import MissingError

__all__ = ["API_ROOT", "router"]

API_ROOT = "/api/v1"
CHANNELS_CHARS_MAX = 4096  # 128 channel names

Reader = Annotated[Principal, Depends(guard(Permission.FLEET))]
Serial = Annotated[str, Path(min_length=3, max_length=32, pattern=r"^[a-z0-9][a-z0-9-]{2,31}$", description="the cooler's serial number")]


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


class ValueOut(BaseModel):
    """The newest valid value of a channel."""

    channel: str
    label: str
    unit: str = Field(description="°C, L/min, kPa, A, %, V, s or empty")
    circuit: int = Field(description="0 for the whole machine")
    value: float | None = Field(description="null when unknown")
    sampled_ms: int | None = Field(description="milliseconds since 1970 UTC")
    outside_limits: bool = Field(description="a service limit that applies in this state is crossed")


class CircuitOut(BaseModel):
    """What a circuit says it is doing."""

    circuit: int
    state: str | None = Field(description="null when unknown")


class MachineOut(BaseModel):
    """One cooler."""

    serial: str
    site: str | None
    site_name: str
    time_zone: str
    gateway: str
    gateway_online: bool | None
    profile: str
    standing: str = Field(description="fault, silent, limit, late, never or fine")
    troubles: list[str]
    newest_ms: int | None
    age_ms: int | None
    circuits: list[CircuitOut]
    values: list[ValueOut]


class MarkOut(BaseModel):
    """A rejected sample, or with ``count`` above 1 how many in that minute."""

    t_ms: int
    value: float | None
    reason: str
    count: int


class CurveOut(BaseModel):
    """One channel: mean, lowest and highest of each point; null where there was no good sample."""

    channel: str
    unit: str
    mean: list[float | None]
    lo: list[float | None]
    hi: list[float | None]
    rejected: int
    marks: list[MarkOut]


class SeriesOut(BaseModel):
    """A machine's past on one time axis. At most 2,000 points; ``bucket_ms`` 0 means that every sample is a point."""

    serial: str
    from_ms: int
    to_ms: int
    time_zone: str
    bucket_ms: int
    t_ms: list[int]
    curves: list[CurveOut]
    unreadable_blocks: int


class StreamOut(BaseModel):
    """One lane of a gateway."""

    lane: str = Field(description="t telemetry, m metering, a alarms")
    stream: str = Field(description="a 63-bit number as text: JSON readers lose digits of large numbers")
    up_to: int
    top: int
    records: int
    duplicates: int
    missing: int
    buried: int
    last_ms: int


class GatewayOut(BaseModel):
    """One gateway."""

    id: str
    site: str | None
    site_name: str
    revoked: bool
    online: bool | None
    version: str
    boot: str
    last_ms: int | None
    clock_quality: str | None = Field(description="U unsynchronised, I informative, S synchronised, R relative")
    machines: int
    streams: list[StreamOut]


class Span(StrEnum):
    """How far back."""

    QUARTER = "15m"
    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"


_RANGES = {one.key: one for one in history.Range}

router = APIRouter(
    prefix=API_ROOT,
    tags=["icecap"],
    responses={401: {"model": Problem}, 403: {"model": Problem}, 422: {"model": Problem}},
)


@router.get("/machines")
def machines(request: Request, who: Reader) -> list[MachineOut]:
    """List every machine that may be seen, worst first."""
    console = console_of(request)
    with console.store.reading() as connection:
        rows = fleet(connection, console, site=who.site)
    return [_machine(row) for row in rows]


@router.get("/machines/{serial}", responses={404: {"model": Problem}})
def machine(request: Request, serial: Serial, who: Reader) -> MachineOut:
    """Return one machine."""
    console = console_of(request)
    with console.store.reading() as connection:
        row = one_machine(connection, console, serial, site=who.site)
    if row is None:
        raise MissingError(f"There is no machine {serial!r} here.")
    return _machine(row)


@router.get("/machines/{serial}/series", responses={404: {"model": Problem}})
def series(
    request: Request,
    serial: Serial,
    who: Reader,
    *,
    span: Annotated[Span, Query(alias="range", description="how far back from now")] = Span.HOUR,
    channels: Annotated[str, Query(max_length=CHANNELS_CHARS_MAX, description="names with commas between; empty for all")] = "",
) -> SeriesOut:
    """Return a machine's past: single samples up to one hour, one-minute values beyond."""
    console = console_of(request)
    with console.store.reading() as connection:
        row = one_machine(connection, console, serial, site=who.site)
        if row is None or row.profile is None:
            raise MissingError(f"There is no machine {serial!r} here whose values can be read.")
        names = [name for name in channels.split(",") if name] or [one.name for one in row.profile.channels]
        known = {one.name: one for one in row.profile.channels}
        if unknown := [name for name in names if name not in known]:
            raise MissingError(f"Machine {serial!r} has no channel {unknown[0]!r}.")
        wanted = list(dict.fromkeys(names))
        found = history.read(connection, serial, row.profile, channels=wanted, span=_RANGES[span.value], to_ms=console.clock.wall_ms())
    return SeriesOut(
        serial=serial,
        from_ms=found.from_ms,
        to_ms=found.to_ms,
        time_zone=row.machine.time_zone,
        bucket_ms=found.bucket_ms,
        t_ms=found.t_ms,
        curves=[_curve(curve, unit_text(known[curve.name].unit)) for curve in found.curves],
        unreadable_blocks=found.unreadable,
    )


@router.get("/gateways")
def gateways(request: Request, who: Annotated[Principal, Depends(guard(Permission.GATEWAYS))]) -> list[GatewayOut]:
    """List every gateway that may be seen."""
    with console_of(request).store.reading() as connection:
        rows = queries.gateways(connection, site=who.site)
    return [_gateway(row) for row in rows]


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request, _who: Annotated[Principal, Depends(guard(Permission.ACCOUNT))]) -> JSONResponse:
    """Return the description of this API; strangers learn nothing from it because they do not get it."""
    return JSONResponse(request.app.openapi())


def _machine(row: FleetRow) -> MachineOut:
    one = row.machine
    return MachineOut(
        serial=one.serial,
        site=one.site,
        site_name=one.site_name,
        time_zone=one.time_zone,
        gateway=one.gateway,
        gateway_online=one.online,
        profile=one.profile,
        standing=row.standing.name.lower(),
        troubles=[trouble.text for trouble in row.troubles],
        newest_ms=one.newest_ms,
        age_ms=row.age_ms,
        circuits=[
            CircuitOut(circuit=part.number, state=part.state.name.lower() if part.state is not None else None) for part in row.circuits
        ],
        values=[
            ValueOut(
                channel=value.channel.name,
                label=value.label,
                unit=value.unit,
                circuit=value.channel.circuit,
                value=None if value.milli is None else value.milli / 1000,
                sampled_ms=value.ts_ms,
                outside_limits=value.out,
            )
            for value in row.values
        ],
    )


def _curve(curve: history.Curve, unit: str) -> CurveOut:
    marks = [MarkOut(t_ms=mark.t_ms, value=mark.value, reason=mark.reason, count=mark.count) for mark in curve.marks]
    return CurveOut(channel=curve.name, unit=unit, mean=curve.mean, lo=curve.lo, hi=curve.hi, rejected=curve.rejected, marks=marks)


def _gateway(row: queries.GatewayRow) -> GatewayOut:
    return GatewayOut(
        id=row.id,
        site=row.site,
        site_name=row.site_name,
        revoked=row.revoked,
        online=row.online,
        version=row.version,
        boot=row.boot,
        last_ms=row.last_ms,
        clock_quality=row.clock_quality.letter if row.clock_quality is not None else None,
        machines=row.machines,
        streams=[
            StreamOut(
                lane=one.lane,
                stream=str(one.stream),
                up_to=one.up_to,
                top=one.top,
                records=one.records,
                duplicates=one.duplicates,
                missing=one.missing,
                buried=one.buried,
                last_ms=one.last_ms,
            )
            for one in row.streams
        ],
    )
