"""``icecap provision``: certificates, broker folders, gateway bundles, and the registry of sites, gateways and coolers.

The entry point of the package: the machine's clock is read here and handed down. Nothing is decided here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.clock import MachineClock
from protocol.units import DeviceId, GatewayId
from provisioning import bundle as bundles
from provisioning import influx_cli
from provisioning.broker import INGEST_NAMES, Broker, write_broker
from provisioning.errors import ProvisioningError
from provisioning.files import PRIVATE_FILE, write_file
from provisioning.identity import LEAF_DAYS, Authority, Realm

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Certificates, broker configuration, gateway bundles, and who is registered.")
app.add_typer(influx_cli.app, name="influx")

CaOption = Annotated[Path, typer.Option("--ca", help="Folder of the certificate authority.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write.")]
DatabaseOption = Annotated[str, typer.Option("--database", envvar="DATABASE_URL", help="Address of the cloud's database.")]

_CLOCK = MachineClock(time.time_ns, time.monotonic_ns, lambda: True)  # certificates are dated by whatever the issuing machine believes


@app.command()
def ca(
    folder: Annotated[Path, typer.Argument(help="A new private folder.")],
    realm: Annotated[Realm, typer.Option(help="Which broker it is for.")] = Realm.CLOUD,
) -> None:
    """Make a certificate authority: a root, one authority for servers and one for clients."""
    with _plain_errors():
        Authority.create(folder, realm=realm, clock=_CLOCK)
    typer.echo(f"made the {realm} authority in {folder}; move {folder / 'root.key'} to a safe place, nothing here needs it")


@app.command()
def broker(
    *,
    authority: CaOption,
    out: OutOption,
    dns: Annotated[list[str] | None, typer.Option(help="A name at which clients call it; repeat.")] = None,
    ip: Annotated[list[str] | None, typer.Option(help="An address at which clients call it; repeat.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - a broker is there to be reached
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8883,
    gateway: Annotated[list[str] | None, typer.Option(help="Clinic only: a gateway that reads the coolers; repeat.")] = None,
    user: Annotated[str, typer.Option(help="Account that Mosquitto runs as when it is started as root.")] = "mosquitto",
) -> None:
    """Write everything that a Mosquitto needs: configuration, access list, certificate, revocation list. Again: renew the certificate."""
    with _plain_errors():
        opened = Authority(authority, clock=_CLOCK)
        names = [GatewayId(name) for name in gateway or ()]
        files = write_broker(out, Broker(host, port, user), opened, dns=dns or (), ips=ip or (), gateways=names)
    typer.echo(f"start it with:  mosquitto -c {files.configuration}\nafter a renewal: kill -HUP its process")


@app.command()
def client(
    name: Annotated[str, typer.Argument(help="gw-…, ingest-p00 … ingest-p15, or a cooler's serial number.")],
    authority: CaOption,
    out: OutOption,
) -> None:
    """Issue one client certificate, NAME.crt and NAME.key, and the root that it should trust."""
    with _plain_errors():
        opened = Authority(authority, clock=_CLOCK)
        certificate, key = opened.issue_client(name).write(out, name)
        write_file(out / "ca.crt", opened.root, mode=0o644)
    typer.echo(f"{certificate} and {key}, valid for {LEAF_DAYS} days")


@app.command()
def ingest(authority: CaOption, out: OutOption) -> None:
    """Issue the sixteen certificates of the ingest workers: one a partition, since the name is the client id."""
    with _plain_errors():
        opened = Authority(authority, clock=_CLOCK)
        for name in INGEST_NAMES:
            opened.issue_client(name).write(out, name)
        write_file(out / "ca.crt", opened.root, mode=0o644)
    typer.echo(f"{len(INGEST_NAMES)} certificates in {out}, valid for {LEAF_DAYS} days")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose certificates end.")],
    authority: CaOption,
    crl: Annotated[Path, typer.Option(help="The broker's revoked.crl, replaced at once.")],
) -> None:
    """Revoke every certificate of a name and write the list. A session that is open lives on until the broker restarts."""
    with _plain_errors():
        opened = Authority(authority, clock=_CLOCK)
        count = opened.revoke(name)
        opened.write_crl(crl)
    typer.echo(f"revoked {count} certificates of {name}; now send the broker SIGHUP")


@app.command()
def crl(authority: CaOption, out: OutOption) -> None:
    """Write the revocation list anew. Do it weekly: with an expired one a broker refuses everybody."""
    with _plain_errors():
        Authority(authority, clock=_CLOCK).write_crl(out)
    typer.echo(f"wrote {out}; now send the broker SIGHUP")


@app.command()
def bundle(
    gateway: Annotated[str, typer.Argument(help="gw-…")],
    *,
    out: OutOption,
    site: Annotated[str, typer.Option(help="The clinic's id.")],
    cloud_ca: Annotated[Path, typer.Option(help="Folder of the cloud's authority.")],
    cloud_host: Annotated[str, typer.Option(help="The cloud's broker.")],
    cloud_port: Annotated[int, typer.Option(help="Its port.", min=1, max=65535)] = 8883,
    clinic_ca: Annotated[Path | None, typer.Option(help="Folder of the clinic's authority, when coolers speak MQTT.")] = None,
    clinic_host: Annotated[str, typer.Option(help="The clinic's broker.")] = "127.0.0.1",
    clinic_port: Annotated[int, typer.Option(help="Its port.", min=1, max=65535)] = 8883,
    cooler: Annotated[list[str] | None, typer.Option(help="SERIAL or SERIAL=PROFILE; repeat.")] = None,
) -> None:
    """Make the archive that turns one box into one gateway. It holds private keys: carry it, do not mail it."""
    with _plain_errors():
        clinic = Authority(clinic_ca, clock=_CLOCK) if clinic_ca else None
        plan = bundles.GatewayPlan(
            gateway=GatewayId(gateway),
            site=site,
            cloud=bundles.Endpoint(cloud_host, cloud_port),
            clinic=bundles.Endpoint(clinic_host, clinic_port) if clinic else None,
            coolers={DeviceId(serial): profile or "icecap-cooler" for serial, _, profile in (one.partition("=") for one in cooler or ())},
        )
        files = bundles.files_of(plan, cloud=Authority(cloud_ca, clock=_CLOCK), clinic=clinic)
        write_file(out, bundles.pack(files, wall_ms=_CLOCK.wall_ms()), mode=PRIVATE_FILE)
    typer.echo(f"{out}; on the box:  icecap provision unpack {out.name} /etc/icecap")


@app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="The bundle.")], folder: Annotated[Path, typer.Argument(help="For example /etc/icecap.")]
) -> None:
    """Unpack a bundle on the gateway."""
    with _plain_errors():
        paths = bundles.unpack(archive, folder)
    typer.echo("\n".join(map(str, paths)))


@app.command()
def site(
    name: Annotated[str, typer.Argument(help="3 to 32 of a-z 0-9 -")],
    database: DatabaseOption,
    title: Annotated[str, typer.Option(help="What people call it.")],
    zone: Annotated[str, typer.Option(help="IANA time zone.")] = "Europe/Berlin",
) -> None:
    """Register a clinic."""
    from provisioning import registry

    with _plain_errors(), _registry(database) as connection:
        registry.add_site(connection, registry.Site(name, title, zone, _CLOCK.wall_ms()))
    typer.echo(f"site {name}")


@app.command()
def gateway(
    name: Annotated[str, typer.Argument(help="gw-…")],
    database: DatabaseOption,
    site: Annotated[str, typer.Option(help="The clinic that it serves.")],
) -> None:
    """Register a gateway as active: from now on the cloud takes what it sends."""
    from provisioning import registry

    with _plain_errors(), _registry(database) as connection:
        registry.add_gateway(connection, name, site_id=site, at_ms=_CLOCK.wall_ms())
    typer.echo(f"gateway {name} at {site}")


@app.command()
def cooler(
    serial: Annotated[str, typer.Argument(help="Serial number, lower case.")],
    database: DatabaseOption,
    gateway: Annotated[str, typer.Option(help="The gateway that reads it.")],
    profile: Annotated[str, typer.Option(help="What its model measures.")] = "icecap-cooler",
) -> None:
    """Register where a cooler stands; again with another gateway: it has moved."""
    from provisioning import registry

    with _plain_errors(), _registry(database) as connection:
        registry.place_device(connection, serial, gateway_id=gateway, profile=profile, at_ms=_CLOCK.wall_ms())
    typer.echo(f"cooler {serial} behind {gateway}")


@contextmanager
def _registry(url: str) -> "Iterator[Connection]":
    """One transaction on the cloud's database. On SQLite without checkpoints: those are the cloud's own business while it runs."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import ConnectionPoolEntry

    try:
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":

            @event.listens_for(engine, "connect")
            def connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
                cursor = connection.cursor()
                for pragma in ("busy_timeout=10000", "synchronous=full", "wal_autocheckpoint=0"):
                    cursor.execute(f"pragma {pragma}")
                cursor.close()

        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise ProvisioningError(f"the database did not take it: {error}; is it migrated (icecap ingest migrate)?") from error


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a person can mend is told in one line; a bug keeps its traceback."""
    try:
        yield
    except ProvisioningError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error
