"""Stage: everything that the demonstration's processes find before they start: authorities, brokers, configurations, the registry, a login.

Real provisioning, nothing simulated. Invariant: all of it lies in one folder (sockets in a second one with a short name), the processes
share one scaled clock, and nothing outside those folders changes.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.store import Store
from protocol.clock import MachineClock, ScaledClock
from protocol.units import DeviceId, GatewayId
from provisioning import bundle, influx, registry, toml
from provisioning.broker import INGEST_NAMES, Broker, write_broker
from provisioning.errors import ProvisioningError
from provisioning.files import PRIVATE_FILE, PUBLIC_FILE, make_private_folder, write_file
from provisioning.identity import Authority, Realm
from provisioning.programs import find_program, how_to_install
from simulator.account import newest_arrival
from simulator.clinic import Clinic
from simulator.publish import Wire
from simulator.supervisor import Program

__all__ = ["GATEWAY", "LOGIN", "PROFILE", "SITE", "START_WALL_MS", "Settings", "Stage", "StageError", "prepare"]

HOST = "127.0.0.1"
SITE = "clinic-a"
PROFILE = "icecap-cooler"
GATEWAY = "gateway"
"""Name of the first gateway's process; the others have a number behind it."""
START_WALL_MS = 1_768_209_000_000  # 2026-01-12T09:10:00Z, a Monday morning with sessions under way; a past date cannot be taken for now
CONSOLE_PORT = 8600  # kept when it is free, for people remember it
LOGIN = "demo"
COMMAND_S = 60.0  # a cold start of a command line of ours on a small machine


class StageError(Exception):
    """The demonstration cannot begin; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the demonstration is asked for. ``environment`` is that of the caller: addresses of real services are read from it."""

    folder: Path
    sockets: Path
    coolers: int = 4
    gateways: int = 1
    scale: int = 60
    seed: str = "icecap"
    environment: Mapping[str, str] | None = None

    def service(self, name: str) -> str:
        """The address of a real service, or nothing."""
        return (self.environment or {}).get(name, "")


@dataclass(frozen=True, slots=True)
class Stage:
    """What has been prepared."""

    settings: Settings
    clinic: Clinic
    clock: ScaledClock
    gateways: tuple[GatewayId, ...]
    database: str
    wire: Wire
    programs: tuple[Program, ...]
    console_url: str
    password: str
    after_arrival: int


@dataclass(frozen=True, slots=True)
class _Ports:
    clinic: int
    cloud: int
    console: int


@dataclass(frozen=True, slots=True)
class _Ground:
    """What every part of the stage stands on."""

    settings: Settings
    folder: Path
    ports: _Ports
    clinic: Clinic
    gateways: tuple[GatewayId, ...]
    clock: ScaledClock
    database: str


def prepare(settings: Settings, *, machine: MachineClock, say: Callable[[str], None]) -> Stage:
    """Write the stage into ``settings.folder``. Raises ``StageError`` when a program is missing or a step fails."""
    mosquitto = find_program("mosquitto")
    if mosquitto is None:
        raise StageError(how_to_install("mosquitto"))
    folder = make_private_folder(settings.folder.absolute())
    ground = _Ground(
        settings=settings,
        folder=folder,
        ports=_free_ports(),
        clinic=Clinic(settings.seed, settings.coolers),
        gateways=tuple(GatewayId(f"gw-demo-{number}") for number in range(1, settings.gateways + 1)),
        clock=ScaledClock(machine.monotonic_ns, machine.monotonic_ns(), START_WALL_MS, settings.scale),
        database=settings.service("DATABASE_URL") or f"sqlite:///{folder / 'cloud.db'}",
    )
    say("certificates for two brokers, the gateways, the ingest workers and the coolers")
    cloud = Authority.create(folder / "cloud-ca", realm=Realm.CLOUD, clock=machine)
    clinic = Authority.create(folder / "clinic-ca", realm=Realm.CLINIC, clock=machine)
    brokers = (_broker(ground, clinic, ground.ports.clinic, mosquitto), _broker(ground, cloud, ground.ports.cloud, mosquitto))
    wire = _coolers(ground, clinic)
    ingest = _ingest(ground, cloud)
    edges = [_gateway(ground, index, cloud=cloud, clinic=clinic) for index in range(settings.gateways)]
    say("the cloud's database and who is registered in it")
    after_arrival = _register(ground)
    if problem := _prepare_influx(settings):
        say(problem)
    say("the console and a login for it")
    console, password = _console(ground)
    return Stage(
        settings=settings,
        clinic=ground.clinic,
        clock=ground.clock,
        gateways=ground.gateways,
        database=ground.database,
        wire=wire,
        programs=(*brokers, ingest, *edges, console),
        console_url=f"http://{HOST}:{ground.ports.console}/",
        password=password,
        after_arrival=after_arrival,
    )


