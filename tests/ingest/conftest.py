"""A migrated store in each engine, with two gateways that may send and one that may not any more.

Migrations run once a session and engine; each test gets a copy.
"""

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from ingest.store import Store
from provisioning import registry
from tests.ingest.cloud import Process, config_text
from tests.support.mtls import TlsBroker, make_tls_broker
from tests.support.services import HOST, Postgres

GATEWAY = "gw-test-1"
OTHER_GATEWAY = "gw-test-2"
REVOKED_GATEWAY = "gw-test-9"
SITE = "clinic-a"

_numbers = count(1)


def register(store: Store) -> None:
    with store.transaction() as connection:
        registry.add_site(connection, registry.Site(SITE, "Clinic A", "Europe/Berlin", 0))
        for gateway in (GATEWAY, OTHER_GATEWAY, REVOKED_GATEWAY):
            registry.add_gateway(connection, gateway, site_id=SITE, at_ms=0)
        registry.revoke_gateway(connection, REVOKED_GATEWAY, at_ms=1)


def _make(url: str) -> str:
    store = Store.open(url)
    store.migrate()
    register(store)
    store.close()
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store.db"
    _make(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    return _make(postgres.create_database()).rsplit("/", 1)[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def ready_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a migrated store with its registry, once in each engine."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "store.db")
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = f"icecap_copy_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('postgres_template')}")
    url = f"postgresql+psycopg://icecap@{HOST}:{postgres.port}/{name}"
    yield url
    postgres.drop_database(url)


@pytest.fixture
def store(ready_url: str) -> Iterator[Store]:
    one = Store.open(ready_url)
    yield one
    one.close()


@pytest.fixture
def cloud(require: Callable[[str], Path], tmp_path: Path) -> Iterator[TlsBroker]:
    """The cloud's broker as ``icecap provision`` sets it up."""
    broker = make_tls_broker(require("mosquitto"), tmp_path / "cloud")
    broker.service.start()
    yield broker
    broker.service.stop()


@pytest.fixture
def process(cloud: TlsBroker, ready_url: str, tmp_path: Path) -> Iterator[Process]:
    """An ingest process on that broker and a ready store, not started yet."""
    config = tmp_path / "ingest.toml"
    config.write_text(config_text(cloud, ready_url))
    one = Process(config, cloud.folder / "ingest.sock", tmp_path / "ingest.log")
    yield one
    one.end()
