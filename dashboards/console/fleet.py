"""Fleet: what the fleet page and the API say of each machine, and in which order. Pure above ``queries``; no HTML.

Invariant: the order is total and the same for the same values: worst first, then by serial, so a row moves only when its machine changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any  # sort keys of different columns have different types

from sqlalchemy import Connection

from dashboards.console import drawing, queries
from dashboards.console.context import Console
from dashboards.console.present import Circuit, Measure, Standing, Trouble, circuits, measures, stand
from dashboards.console.queries import Machine
from protocol.profile import Profile, Role

__all__ = ["SORTS", "Filter", "FleetRow", "fleet", "one_machine", "select_rows"]

SEARCH_CHARS_MAX = 64  # longer than any serial or site id
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One machine with everything that a page says of it. ``parts[0]`` is the whole machine, the others its circuits."""

    machine: Machine
    profile: Profile | None
    parts: tuple[Circuit, ...]
    age_ms: int | None
    troubles: tuple[Trouble, ...]
    spark: drawing.Spark | None = None

    @property
    def standing(self) -> Standing:
        """The worst of its troubles."""
        return self.troubles[0].standing if self.troubles else Standing.FINE

    @property
    def is_current(self) -> bool:
        """Whether the values speak of now."""
        return self.standing not in {Standing.SILENT, Standing.NEVER}

    @property
    def circuits(self) -> tuple[Circuit, ...]:
        """The circuits without the machine's own part."""
        return self.parts[1:]

    @property
    def values(self) -> tuple[Measure, ...]:
        """Every measure of every part."""
        return tuple(row for part in self.parts for row in part.measures)


@dataclass(frozen=True, slots=True)
class Filter:
    """What the person wants to see and in which order."""

    search: str = ""
    site: str = ""
    only: str = ""
    """``attention`` for everything that is not fine, or empty."""
    sort: str = "worst"
    down: bool = False


def fleet(connection: Connection, console: Console, *, site: str | None) -> tuple[FleetRow, ...]:
    """Return every machine that may be seen, worst first."""
    machines = queries.machines(connection, site=site)
    known = queries.last_values(connection, None if site is None else [one.serial for one in machines])
    profiles = {one.profile: console.profile(one.profile) for one in machines}
    now_ms = console.clock.wall_ms()
    sparks = console.sparks.get(site, now_ms // MINUTE_MS)
    if sparks is None:
        sparks = _sparks(connection, machines, profiles, now_ms=now_ms)
        console.sparks.put(site, now_ms // MINUTE_MS, sparks)
    rows = []
    for one in machines:
        profile = profiles[one.profile]
        rows.append(_row(console, one, profile, known.get(one.serial, {}), now_ms=now_ms, spark=sparks.get(one.serial)))
    return tuple(sorted(rows, key=_worst))


def one_machine(connection: Connection, console: Console, serial: str, *, site: str | None) -> FleetRow | None:
    """Return one machine, or ``None`` when there is none of that serial that may be seen."""
    machine = queries.machine(connection, serial, site=site)
    if machine is None:
        return None
    known = queries.last_values(connection, [serial]).get(serial, {})
    return _row(console, machine, console.profile(machine.profile), known, now_ms=console.clock.wall_ms(), spark=None)


def _row(
    console: Console,
    machine: Machine,
    profile: Profile | None,
    known: Mapping[str, Any],
    *,
    now_ms: int,
    spark: drawing.Spark | None,
) -> FleetRow:
    age_ms = None if machine.newest_ms is None else max(now_ms - machine.newest_ms, 0)
    parts = circuits(profile, measures(profile, known)) if profile else ()
    troubles = stand(parts, age_ms=age_ms, online=machine.online, ages=console.ages)
    if profile is None and age_ms is not None:
        missing = Trouble(Standing.LIMIT, f"Profile {machine.profile} is not installed here: values cannot be read")
        troubles = tuple(sorted((*troubles, missing), key=lambda one: one.standing))
    return FleetRow(machine, profile, parts, age_ms, troubles, spark)


def _sparks(
    connection: Connection, machines: Sequence[Machine], profiles: Mapping[str, Profile | None], *, now_ms: int
) -> dict[str, drawing.Spark | None]:
    """The last hour of every machine, as a picture."""
    since_ms = now_ms // MINUTE_MS * MINUTE_MS - drawing.SPARK_MINUTES * MINUTE_MS
    names = {channel.name for profile in profiles.values() if profile for channel in profile.by_role(Role.COOLANT_TEMP)}
    minutes = queries.minute_means(connection, [one.serial for one in machines], names, since_ms=since_ms) if names else {}
    drawn = {}
    for one in machines:
        profile = profiles[one.profile]
        drawn[one.serial] = _spark(one.serial, profile, minutes, since_ms=since_ms) if profile else None
    return drawn


def _spark(
    serial: str, profile: Profile, minutes: Mapping[tuple[str, str], Sequence[tuple[int, int, int]]], *, since_ms: int
) -> drawing.Spark | None:
    lines = []
    for channel in profile.by_role(Role.COOLANT_TEMP):
        milli = 1000 * channel.multiplier / 10**channel.decimals
        found = minutes.get((serial, channel.name), ())
        lines.append([((minute_ms - since_ms) // MINUTE_MS - 1, round(total / count * milli)) for minute_ms, count, total in found])
    return drawing.spark([[point for point in line if 0 <= point[0] < drawing.SPARK_MINUTES] for line in lines])


def select_rows(rows: Sequence[FleetRow], wanted: Filter) -> tuple[FleetRow, ...]:
    """Return the rows that the filter lets through in its order; unknown values come last in either direction."""
    needle = wanted.search.strip().casefold()[:SEARCH_CHARS_MAX]
    found = [
        row
        for row in rows
        if (not needle or needle in _haystack(row))
        and (not wanted.site or row.machine.site == wanted.site)
        and (wanted.only != "attention" or row.standing is not Standing.FINE)
    ]
    key = SORTS.get(wanted.sort, _worst)
    known = [row for row in found if key(row) is not None]
    unknown = [row for row in found if key(row) is None]
    return (*sorted(known, key=key, reverse=wanted.down), *unknown)


def _haystack(row: FleetRow) -> str:
    machine = row.machine
    return " ".join((machine.serial, machine.site or "", machine.site_name, machine.gateway, row.standing.text)).casefold()


def _worst(row: FleetRow) -> tuple[int, int, str]:
    """Within one standing the longest silence first."""
    silent_ms = row.age_ms if row.standing is Standing.SILENT and row.age_ms is not None else 0
    return (row.standing.value, -silent_ms, row.machine.serial)


def _by_first(role: Role) -> Callable[[FleetRow], Any]:
    def key(row: FleetRow) -> Any:
        values = [one.milli for one in row.values if one.channel.role == role and one.milli is not None]
        return (max(values), row.machine.serial) if values and row.is_current else None

    return key


SORTS: Mapping[str, Callable[[FleetRow], Any]] = {
    "worst": _worst,
    "machine": lambda row: row.machine.serial,
    "site": lambda row: (row.machine.site_name.casefold(), row.machine.serial),
    "coolant": _by_first(Role.COOLANT_TEMP),
    "cap": _by_first(Role.CAP_TEMP),
    "flow": _by_first(Role.FLOW),
    "age": lambda row: None if row.age_ms is None else (row.age_ms, row.machine.serial),
    "gateway": lambda row: (row.machine.gateway, row.machine.serial),
}
"""What a column's heading sorts by; of two circuits the higher value counts."""
