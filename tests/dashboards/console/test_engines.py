"""Both databases give the same pages: everything that is asked of the store, once in each."""

from collections.abc import Iterator, Sequence

import pytest
from fastapi.testclient import TestClient

from dashboards.console.roles import Role
from ingest.arrivals import Incoming
from ingest.store import Store
from tests.dashboards.console.conftest import NAMES, add_accounts, csrf_of, make_app, sign_in
from tests.dashboards.console.world import World, rows

PATHS = ("/fleet", "/machines/cooler-0001", "/gateways", "/dead-letters", "/dead-letters/1", "/users", "/account", "/health")


@pytest.fixture
def small(store_url: str) -> Iterator[World]:
    """Two machines, a gap in the numbers, something refused."""
    store = Store.open(store_url)
    store.migrate()
    world = World(store)
    world.register({"cooler-0001": "gw-uferpark-1", "cooler-0002": "gw-lakeside-1"})
    add_accounts(store, at_ms=0)
    start = world.clock.wall // 60_000 * 60_000 - 300_000
    values: dict[str, Sequence[float | None]] = {"coolant_temp_1": [-4.0, -4.2, None] * 20, "flow_1": [2.0] * 60, "state_1": [4] * 60}
    world.apply(world.blocks("cooler-0001", "gw-uferpark-1", rows(start, values)))
    world.seqs["gw-uferpark-1"] += 3
    world.apply(world.blocks("cooler-0001", "gw-uferpark-1", rows(start + 60_000, values)))
    world.apply([Incoming("icecap/v1/p00/gw-nobody/t", b"noise", start)])
    world.roll()
    world.online("gw-uferpark-1")
    yield world
    store.close()


def test_every_page_answers_and_tells_the_same(small: World) -> None:
    with TestClient(make_app(small), base_url="http://console.test") as client:
        sign_in(client, NAMES[Role.ADMIN])
        assert {path: client.get(path).status_code for path in PATHS} == dict.fromkeys(PATHS, 200)
        client.post("/dead-letters/1/retry", data={"csrf": csrf_of(client)})
        first = client.get("/api/v1/machines").json()[-1]
        gateway = next(one for one in client.get("/api/v1/gateways").json() if one["streams"])
        hour = client.get("/api/v1/machines/cooler-0001/series?range=1h&channels=coolant_temp_1").json()
        day = client.get("/api/v1/machines/cooler-0001/series?range=24h&channels=coolant_temp_1").json()

    values = {one["channel"]: one["value"] for one in first["values"]}
    assert (first["serial"], values["coolant_temp_1"], values["flow_1"]) == ("cooler-0001", -4.2, 2.0)
    stream = gateway["streams"][0]
    assert (stream["up_to"], stream["top"], stream["missing"], stream["records"]) == (1, 5, 3, 2)
    assert (len(hour["t_ms"]), hour["curves"][0]["rejected"]) == (120, 40)
    assert [one for one in day["curves"][0]["mean"] if one is not None] == [-4.1, -4.1]
