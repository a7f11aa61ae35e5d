"""Real services for tests: brokers and databases as child processes on free ports of 127.0.0.1. No mocks, nothing left behind.

Invariant: ``kill`` is SIGKILL and keeps port and data; ``start`` after it finds what the service had made durable.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

__all__ = ["Influxd", "Mosquitto", "Postgres", "Service", "eventually", "free_port", "port_is_open", "wait_until"]

T = TypeVar("T")

HOST = "127.0.0.1"
START_S = 20.0  # a cold start of InfluxDB on a loaded two-core machine was seen to take six seconds
STOP_S = 10.0  # PostgreSQL's fast shutdown writes a checkpoint first
POLL_S = 0.01  # short against every wait here, long against the cost of asking
LOG_TAIL_CHARS = 3_000  # enough for the last page of a broker's log in a failure message

PLAIN_BROKER = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {directory}/
max_queued_messages 0
"""

INFLUX = """\
reporting-disabled = true
bind-address = "127.0.0.1:{backup_port}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  auth-enabled = {auth}
[monitor]
  store-enabled = false
[subscriber]
  enabled = false
[continuous_queries]
  enabled = false
"""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_is_open(port: int) -> bool:
    """Whether somebody accepts connections on ``port``."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def wait_until(predicate: Callable[[], T], timeout_s: float = 10.0, what: str = "the expected state") -> T:
    """Poll until ``predicate`` returns something true and return it; TimeoutError names ``what`` was awaited."""
    deadline = time.monotonic() + timeout_s
    while True:
        if result := predicate():
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s (last answer {result!r})")
        time.sleep(POLL_S)


async def eventually(predicate: Callable[[], T | Awaitable[T]], timeout_s: float = 10.0, what: str = "the expected state") -> T:
    """Like ``wait_until``, for a test that runs on an event loop; ``predicate`` may be a coroutine function."""
    import asyncio

    deadline = time.monotonic() + timeout_s
    while True:
        result = predicate()
        value: T = await result if isinstance(result, Awaitable) else result
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s (last answer {value!r})")
        await asyncio.sleep(POLL_S)


@dataclass(slots=True)
class Service:
    """A child process that is up once ``ready`` says so."""

    name: str
    argv: Sequence[str]
    log_path: Path
    ready: Callable[[], object]
    user: str | None = None
    env: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running service."""
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def log_text(self) -> str:
        """Everything the service has said."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Start and wait until ready; a service that ends instead shows the end of its log."""
        assert not self.is_running, f"{self.name} runs already"
        with self.log_path.open("ab") as log:
            identity = _identity(self.user) if self.user else {}
            env = dict(self.env) if self.env is not None else None
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, **identity)  # type: ignore[call-overload]
        try:
            wait_until(lambda: not self.is_running or self.ready(), START_S, f"{self.name} ready")
        except TimeoutError as error:
            self.kill()
            raise TimeoutError(f"{error}; its log ends:\n{self.log_text()[-LOG_TAIL_CHARS:]}") from None
        if not self.is_running:
            raise RuntimeError(f"{self.name} ended at start; its log ends:\n{self.log_text()[-LOG_TAIL_CHARS:]}")

    def stop(self) -> None:
        """End it politely and wait; does nothing when it is not running."""
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """SIGKILL, as a power cut would look to its clients."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stop politely, start again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after ``pause``; harmless otherwise."""
        if self.is_running:
            os.kill(self.pid, signal.SIGCONT)

    def reload(self) -> None:
        """SIGHUP: read the configuration, access and revocation lists again."""
        os.kill(self.pid, signal.SIGHUP)


@dataclass(slots=True)
class Mosquitto(Service):
    """A broker; ``config`` may use ``{port}`` and ``{directory}``."""

    port: int = 0
    directory: Path = field(default_factory=Path)

    @property
    def host(self) -> str:
        """Loopback."""
        return HOST