def icecap(*words: str) -> list[str]:
    """The command line of ``icecap`` in this Python."""
    return [sys.executable, "-m", "icecap", *words]


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _free_ports() -> _Ports:
    """Ports that nobody listens on; the console gets its own when that is free."""
    probes = [socket.socket() for _ in range(3)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        clinic, cloud, console = (int(probe.getsockname()[1]) for probe in probes)
    finally:
        for probe in probes:
            probe.close()
    return _Ports(clinic, cloud, console if is_open(CONSOLE_PORT) else CONSOLE_PORT)


def _broker(ground: _Ground, authority: Authority, port: int, mosquitto: Path) -> Program:
    name = f"{authority.realm}-broker"
    readers = ground.gateways if authority.realm is Realm.CLINIC else ()
    broker = Broker(HOST, port, user="root")  # who runs it without being root is not asked; with it, no other account may enter our folder
    files = write_broker(ground.folder / name, broker, authority, dns=["localhost"], ips=[HOST], gateways=readers)
    return Program(name, [str(mosquitto), "-c", str(files.configuration)], lambda: is_open(port))


def _coolers(ground: _Ground, authority: Authority) -> Wire:
    folder = ground.folder / "coolers"
    for serial in ground.clinic.serials:
        authority.issue_client(serial).write(folder, serial)
    write_file(folder / "ca.crt", authority.root, mode=PUBLIC_FILE)
    return Wire(HOST, ground.ports.clinic, folder / "ca.crt", folder)


def _register(ground: _Ground) -> int:
    """Migrate, enter what is not there yet, and return the newest arrival number."""
    store = Store.open(ground.database)
    try:
        store.migrate()
        with store.transaction() as connection:
            if SITE not in {one.id for one in registry.sites(connection)}:
                registry.add_site(connection, registry.Site(SITE, "Clinic A", "Europe/Berlin", START_WALL_MS))
            known = registry.find_gateways(connection, ground.gateways)
            for gateway in ground.gateways:
                if gateway not in known:
                    registry.add_gateway(connection, gateway, site_id=SITE, at_ms=START_WALL_MS)
            placed = {one.serial for one in registry.devices(connection)}
            for index, serial in enumerate(ground.clinic.serials):
                if serial not in placed:
                    gateway = ground.gateways[index % len(ground.gateways)]
                    registry.place_device(connection, serial, gateway_id=gateway, profile=PROFILE, at_ms=START_WALL_MS)
            return newest_arrival(connection)
    finally:
        store.close()


def _clock_table(clock: ScaledClock) -> dict[str, toml.Scalar]:
    return {"kind": "scaled", "scale": clock.scale, "origin_ns": clock.origin_ns, "start_wall_ms": clock.start_wall_ms}


def _gateway(ground: _Ground, index: int, *, cloud: Authority, clinic: Authority) -> Program:
    """A gateway as its bundle makes it, but for the clock and the places."""
    gateway = ground.gateways[index]
    home = ground.folder / gateway
    plan = bundle.GatewayPlan(
        gateway=gateway,
        site=SITE,
        cloud=bundle.Endpoint(HOST, ground.ports.cloud),
        clinic=bundle.Endpoint(HOST, ground.ports.clinic),
        coolers={DeviceId(serial): PROFILE for serial in ground.clinic.serials[index :: len(ground.gateways)]},
        data_dir=Path("data"),
        health_socket=ground.settings.sockets / f"{gateway}.sock",
        tables={"clock": _clock_table(ground.clock)},
    )
    archive = ground.folder / f"{gateway}.tar.gz"
    write_file(archive, bundle.pack(bundle.files_of(plan, cloud=cloud, clinic=clinic), wall_ms=START_WALL_MS), mode=PRIVATE_FILE)
    bundle.unpack(archive, home)
    archive.unlink()
    name = GATEWAY if index == 0 else f"{GATEWAY}-{index + 1}"
    return Program(name, icecap("edge", "run", "--config", str(home / "edge.toml")))


def _ingest(ground: _Ground, authority: Authority) -> Program:
    home = make_private_folder(ground.folder / "ingest")
    for name in INGEST_NAMES:
        authority.issue_client(name).write(home, name)
    write_file(home / "ca.crt", authority.root, mode=PUBLIC_FILE)
    parts = (
        toml.pairs({"database": ground.database, "partitions": "all"}),
        toml.table("clock", _clock_table(ground.clock)),
        toml.table("broker", {"host": HOST, "port": ground.ports.cloud, "ca": "ca.crt", "cert_dir": "."}),
        toml.table("health", {"socket": ground.settings.sockets / "ingest.sock"}),
        _influx(ground.settings),
    )
    write_file(home / "config.toml", "".join(parts).encode(), mode=PUBLIC_FILE)
    return Program("ingest", icecap("ingest", "run", "--config", str(home / "config.toml")))


def _influx(settings: Settings) -> str:
    """The projection into a real InfluxDB, when the caller has one; secrets stay in the environment, which the children inherit."""
    url = settings.service("INFLUX_URL")
    if not url:
        return ""
    api = settings.service("INFLUX_API") or ("v2" if settings.service("INFLUX_TOKEN") else "v1")
    values: dict[str, toml.Scalar] = {"url": url, "api": api, "bucket": settings.service("INFLUX_BUCKET") or "icecap"}
    if org := settings.service("INFLUX_ORG"):
        values["org"] = org
    secrets = {"token_env": "INFLUX_TOKEN", "user_env": "INFLUX_USER", "password_env": "INFLUX_PASSWORD"}
    values |= {key: name for key, name in secrets.items() if settings.service(name)}
    return toml.table("influx", values)


def _prepare_influx(settings: Settings) -> str:
    """Make the database or bucket in the caller's InfluxDB; return what it said when it did not, since it may be there all the same."""
    url = settings.service("INFLUX_URL")
    if not url:
        return ""
    name, token = settings.service("INFLUX_BUCKET") or "icecap", settings.service("INFLUX_TOKEN")
    user, password = settings.service("INFLUX_USER"), settings.service("INFLUX_PASSWORD")
    admin = influx.Admin(url, user, password, token, settings.service("INFLUX_ORG"))
    try:
        if token:
            influx.prepare_bucket(admin, name)
        else:
            influx.prepare_database(admin, name)
    except ProvisioningError as error:
        return f"{name} was not made: {error}"
    return ""


def _console(ground: _Ground) -> tuple[Program, str]:
    """The console's program and the generated password of its login."""
    home = make_private_folder(ground.folder / "console")
    path = home / "config.toml"
    parts = (
        toml.pairs({"database": ground.database}),
        toml.table("clock", _clock_table(ground.clock)),
        toml.table("listen", {"host": HOST, "port": ground.ports.console}),
    )
    write_file(path, "".join(parts).encode(), mode=PUBLIC_FILE)
    generated = (LOGIN, "--generate", "--config", str(path))
    made = _run(icecap("console", "user", "add", *generated, "--role", "admin"), "making a login")
    if made.returncode:  # a database that is kept knows the login from an earlier run
        made = _run(icecap("console", "user", "password", *generated), "making a password")
    if made.returncode:
        raise StageError(f"the console did not make a login: {made.stderr.strip()}")
    port = ground.ports.console
    return Program("console", icecap("console", "run", "--config", str(path)), lambda: is_open(port)), made.stdout.strip()


def push_boards() -> str:
    """Put the dashboards into the caller's Grafana; return a line about how it went."""
    pushed = _run(icecap("dashboards", "push"), "pushing the dashboards")
    return "dashboards are in Grafana" if pushed.returncode == 0 else f"Grafana did not take the dashboards: {pushed.stderr.strip()}"


def _run(words: list[str], what: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_S,
            check=False,
            env={**os.environ, **environment()},
        )
    except subprocess.TimeoutExpired:
        raise StageError(f"{what} took over {COMMAND_S:.0f} s; is the machine out of memory?") from None


def environment() -> dict[str, str]:
    """What the children need beside the caller's environment: our packages, wherever the caller stands."""
    return {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "PYTHONUNBUFFERED": "1"}
