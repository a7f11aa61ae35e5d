"""One seeded fleet for all tests of the console (copied for each), clients signed in by role, and a served console for the browser."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dashboards.console.app import Parts, create
from dashboards.console.auth import add_account
from dashboards.console.passwords import Cost, Passwords
from dashboards.console.roles import Role
from dashboards.console.settings import Settings
from ingest.store import Store
from tests.dashboards.console.world import BERLIN, NOON_MS, World
from tests.support.services import free_port, wait_until

PASSWORD = "glacier under moonlight"
CHEAP = Cost(passes=1, memory_kib=8, lanes=1)
NAMES = {Role.VIEWER: "vera", Role.OPERATOR: "otto", Role.FINANCE: "finn", Role.ADMIN: "ada", Role.CLINIC: "clara"}
MACHINES = {
    "cooler-0001": "gw-uferpark-1",
    "cooler-0002": "gw-lakeside-1",
    "cooler-0003": "gw-nasty-1",
    "cooler-0004": "gw-uferpark-1",
}
NOW_MS = NOON_MS + 7_200_000


def add_accounts(store: Store, *, at_ms: int) -> None:
    encoded = Passwords(CHEAP).hash(PASSWORD)
    with store.transaction() as connection:
        for role, name in NAMES.items():
            site = BERLIN if role is Role.CLINIC else ""
            add_account(connection, name=name, role=role, site=site, password_hash=encoded, at_ms=at_ms)


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store file of a small fleet: one machine with 70 minutes of data, one with five, one silent for hours, one that never spoke."""
    path = tmp_path_factory.mktemp("console") / "seeded.db"
    store = Store.open(f"sqlite:///{path}")
    store.migrate()
    world = World(store)
    world.clock.wall = NOW_MS
    world.register(MACHINES)
    world.simulate("cooler-0001", "gw-uferpark-1", hours=70 / 60, silent=[(NOW_MS - 600_000, NOW_MS - 420_000)])
    world.simulate("cooler-0002", "gw-lakeside-1", hours=5 / 60)
    world.simulate("cooler-0003", "gw-nasty-1", hours=5 / 60, until_ms=NOW_MS - 4 * 3_600_000)
    world.roll()
    world.online("gw-uferpark-1")
    world.online("gw-lakeside-1")
    world.online("gw-nasty-1", online=False)
    add_accounts(store, at_ms=world.door.wall)
    store.checkpoint()
    store.close()
    return path


@pytest.fixture
def world(seeded: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of the seeded fleet."""
    path = tmp_path / "cloud.db"
    shutil.copy(seeded, path)
    store = Store.open(f"sqlite:///{path}")
    one = World(store, seqs={"gw-uferpark-1": 1000, "gw-lakeside-1": 1000, "gw-nasty-1": 1000})
    one.clock.wall = NOW_MS
    yield one
    store.close()


def make_app(world: World, settings: Settings | None = None) -> FastAPI:
    chosen = settings or Settings("sqlite://")
    return create(Parts(world.store, world.clock, world.door, os.urandom, chosen, password_cost=CHEAP))


@pytest.fixture
def app(world: World) -> FastAPI:
    return make_app(world)


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[TestClient]:
    """Somebody who has not signed in."""
    with TestClient(app, base_url="http://console.test", follow_redirects=False) as client:
        yield client


def hidden(html: str, name: str) -> str:
    """The value of a hidden field."""
    return html.split(f'name="{name}" value="', 1)[1].split('"', 1)[0]


def sign_in(client: httpx.Client, name: str, password: str = PASSWORD, *, go_to: str = "/fleet") -> int:
    """Sign in through the form; returns the status of the answer."""
    form = client.get("/sign-in", params={"go_to": go_to})
    data = {"name": name, "password": password, "token": hidden(form.text, "token"), "go_to": hidden(form.text, "go_to")}
    return int(client.post("/sign-in", data=data).status_code)


def csrf_of(client: httpx.Client) -> str:
    return hidden(client.get("/account").text, "csrf")


def token_for(client: httpx.Client) -> str:
    """Make an API token as a person does it on the page."""
    answer = client.post("/account/tokens", data={"name": "test", "days": "1", "csrf": csrf_of(client)})
    return answer.text.split('class="secret">', 1)[1].split("<", 1)[0]


@pytest.fixture
def signed_in(app: FastAPI) -> Iterator[Callable[[Role], TestClient]]:
    """``signed_in(role)`` gives a client with a session of its own."""
    opened: list[TestClient] = []

    def enter(role: Role) -> TestClient:
        client = TestClient(app, base_url="http://console.test", follow_redirects=False)
        client.__enter__()
        opened.append(client)
        assert sign_in(client, NAMES[role]) == 303
        return client

    yield enter
    for client in reversed(opened):
        client.__exit__(None, None, None)


@dataclass
class Served:
    """A console that a browser can reach."""

    url: str
    world: World

    def token(self, name: str) -> str:
        """A new API token of an account."""
        with httpx.Client(base_url=self.url) as client:
            assert sign_in(client, name) == 303
            return token_for(client)


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(make_app(world), host="127.0.0.1", port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, name="console")
    thread.start()
    wait_until(lambda: server.started, 20, "the console listens")
    yield Served(f"http://127.0.0.1:{port}", world)
    server.should_exit = True
    thread.join(10)
