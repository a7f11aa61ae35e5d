"""The fleet page with two hundred machines: it must feel immediate, and must not read more than it shows."""

import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, insert, text

from dashboards.console import queries
from dashboards.console.context import Console
from dashboards.console.fleet import fleet
from ingest.schema import device_seen, last_value, rollup_1m
from ingest.store import Store
from provisioning import registry
from tests.dashboards.console.conftest import add_accounts, make_app, sign_in
from tests.dashboards.console.world import GATEWAYS, PROFILE, SITES, World

MACHINES = 200
WARM_UP, ROUNDS = 3, 30
CPU_S_MAX = 0.6  # 0.13 s measured; processor time, because the cores are shared with everything else that runs


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Rows of two hundred machines as ingestion and the roll-up would have left them."""
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('large') / 'cloud.db'}")
    store.migrate()
    world = World(store)
    now_ms = world.clock.wall
    serials = [f"cooler-{one:04d}" for one in range(MACHINES)]
    with store.transaction() as connection:
        for site, (name, zone) in SITES.items():
            registry.add_site(connection, registry.Site(site, name, zone, 0))
        for gateway, site in GATEWAYS.items():
            registry.add_gateway(connection, gateway, site_id=site, at_ms=0)
        for index, serial in enumerate(serials):
            registry.place_device(connection, serial, gateway_id=list(GATEWAYS)[index % 3], profile=PROFILE.id, at_ms=1)
        seen = {"gateway": "gw-uferpark-1", "profile": PROFILE.id, "profile_version": 1, "first_ms": 0, "last_ms": now_ms}
        connection.execute(insert(device_seen), [{"device": one, "blocks": 60, "rows": 3600, **seen} for one in serials])
        value = {"ts_ms": now_ms - 1000, "code": 100, "value_milli": 1000, "live": False, "seen_ms": now_ms - 1000, "quality": 0}
        rows = [{"device": one, "channel": channel.name, **value} for one in serials for channel in PROFILE.channels]
        connection.execute(insert(last_value), rows)
        minute = {"n": 60, "total": -24_000, "lo": -450, "hi": -350, "last": -400, "last_ms": now_ms, "invalid": 0}
        for back in range(90):
            at = {"minute_ms": now_ms // 60_000 * 60_000 - back * 60_000, **minute}
            connection.execute(
                insert(rollup_1m), [{"device": one, "channel": channel.name, **at} for one in serials for channel in PROFILE.channels]
            )
    add_accounts(store, at_ms=0)
    yield world
    store.close()


@pytest.mark.slow
def test_the_fleet_page_of_two_hundred_machines_is_quick(large: World, capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(make_app(large), base_url="http://console.test") as client:
        sign_in(client, "vera")
        wall, work = [], []
        for _ in range(WARM_UP + ROUNDS):
            wall_s, work_s = time.perf_counter(), time.process_time()
            answer = client.get("/fleet/rows")
            wall.append(time.perf_counter() - wall_s)
            work.append(time.process_time() - work_s)
            assert answer.text.count("<tbody") == MACHINES

    wall, work = sorted(wall[WARM_UP:]), sorted(work[WARM_UP:])
    with capsys.disabled():
        print(f"\nfleet page, {MACHINES} machines, {len(answer.content) // 1024} KiB, {ROUNDS} times:", end=" ")
        print(f"p50 {1000 * wall[ROUNDS // 2]:.0f} ms, p99 {1000 * wall[-1]:.0f} ms;", end=" ")
        print(f"processor time p50 {1000 * work[ROUNDS // 2]:.0f} ms, p99 {1000 * work[-1]:.0f} ms")
    assert work[ROUNDS // 2] < CPU_S_MAX


def test_the_fleet_page_asks_a_fixed_number_of_questions(large: World) -> None:
    asked: list[str] = []
    console: Console = make_app(large).state.console

    @event.listens_for(large.store.engine, "before_cursor_execute")
    def count(*given: object) -> None:
        asked.append(str(given[2]))

    with large.store.reading() as connection:
        rows = fleet(connection, console, site=None)
    event.remove(large.store.engine, "before_cursor_execute", count)

    assert len(rows) == MACHINES
    assert len([one for one in asked if one.lower().startswith("select")]) == 5


def test_one_machine_and_its_sparkline_are_found_by_index(large: World) -> None:
    plans = {
        "select * from rollup_1m where device = 'cooler-0001' and channel = 'flow_1' and minute_ms >= 0": "SEARCH rollup_1m",
        "select * from block where device = 'cooler-0001' and t1_ms >= 0 and t0_ms <= 9 order by t1_ms desc": "SEARCH block USING INDEX",
        "select * from last_value where device = 'cooler-0001'": "SEARCH last_value",
    }
    with large.store.reading() as connection:
        for statement, plan in plans.items():
            steps = [row[3] for row in connection.execute(text(f"explain query plan {statement}"))]
            assert any(step.startswith(plan) for step in steps), steps
            assert not any("SCAN" in step for step in steps), steps


def test_the_sparklines_read_an_hour_and_not_the_whole_roll_up(large: World) -> None:
    now_ms = large.clock.wall
    with large.store.reading() as connection:
        found = queries.minute_means(
            connection, [f"cooler-{one:04d}" for one in range(MACHINES)], ["coolant_temp_1"], since_ms=now_ms // 60_000 * 60_000 - 3_600_000
        )

    assert len(found) == MACHINES
    assert {len(one) for one in found.values()} == {61}
