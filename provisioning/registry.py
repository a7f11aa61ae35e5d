"""Registry: which sites, gateways and coolers exist, and where a cooler stands. Not what they sent, and never imported by ``edge``.

Invariant: history is not rewritten. A cooler that moves gets a new row, a revoked gateway keeps its row: a block of last year still finds
the site where it was measured. Functions take a SQLAlchemy connection and never commit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    String,
    Table,
    insert,
    or_,
    select,
    update,
)

from protocol.units import DeviceId, GatewayId, is_device_id, is_gateway_id
from provisioning.errors import ProvisioningError

__all__ = [
    "NAMING",
    "Device",
    "Gateway",
    "RegistryError",
    "Site",
    "Status",
    "add_gateway",
    "add_site",
    "device",
    "devices",
    "find_device",
    "find_gateways",
    "gateway",
    "gateways",
    "metadata",
    "place_device",
    "retire_device",
    "revoke_gateway",
    "site",
    "sites",
    "stay_at",
    "stays",
]

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraint names of both metadata objects, so that a migration can name what it changes."""

NAME_CHARS_MAX = 120  # a clinic's name on a page and an invoice; longer ones are addresses

metadata = MetaData(naming_convention=NAMING)

_Name = String(32)

site = Table(
    "site",
    metadata,
    Column("id", _Name, primary_key=True),
    Column("name", String(NAME_CHARS_MAX), nullable=False),
    Column("time_zone", String(64), nullable=False, comment="IANA name"),
    Column("valid_from_ms", BigInteger, nullable=False),
    Column("valid_to_ms", BigInteger),
)

gateway = Table(
    "gateway",
    metadata,
    Column("id", _Name, primary_key=True),
    Column("site", _Name, nullable=False),
    Column("status", String(16), nullable=False),
    Column("valid_from_ms", BigInteger, nullable=False),
    Column("valid_to_ms", BigInteger, comment="when it was revoked"),
    Index(None, "site"),
)

device = Table(
    "device",
    metadata,
    Column("serial", _Name, nullable=False),
    Column("valid_from_ms", BigInteger, nullable=False),
    Column("valid_to_ms", BigInteger, comment="null: it stands there now"),
    Column("site", _Name, nullable=False),
    Column("gateway", _Name, nullable=False),
    Column("profile", _Name, nullable=False),
    Column("status", String(16), nullable=False),
    PrimaryKeyConstraint("serial", "valid_from_ms"),
    Index(None, "gateway"),
)


class Status(StrEnum):
    """Whether a gateway may send, or a cooler is in use."""

    ACTIVE = "active"
    REVOKED = "revoked"
    RETIRED = "retired"