def make_mosquitto(executable: Path, directory: Path, *, config: str | None = None, port: int | None = None) -> Mosquitto:
    """A broker that is not started yet; its persistence file lies in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    text = (PLAIN_BROKER if config is None else config).replace("{port}", str(port)).replace("{directory}", str(directory))
    if os.geteuid() == 0 and "\nuser " not in f"\n{text}":
        text += "\nuser root\n"  # otherwise it changes to its own user, which cannot enter pytest's private folders
    config_path = directory / "mosquitto.conf"
    config_path.write_text(text)
    return Mosquitto(
        "mosquitto",
        [str(executable), "-v", "-c", str(config_path)],
        directory / "mosquitto.log",
        lambda: port_is_open(port),
        port=port,
        directory=directory,
    )


@dataclass(slots=True)
class Influxd(Service):
    """InfluxDB 1.x over its own HTTP interface."""

    port: int = 0
    directory: Path = field(default_factory=Path)

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def query(self, statement: str, *, database: str = "") -> bytes:
        """The JSON answer to an InfluxQL statement; urllib.error.HTTPError on a refusal."""
        body = urllib.parse.urlencode({"q": statement, "db": database, "epoch": "ms"}).encode()
        with urllib.request.urlopen(f"{self.url}/query", body, timeout=START_S) as answer:
            return bytes(answer.read())

    def create_database(self, database: str) -> None:
        """Create ``database`` unless it is there."""
        self.query(f'CREATE DATABASE "{database}"')


def make_influxd(executable: Path, directory: Path, *, auth: bool = False) -> Influxd:
    """An InfluxDB that is not started yet; its data lie in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config_path = directory / "influxdb.conf"
    values = {"directory": directory, "port": port, "backup_port": free_port(), "auth": str(auth).lower()}
    config_path.write_text(INFLUX.format(**values))
    return Influxd(
        "influxd",
        [str(executable), "run", "-config", str(config_path)],
        directory / "influxd.log",
        lambda: _answers(f"http://{HOST}:{port}/ping"),
        port=port,
        directory=directory,
    )


@dataclass(slots=True)
class Postgres(Service):
    """A PostgreSQL cluster without fsync: it tests SQL, not disks."""

    port: int = 0
    directory: Path = field(default_factory=Path)
    databases: int = 0

    def create_database(self, template: str = "template1") -> str:
        """A new database as an SQLAlchemy address: empty, or a copy of ``template``."""
        self.databases += 1
        name = f"icecap_{self.databases}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://icecap@{HOST}:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Drop the database of ``url``, with whatever is still connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rsplit('/', 1)[1]} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one administrative statement."""
        import psycopg

        with psycopg.connect(f"host={HOST} port={self.port} user=icecap dbname=postgres", autocommit=True) as connection:
            connection.execute(statement)


def make_postgres(executable: Path, directory: Path) -> Postgres:
    """A new cluster, not started yet. It refuses to run as root, so under root it belongs to an unprivileged user."""
    user = _unprivileged_user() if os.geteuid() == 0 else None
    directory.mkdir(parents=True, exist_ok=True)
    if user:
        shutil.chown(directory, user)
    data = directory / "data"
    initdb = [str(executable.with_name("initdb")), "-D", str(data), "-U", "icecap", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=directory, **(_identity(user) if user else {}))  # type: ignore[call-overload]
    port = free_port()
    settings = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "32MB",
        "max_connections": 50,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Postgres(
        "postgres",
        [str(executable), "-D", str(data), *options],
        directory / "postgres.log",
        lambda: "ready to accept connections" in _last_start(directory / "postgres.log") and port_is_open(port),
        user=user,
        stop_signal=signal.SIGINT,
        port=port,
        directory=directory,
    )


def _unprivileged_user() -> str:
    """The user that owns test clusters under root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _identity(user: str) -> dict[str, object]:
    """Popen arguments that give up root."""
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _last_start(log_path: Path) -> str:
    """What the log says since the last start, so that an earlier "ready" does not count."""
    return log_path.read_text(errors="replace").rpartition("starting PostgreSQL")[2]


def _answers(url: str) -> bool:
    """Whether an HTTP server answers at ``url`` with any success."""
    try:
        with urllib.request.urlopen(url, timeout=1.0):
            return True
    except (OSError, urllib.error.URLError):
        return False
