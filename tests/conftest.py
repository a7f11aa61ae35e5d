"""Fixtures that every test may use: real services, ports, and two guards that every test is under.

A service that is missing skips its tests and says how to install it; with ``ICECAP_REQUIRE_SERVICES=1`` it fails them.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from blockbuster import BlockBuster

from provisioning.programs import find_program, how_to_install
from tests.support import services
from tests.support.services import Influxd, Mosquitto, Postgres

ROOT = Path(__file__).parent.parent
OUR_PACKAGES = ("dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator")
THREAD_END_S = 2.0  # a stopped network thread needs one turn of its loop, which is a second in paho

Require = Callable[[str], Path]


@pytest.fixture(scope="session")
def require() -> Require:
    """``require("mosquitto")`` gives the program's path, or skips (fails where services are required) with the command that installs it."""

    def check(name: str) -> Path:
        if path := find_program(name):
            return path
        if os.environ.get("ICECAP_REQUIRE_SERVICES") == "1":
            pytest.fail(how_to_install(name), pytrace=False)
        pytest.skip(how_to_install(name))

    return check


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a free TCP port at each call."""
    return services.free_port


@pytest.fixture
def mosquitto(require: Require, tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """``mosquitto(config=None, port=None)`` starts a broker; all of them are stopped at the end.

    ``config`` is the text of ``mosquitto.conf`` in which ``{port}`` and ``{directory}`` are replaced;
    without it: plain TCP, anonymous, persistent.
    """
    executable = require("mosquitto")
    started: list[Mosquitto] = []
    numbers = count(1)

    def start(config: str | None = None, *, port: int | None = None) -> Mosquitto:
        broker = services.make_mosquitto(executable, tmp_path / f"mosquitto{next(numbers)}", config=config, port=port)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
def influxd(require: Require, tmp_path: Path) -> Iterator[Influxd]:
    """A running InfluxDB 1.x with an empty store."""
    server = services.make_influxd(require("influxd"), tmp_path / "influxd")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres(require: Require) -> Iterator[Postgres]:
    """One PostgreSQL cluster for the whole run, outside pytest's private folder because its user must be able to enter."""
    executable = require("postgres")
    directory = Path(tempfile.mkdtemp(prefix="icecap-postgres-"))
    try:
        server = services.make_postgres(executable, directory)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The SQLAlchemy address of an empty database of its own."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, once in each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite store to copy from: migrating once saves half a second a test."""
    from ingest.store import Store

    path = tmp_path_factory.mktemp("template") / "store.db"
    one = Store.open(f"sqlite:///{path}")
    one.migrate()
    one.close()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    """The name of a migrated database to copy from."""
    from ingest.store import Store

    url = postgres.create_database()
    one = Store.open(url)
    one.migrate()
    one.close()
    return url.rsplit("/", 1)[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated store without rows, once in each engine."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    template = request.getfixturevalue("migrated_postgres")
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database(template=template)
    yield url
    server.drop_database(url)


@pytest.fixture
def chromium_path(require: Require) -> Path:
    """The system's Chromium; playwright takes it as ``executable_path`` (as root with ``args=["--no-sandbox"]``)."""
    return require("chromium")


@pytest.fixture(scope="session", autouse=True)
def _no_blocking_on_the_loop() -> Iterator[None]:
    """A blocking call made by our code on an event loop raises BlockingError in the test that made it."""
    detector = BlockBuster(scanned_modules=[_folder_as_module(ROOT / package) for package in OUR_PACKAGES])
    detector.activate()
    yield
    detector.deactivate()


def _folder_as_module(folder: Path) -> ModuleType:
    """What BlockBuster wants to know of a package is its folder; importing all of them in every test run would hide import errors."""
    module = ModuleType(folder.name)
    module.__path__ = [f"{folder}{os.sep}"]
    return module


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command under test sets up logs on an output that is closed afterwards; the next test must not write there."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """A thread that the test started and did not end fails it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_END_S
    while left := [thread.name for thread in threading.enumerate() if thread not in before and thread.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left running: {', '.join(left)}")
        time.sleep(services.POLL_S)
