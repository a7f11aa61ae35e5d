"""Effects: what pages read at once (last values, presence, who was seen) and what a person must hear of. Rebuildable, except events.

Invariant: each statement keeps the newer of what is stored and what comes, so the order of batches does not matter.
"""

import hashlib
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from ingest.intake import Cell, Happening, Heard, Intake, Seen
from ingest.lastvalues import Newest
from ingest.schema import device_seen, event, gateway_status, last_value
from ingest.sql import Insert, insert_new, larger, smaller, upsert
from protocol.clock import ClockQuality
from protocol.reading import CODE_MIN

__all__ = ["sha256", "tell", "write"]

RowOut = dict[str, Cell]


def write(connection: Connection, intake: Intake) -> None:
    """Write the effects of a batch."""
    if intake.newest:
        connection.execute(_last_value_statement(connection), [_last_value_row(one) for one in intake.newest.values()])
    if intake.seen:
        connection.execute(_seen_statement(connection), [_seen_row(device, one) for device, one in intake.seen.items()])
    if intake.heard:
        _write_status(connection, intake)
    tell(connection, list(intake.happenings.values()))


def tell(connection: Connection, happenings: Sequence[Happening]) -> None:
    """Write events; one whose key is there was told already."""
    if happenings:
        connection.execute(insert_new(connection, event), [_event_row(one) for one in happenings])


def sha256(data: bytes) -> bytes:
    """The hash under which bytes are known in every table."""
    return hashlib.sha256(data).digest()


def _last_value_statement(connection: Connection) -> Insert:
    """The same rule as ``lastvalues.Newest.joined``: later, then live, then larger."""
    statement = upsert(connection, last_value)
    old, new = last_value.c, statement.excluded
    value_old, value_new = func.coalesce(old.value_milli, CODE_MIN), func.coalesce(new.value_milli, CODE_MIN)
    same_time = new.ts_ms == old.ts_ms
    newer = or_(
        new.ts_ms > old.ts_ms,
        and_(same_time, new.live > old.live),
        and_(same_time, new.live == old.live, value_new > value_old),
    )
    fresher = or_(new.seen_ms > old.seen_ms, and_(new.seen_ms == old.seen_ms, new.quality > old.quality))
    chosen = {name: case((newer, new[name]), else_=old[name]) for name in ("ts_ms", "live", "code", "value_milli")}
    chosen |= {name: case((fresher, new[name]), else_=old[name]) for name in ("seen_ms", "quality")}
    return statement.on_conflict_do_update(index_elements=["device", "channel"], set_=chosen, where=or_(newer, fresher))


def _last_value_row(one: Newest) -> RowOut:
    return {
        "device": one.key[0],
        "channel": one.key[1],
        "ts_ms": one.ts_ms,
        "code": one.code,
        "value_milli": one.value_milli,
        "live": one.live,
        "seen_ms": one.seen_ms,
        "quality": one.quality,
    }


def _seen_statement(connection: Connection) -> Insert:
    statement = upsert(connection, device_seen)
    old, new = device_seen.c, statement.excluded
    newer = or_(new.last_ms > old.last_ms, and_(new.last_ms == old.last_ms, new.gateway >= old.gateway))
    changes: dict[str, ColumnElement[object]] = {
        name: case((newer, new[name]), else_=old[name]) for name in ("gateway", "profile", "profile_version")
    }
    changes |= {
        "first_ms": smaller(new.first_ms, old.first_ms),
        "last_ms": larger(new.last_ms, old.last_ms),
        "blocks": old.blocks + new.blocks,
        "rows": old["rows"] + new["rows"],
    }
    return statement.on_conflict_do_update(index_elements=["device"], set_=changes)


def _seen_row(device: str, one: Seen) -> RowOut:
    return {
        "device": device,
        "gateway": one.gateway,
        "profile": one.profile,
        "profile_version": one.profile_version,
        "first_ms": one.first_ms,
        "last_ms": one.last_ms,
        "blocks": one.blocks,
        "rows": one.rows,
    }


def _write_status(connection: Connection, intake: Intake) -> None:
    stored = {
        row.gateway: dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
        for row in connection.execute(select(gateway_status).where(gateway_status.c.gateway.in_(list(intake.heard))))
    }
    rows = [_status_row(gateway, heard, stored.get(gateway)) for gateway, heard in intake.heard.items()]
    statement = upsert(connection, gateway_status)
    changes = {name: statement.excluded[name] for name in rows[0] if name != "gateway"}
    connection.execute(statement.on_conflict_do_update(index_elements=["gateway"], set_=changes), rows)


def _status_row(gateway: str, heard: Heard, stored: RowOut | None) -> RowOut:
    unknown: RowOut = {"gateway": gateway, "online": False, "boot": "", "version": "", "changed_ms": 0, "wall_ms": 0}
    row: RowOut = {**unknown, "clock_quality": ClockQuality.UNSYNCED.value, **(stored or {})}
    row["last_ms"] = max(heard.last_ms, int(row.get("last_ms") or 0))
    for at_ms, presence in heard.presence:
        boot = f"{presence.boot:016x}"
        if not presence.online and row["online"] and boot != row["boot"]:
            continue  # the will of a boot that a newer birth has replaced: the connection that died is not the one that lives
        if bool(row["online"]) != presence.online:
            row["changed_ms"] = at_ms
        row["online"], row["boot"], row["version"] = presence.online, boot, presence.version or row["version"]
    if heard.head is not None:
        row["wall_ms"], row["clock_quality"] = heard.head.stamp.wall_ms, heard.head.stamp.quality.value
    return row


def _event_row(one: Happening) -> RowOut:
    return {
        "key": one.key,
        "at_ms": one.at_ms,
        "kind": one.kind,
        "severity": one.severity,
        "gateway": one.gateway,
        "device": one.device,
        "detail": one.detail,
    }
