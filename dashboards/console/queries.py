"""Queries: what the pages ask of the cloud store. Read-only, one consistent view each, no view logic and no HTML.

Invariant: a query that takes ``site`` never returns anything of another site; ``None`` means all sites and is for roles that may see all.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from dashboards.console.present import Last
from ingest.deadletters import DeadLetter
from ingest.schema import (
    block,
    cursor,
    dead_letter,
    device_seen,
    event,
    fact,
    gap,
    gateway_status,
    last_value,
    parked,
    rollup_1m,
    stream,
    tombstone,
)
from protocol.clock import ClockQuality
from provisioning import registry

__all__ = [
    "Cursor",
    "Event",
    "GatewayRow",
    "Health",
    "Machine",
    "ReasonCount",
    "StreamRow",
    "dead_letter_reasons",
    "dead_letters",
    "gateways",
    "health",
    "last_values",
    "machine",
    "machine_events",
    "machines",
    "minute_means",
    "sites",
]

DEAD_LETTERS_PAGE_MAX = 200  # a page, newest first; the counts above it speak of all
EVENTS_PAGE_MAX = 20  # the newest; more belongs to the alerts page
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Machine:
    """A cooler as the registry and the store know it. ``site`` is ``None`` for one that sends without being registered."""

    serial: str
    site: str | None
    site_name: str
    time_zone: str
    gateway: str
    online: bool | None
    """Whether its gateway is connected, ``None`` when it never said."""
    profile: str
    newest_ms: int | None
    """Newest sample of any channel, ``None`` before the first."""


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One lane of a gateway, in the newest life of its store, and what is open in it."""

    lane: str
    stream: int
    up_to: int
    top: int
    records: int
    duplicates: int
    open_gaps: int
    missing: int
    """Numbers that nothing accounts for yet."""
    buried: int
    """Numbers that the gateway said will never come."""
    last_ms: int


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """A gateway and its lanes. ``online`` is ``None`` when it never said."""

    id: str
    site: str | None
    site_name: str
    revoked: bool
    online: bool | None
    boot: str
    version: str
    changed_ms: int | None
    last_ms: int | None
    clock_quality: ClockQuality | None
    clock_ahead_ms: int | None
    """Its clock less ours in its newest record; includes the time on the way."""
    machines: int
    streams: tuple[StreamRow, ...]

    @property
    def missing(self) -> int:
        """Open numbers over all lanes."""
        return sum(one.missing for one in self.streams)


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How often one reason was met: different messages, and how many of them a retry has since accepted."""

    reason: str
    letters: int
    times: int
    resolved: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a projection is: records that arrived after it are its lag."""

    name: str
    arrival: int
    lag: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the cloud noticed."""

    at_ms: int
    kind: str
    severity: str
    detail: str


@dataclass(frozen=True, slots=True)
class Health:
    """The cloud side in numbers."""

    arrival: int
    blocks: int
    facts: int
    rows: int
    parked: int
    dead_letters: int
    newest_ms: int | None
    cursors: tuple[Cursor, ...]


def sites(connection: Connection, *, site: str | None) -> tuple[registry.Site, ...]:
    """Sites that may be seen, by name."""
    return tuple(sorted((one for one in registry.sites(connection) if site in {None, one.id}), key=lambda one: one.name.casefold()))


def machines(connection: Connection, *, site: str | None) -> tuple[Machine, ...]:
    """Every machine in use, and those that send without being registered (never for a role that is bound to a site), by serial."""
    return _machines(connection, site=site, serial=None)


def machine(connection: Connection, serial: str, *, site: str | None) -> Machine | None:
    """One machine, or ``None`` when there is none of that serial within the site."""
    found = _machines(connection, site=site, serial=serial)
    return found[0] if found else None


def _machines(connection: Connection, *, site: str | None, serial: str | None) -> tuple[Machine, ...]:
    stay, place, seen = registry.device, registry.site, device_seen
    registered = (
        select(
            stay.c.serial,
            stay.c.site,
            place.c.name,
            place.c.time_zone,
            stay.c.gateway,
            gateway_status.c.online,
            stay.c.profile,
            seen.c.profile.label("seen_profile"),
        )
        .join_from(stay, place, place.c.id == stay.c.site, isouter=True)
        .join(gateway_status, gateway_status.c.gateway == stay.c.gateway, isouter=True)
        .join(seen, seen.c.device == stay.c.serial, isouter=True)
        .where(stay.c.valid_to_ms.is_(None))
    )
    unregistered = (
        select(seen.c.device, seen.c.gateway, gateway_status.c.online, seen.c.profile)
        .join_from(seen, gateway_status, gateway_status.c.gateway == seen.c.gateway, isouter=True)
        .where(~select(stay.c.serial).where(stay.c.serial == seen.c.device, stay.c.valid_to_ms.is_(None)).exists())
    )
    newest = select(last_value.c.device, func.max(last_value.c.ts_ms), func.max(last_value.c.seen_ms)).group_by(last_value.c.device)
    if site is not None:
        registered = registered.where(stay.c.site == site)
    if serial is not None:
        registered, unregistered = registered.where(stay.c.serial == serial), unregistered.where(seen.c.device == serial)
        newest = newest.where(last_value.c.device == serial)
    # 0 stands for 'no valid value yet' and 'no block yet' in the table; here it becomes None.
    newest_ms = {device: max(ts_ms, seen_ms) or None for device, ts_ms, seen_ms in connection.execute(newest)}
    rows = [
        Machine(
            *(row.serial, row.site, row.name or row.site, row.time_zone or "UTC", row.gateway),
            row.online,
            row.seen_profile or row.profile,
            newest_ms.get(row.serial),
        )
        for row in connection.execute(registered)
    ]
    if site is None:
        rows += [
            Machine(*(row.device, None, "Not registered", "UTC", row.gateway), row.online, row.profile, newest_ms.get(row.device))
            for row in connection.execute(unregistered)
        ]
    return tuple(sorted(rows, key=lambda one: one.serial))


def last_values(connection: Connection, serials: Iterable[str] | None = None) -> Mapping[str, dict[str, Last]]:
    """The newest valid value of every channel, by machine (``None``: all); channels that never had one are absent."""
    query = select(last_value.c.device, last_value.c.channel, last_value.c.ts_ms, last_value.c.value_milli)
    query = query.where(last_value.c.value_milli.is_not(None))
    if serials is not None:
        query = query.where(last_value.c.device.in_(list(serials)))
    found: defaultdict[str, dict[str, Last]] = defaultdict(dict)
    for device, channel, ts_ms, value_milli in connection.execute(query):
        found[device][channel] = Last(ts_ms, value_milli)
    return found


def minute_means(
    connection: Connection, serials: Iterable[str], channels: Iterable[str], *, since_ms: int
) -> Mapping[tuple[str, str], list[tuple[int, int, int]]]:
    """Per machine and channel ``(minute_ms, n, total)`` of the minutes since then that hold a valid sample, ascending.

    Machines are named one by one so that the key (device, channel, minute) is searched and not the whole table read.
    """
    rollup = rollup_1m.c
    query = (
        select(rollup.device, rollup.channel, rollup.minute_ms, rollup.n, rollup.total)
        .where(rollup.device.in_(list(serials)), rollup.channel.in_(list(channels)), rollup.minute_ms >= since_ms, rollup.n > 0)
        .order_by(rollup.device, rollup.channel, rollup.minute_ms)
    )
    found: defaultdict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for device, channel, minute_ms, count, total in connection.execute(query):
        found[device, channel].append((minute_ms, count, total))
    return found


def machine_events(connection: Connection, serial: str) -> tuple[Event, ...]:
    """The newest events about one machine."""
    query = select(event.c.at_ms, event.c.kind, event.c.severity, event.c.detail).where(event.c.device == serial)
    return tuple(Event(*row) for row in connection.execute(query.order_by(event.c.at_ms.desc()).limit(EVENTS_PAGE_MAX)))


def gateways(connection: Connection, *, site: str | None) -> tuple[GatewayRow, ...]:
    """Every gateway with its lanes, by id."""
    box, place, status = registry.gateway, registry.site, gateway_status
    query = (
        select(box.c.id, box.c.site, place.c.name, box.c.status.label("registered"), status)
        .join_from(box, place, place.c.id == box.c.site, isouter=True)
        .join(status, status.c.gateway == box.c.id, isouter=True)
        .order_by(box.c.id)
    )
    counts = (
        select(registry.device.c.gateway, func.count()).where(registry.device.c.valid_to_ms.is_(None)).group_by(registry.device.c.gateway)
    )
    if site is not None:
        query = query.where(box.c.site == site)
    machines_at: dict[str, int] = {row[0]: row[1] for row in connection.execute(counts)}
    lanes = _streams(connection)
    return tuple(
        GatewayRow(
            id=row.id,
            site=row.site,
            site_name=row.name or row.site,
            revoked=row.registered != registry.Status.ACTIVE,
            online=row.online,
            boot=row.boot or "",
            version=row.version or "",
            changed_ms=row.changed_ms,
            last_ms=row.last_ms,
            clock_quality=ClockQuality(row.clock_quality) if row.wall_ms else None,
            clock_ahead_ms=row.wall_ms - row.last_ms if row.wall_ms else None,
            machines=machines_at.get(row.id, 0),
            streams=lanes.get(row.id, ()),
        )
        for row in connection.execute(query)
    )


def _streams(connection: Connection) -> dict[str, tuple[StreamRow, ...]]:
    """The newest stream of each lane; older ones are lives of a store that is gone."""
    opened = {
        (row.gateway, row.stream): (row.ranges, int(row.numbers))
        for row in connection.execute(
            select(
                gap.c.gateway, gap.c.stream, func.count().label("ranges"), func.sum(gap.c.last - gap.c.first + 1).label("numbers")
            ).group_by(gap.c.gateway, gap.c.stream)
        )
    }
    graves = select(tombstone.c.gateway, tombstone.c.stream, func.sum(tombstone.c.last - tombstone.c.first + 1))
    buried = {(gateway, number): int(count) for gateway, number, count in connection.execute(graves.group_by(*graves.selected_columns[:2]))}
    newest: dict[tuple[str, str], StreamRow] = {}
    for row in connection.execute(select(stream).order_by(stream.c.last_ms)):
        ranges, missing = opened.get((row.gateway, row.stream), (0, 0))
        newest[row.gateway, row.lane] = StreamRow(
            *(row.lane, row.stream, row.up_to, row.top, row.records, row.duplicates),
            open_gaps=ranges,
            missing=missing,
            buried=buried.get((row.gateway, row.stream), 0),
            last_ms=row.last_ms,
        )
    lanes: defaultdict[str, list[StreamRow]] = defaultdict(list)
    for (gateway, _), row_of_lane in sorted(newest.items()):
        lanes[gateway].append(row_of_lane)
    return {gateway: tuple(rows) for gateway, rows in lanes.items()}


def dead_letter_reasons(connection: Connection) -> tuple[ReasonCount, ...]:
    """How many messages were refused for each reason, most first."""
    letters = func.count().label("letters")
    query = (
        select(
            dead_letter.c.reason,
            letters,
            func.sum(dead_letter.c.times),
            func.count(dead_letter.c.resolved_ms),
            func.max(dead_letter.c.last_ms),
        )
        .group_by(dead_letter.c.reason)
        .order_by(letters.desc(), dead_letter.c.reason)
    )
    return tuple(
        ReasonCount(reason, count, int(times), solved, last_ms) for reason, count, times, solved, last_ms in connection.execute(query)
    )


_LETTER = tuple(dead_letter.c[name] for name in DeadLetter.__slots__)


def dead_letters(connection: Connection, *, reason: str = "") -> tuple[DeadLetter, ...]:
    """The newest refused messages, solved ones too, of one reason when given."""
    query = select(*_LETTER).order_by(dead_letter.c.received_ms.desc(), dead_letter.c.id.desc()).limit(DEAD_LETTERS_PAGE_MAX)
    if reason:
        query = query.where(dead_letter.c.reason == reason)
    return tuple(DeadLetter(*row) for row in connection.execute(query))


def health(connection: Connection) -> Health:
    """Counts, and how far each projection is."""
    arrival = max((connection.execute(select(func.max(table.c.arrival))).scalar() or 0) for table in (block, fact))
    sums = connection.execute(
        select(
            func.coalesce(func.sum(device_seen.c.blocks), 0),
            func.coalesce(func.sum(device_seen.c.rows), 0),
            func.max(device_seen.c.last_ms),
        )
    ).one()
    cursors = tuple(
        Cursor(row.name, row.arrival, max(arrival - row.arrival, 0), row.updated_ms)
        for row in connection.execute(select(cursor).order_by(cursor.c.name))
    )
    return Health(
        arrival=arrival,
        blocks=int(sums[0]),
        facts=_count(connection, fact.c.arrival),
        rows=int(sums[1]),
        parked=_count(connection, parked.c.seq),
        dead_letters=_count(connection, dead_letter.c.id),
        newest_ms=sums[2],
        cursors=cursors,
    )


def _count(connection: Connection, column: "object") -> int:
    return int(connection.execute(select(func.count(column))).scalar_one())  # type: ignore[arg-type]