class RegistryError(ProvisioningError):
    """An entry that cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Site:
    """A clinic, valid from ``valid_from_ms`` until ``valid_to_ms`` (``None``: still)."""

    id: str
    name: str
    time_zone: str
    valid_from_ms: int
    valid_to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway and the site that it serves."""

    id: GatewayId
    site: str
    status: Status
    valid_from_ms: int
    valid_to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One stay of a cooler: at a site, behind a gateway, from ``valid_from_ms`` until before ``valid_to_ms``."""

    serial: DeviceId
    valid_from_ms: int
    valid_to_ms: int | None
    site: str
    gateway: GatewayId
    profile: str
    status: Status


def add_site(connection: Connection, one: Site) -> None:
    """Enter a site. Raises ``RegistryError`` for a bad id or name, and when the id is taken."""
    if not is_device_id(one.id):
        raise RegistryError(f"site {one.id!r}: an id is 3 to 32 of a-z 0-9 -")
    if not one.name.strip() or len(one.name) > NAME_CHARS_MAX or not one.name.isprintable():
        raise RegistryError(f"site {one.id}: a name is 1 to {NAME_CHARS_MAX} printable characters")
    if connection.execute(select(site.c.id).where(site.c.id == one.id)).first():
        raise RegistryError(f"site {one.id} exists")
    values = {
        "id": one.id,
        "name": one.name,
        "time_zone": one.time_zone,
        "valid_from_ms": one.valid_from_ms,
        "valid_to_ms": one.valid_to_ms,
    }
    connection.execute(insert(site).values(values))


def sites(connection: Connection) -> tuple[Site, ...]:
    """All sites by id."""
    return tuple(Site(*row) for row in connection.execute(select(site).order_by(site.c.id)))


def add_gateway(connection: Connection, gateway_id: str, *, site_id: str, at_ms: int) -> None:
    """Enter a gateway as active. Raises ``RegistryError`` for a bad id, a taken one (also a revoked one) and an unknown site."""
    if not is_gateway_id(gateway_id):
        raise RegistryError(f"gateway {gateway_id!r}: an id is gw- and 1 to 29 of a-z 0-9 -")
    if not connection.execute(select(site.c.id).where(site.c.id == site_id)).first():
        raise RegistryError(f"gateway {gateway_id}: there is no site {site_id!r}; add it first")
    if find_gateways(connection, [gateway_id]):
        raise RegistryError(f"gateway {gateway_id} exists; a revoked id is never used again")
    values = {"id": gateway_id, "site": site_id, "status": Status.ACTIVE, "valid_from_ms": at_ms, "valid_to_ms": None}
    connection.execute(insert(gateway).values(values))


def revoke_gateway(connection: Connection, gateway_id: str, *, at_ms: int) -> None:
    """From now on nothing of this gateway is accepted. Raises ``RegistryError`` when there is no active one of that id."""
    active = (gateway.c.id == gateway_id) & (gateway.c.status == Status.ACTIVE)
    changed = connection.execute(update(gateway).where(active).values(status=Status.REVOKED, valid_to_ms=at_ms))
    if changed.rowcount != 1:
        raise RegistryError(f"gateway {gateway_id}: there is no active one of that id")


def find_gateways(connection: Connection, ids: Iterable[str]) -> dict[str, Gateway]:
    """The registered gateways among ``ids``."""
    rows = connection.execute(select(gateway).where(gateway.c.id.in_(list(ids))))
    return {row.id: _gateway(row) for row in rows}


def gateways(connection: Connection) -> tuple[Gateway, ...]:
    """All gateways by id, revoked ones too."""
    return tuple(_gateway(row) for row in connection.execute(select(gateway).order_by(gateway.c.id)))


def place_device(connection: Connection, serial: str, *, gateway_id: str, profile: str, at_ms: int) -> None:
    """A cooler stands behind ``gateway_id`` from ``at_ms`` on; where it stood before, it stood until then.

    Raises ``RegistryError`` for a bad serial, an unknown gateway, and a time that is not after the beginning of the stay that it ends.
    """
    if not is_device_id(serial):
        raise RegistryError(f"cooler {serial!r}: a serial is 3 to 32 of a-z 0-9 -")
    known = find_gateways(connection, [gateway_id]).get(gateway_id)
    if known is None or known.status is not Status.ACTIVE:
        raise RegistryError(f"cooler {serial}: there is no active gateway {gateway_id!r}")
    _end_stay(connection, serial, at_ms=at_ms)
    values = {
        "serial": serial,
        "valid_from_ms": at_ms,
        "valid_to_ms": None,
        "site": known.site,
        "gateway": gateway_id,
        "profile": profile,
        "status": Status.ACTIVE,
    }
    connection.execute(insert(device).values(values))


def retire_device(connection: Connection, serial: str, *, at_ms: int) -> None:
    """A cooler is out of use from ``at_ms`` on. Raises ``RegistryError`` when it stands nowhere."""
    if not _end_stay(connection, serial, at_ms=at_ms):
        raise RegistryError(f"cooler {serial}: it stands nowhere")
    last = (device.c.serial == serial) & (device.c.valid_to_ms == at_ms)
    connection.execute(update(device).where(last).values(status=Status.RETIRED))


def find_device(connection: Connection, serial: str, *, at_ms: int) -> Device | None:
    """The stay of a cooler at that time.

    For a time before its first stay: the first one, since a cooler is often entered after it began to send.
    """
    return stay_at(stays(connection, [serial]).get(serial, ()), at_ms=at_ms)


def stays(connection: Connection, serials: Iterable[str]) -> dict[str, tuple[Device, ...]]:
    """All stays of the known ones among ``serials``, each cooler's in order: for whoever asks about many blocks at once."""
    found: dict[str, tuple[Device, ...]] = {}
    query = select(device).where(device.c.serial.in_(list(serials))).order_by(device.c.serial, device.c.valid_from_ms)
    for row in connection.execute(query):
        found[row.serial] = (*found.get(row.serial, ()), _device(row))
    return found


def stay_at(ordered: Iterable[Device], *, at_ms: int) -> Device | None:
    """Of one cooler's stays in order, the one of that time; the rule is ``find_device``'s."""
    return next((stay for stay in ordered if stay.valid_to_ms is None or at_ms < stay.valid_to_ms), None)


def devices(connection: Connection) -> tuple[Device, ...]:
    """The coolers in use now, by serial."""
    now = select(device).where(device.c.valid_to_ms.is_(None)).order_by(device.c.serial)
    return tuple(_device(row) for row in connection.execute(now))


def _end_stay(connection: Connection, serial: str, *, at_ms: int) -> bool:
    current = (device.c.serial == serial) & device.c.valid_to_ms.is_(None)
    overlap = (device.c.serial == serial) & or_(device.c.valid_from_ms >= at_ms, device.c.valid_to_ms > at_ms)
    if connection.execute(select(device.c.serial).where(overlap)).first():
        raise RegistryError(f"cooler {serial}: its last move was at or after {at_ms}")
    return connection.execute(update(device).where(current).values(valid_to_ms=at_ms)).rowcount == 1


def _gateway(row: Row[Any]) -> Gateway:
    return Gateway(GatewayId(row.id), row.site, Status(row.status), row.valid_from_ms, row.valid_to_ms)


def _device(row: Row[Any]) -> Device:
    return Device(
        DeviceId(row.serial), row.valid_from_ms, row.valid_to_ms, row.site, GatewayId(row.gateway), row.profile, Status(row.status)
    )
