"""Every panel and every choice of every board, asked of the real InfluxDB 1.6.7 with data that the real projector wrote."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.build import GENERATED, boards
from ingest.influx import GatewayProjection, InfluxProjection, open_sink
from ingest.profiles import Profiles
from ingest.store import Store
from protocol.clock import ManualClock
from protocol.reading import MachineState
from provisioning import registry
from tests.conftest import Require
from tests.ingest.influx_support import DATABASE, drain, sqlite_store, v1
from tests.support import services
from tests.support.blocks import PROFILE, START_MS, Machine, make_frame, make_rows, put
from tests.support.services import Influxd

pytestmark = pytest.mark.service

MINUTES = 20
END_MS = START_MS + MINUTES * 60_000
BOARDS = [json.loads(path.read_bytes()) for path in sorted(GENERATED.glob("icecap-*.json"))]
TARGETS = [
    pytest.param(board, panel, target, id=f"{board['uid']}-{panel['id']}{target['refId']}")
    for board in BOARDS
    for panel in board["panels"]
    for target in panel["targets"]
]
FLEET = (
    Machine("cooler-0001", "gw-test-1", 1),
    Machine("cooler-0002", "gw-test-1", 2),
    Machine("cooler-0003", "gw-test-2", 3),
)


@pytest.fixture(scope="module")
def server(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A fleet of three at two sites: one treats, one reports a fault, one has a hole of five minutes; gateways seen each minute."""
    folder = tmp_path_factory.mktemp("boards")
    one = services.make_influxd(require("influxd"), folder / "influxd")
    one.start()
    one.create_database(DATABASE)
    store = sqlite_store(folder)
    _fill(store, one)
    store.close()
    yield one
    one.stop()


def _fill(store: Store, server: Influxd) -> None:
    clock = ManualClock(wall=START_MS)
    with store.transaction() as connection:
        registry.add_site(connection, registry.Site("clinic-b", "Clinic B", "Europe/Berlin", 0))
        registry.add_gateway(connection, "gw-test-5", site_id="clinic-b", at_ms=0)
        registry.place_device(connection, "cooler-0002", gateway_id="gw-test-5", profile="icecap-cooler", at_ms=0)
    coolers = InfluxProjection(store, open_sink(v1(server)), profiles=Profiles().find, clock=clock)
    gateways = GatewayProjection(store, open_sink(v1(server)), clock=clock)
    gateways.step()
    for minute in range(MINUTES):
        frames = []
        for number, machine in enumerate(FLEET):
            if number == 2 and 5 <= minute < 10:
                continue
            rows = make_rows(t0_ms=START_MS + minute * 60_000, seed=100 * number + minute)
            for circuit in ("state_1", "state_2"):
                rows.codes[:, PROFILE.index(circuit)] = MachineState.FAULT if number == 1 else MachineState.INFUSION
                rows.quality[:, PROFILE.index(circuit)] = 0
            frames.append(make_frame(rows, seq=minute + 1 - 4 * (number == 2 and minute >= 10), machine=machine))
        put(store, frames)
        clock.advance(60_000)
        drain(coolers)
        gateways.step()
    coolers.close()
    gateways.close()


def ask(server: Influxd, statement: str) -> list[dict]:
    result = json.loads(server.query(statement, database=DATABASE))["results"][0]
    assert "error" not in result, f"{result['error']} in {statement}"
    return result.get("series", [])


def choices(server: Influxd, board: dict) -> dict[str, list[str]]:
    found = {}
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            answer = ask(server, one["query"])
            found[one["name"]] = [values[-1] for series in answer for values in series["values"]]
            assert found[one["name"]], f"no choice for {one['name']}"
    return found


def expand(query: str, chosen: dict[str, list[str]]) -> str:
    """What Grafana makes of its macros when everything is chosen."""
    query = query.replace("$timeFilter", f"time >= {START_MS}ms AND time < {END_MS}ms").replace("$__interval", "30s")
    query = re.sub(r"\$\{(\w+):regex\}", lambda name: "(" + "|".join(re.escape(value) for value in chosen[name[1]]) + ")", query)
    assert "$" not in query.replace("$/", ""), query
    return query


@pytest.mark.parametrize(("board", "panel", "target"), TARGETS)
def test_a_panel_gets_rows(server: Influxd, board: dict, panel: dict, target: dict) -> None:
    series = ask(server, expand(target["query"], choices(server, board)))

    values = [value for one in series for row in one["values"] for value in row[1:] if value is not None]
    assert values, target["query"]
    for one in series:  # every column has at least one value: no panel has a line that is never drawn
        for column in range(1, len(one["columns"])):
            assert any(row[column] is not None for row in one["values"]), (one["columns"][column], target["query"])


def test_choices_are_what_was_written(server: Influxd) -> None:
    found = {board["uid"]: choices(server, board) for board in BOARDS}
    assert found["icecap-fleet"] == {"site": ["clinic-a", "clinic-b"], "model": ["icecap-cooler"]}
    assert found["icecap-machine-icecap-cooler"] == {"device": [machine.device for machine in FLEET]}
    assert found["icecap-pipeline"] == {"site": ["clinic-a"], "gateway": ["gw-test-1", "gw-test-2"]}


def rows_of(server: Influxd, uid: str, title: str) -> list[dict]:
    board = next(one for one in BOARDS if one["uid"] == uid)
    (panel,) = [one for one in board["panels"] if one["title"] == title]
    return [series for target in panel["targets"] for series in ask(server, expand(target["query"], choices(server, board)))]


def test_the_answers_are_the_ones_that_the_data_has(server: Influxd) -> None:
    def first(uid: str, title: str) -> list:
        return [series["values"][0][1] for series in rows_of(server, uid, title)]

    assert first("icecap-fleet", "How many machines reported in the last 15 minutes?") == [3]
    assert first("icecap-fleet", "How many circuits are in a treatment?") == [2, 2]
    assert first("icecap-fleet", "How many circuits report a fault?") == [1, 1]
    assert first("icecap-fleet", "How long was each machine's longest silence?") == [1, 1, 301]
    assert first("icecap-pipeline", "How many gateways send?") == [2]
    assert first("icecap-pipeline", "How many numbers are missing?") == [1]
    assert first("icecap-pipeline", "How many machines stand behind each gateway?") == [2, 1]
    per_minute = rows_of(server, "icecap-pipeline", "How many rows arrive a minute?")[0]["values"]
    assert sum(value or 0 for _, value in per_minute) == (3 * MINUTES - 5) * 60 - 180  # the last minute's point is at the end of the range


def test_an_injected_choice_stays_a_regular_expression(server: Influxd) -> None:
    """Choices come from queries, so this cannot be chosen; if it could, Grafana's own escaping keeps it inside the expression."""
    board = BOARDS[0]
    evil = {name: ["x$/; DROP MEASUREMENT cooler; --"] for name in choices(server, board)}
    query = board["panels"][0]["targets"][0]["query"]
    statement = query.replace("$timeFilter", f"time >= {START_MS}ms AND time < {END_MS}ms")
    statement = re.sub(r"\$\{(\w+):regex\}", lambda name: re.escape(evil[name[1]][0]).replace("/", "\\/"), statement)
    assert ask(server, statement) == []
    assert choices(server, board)["site"]


def test_the_queries_in_the_files_are_the_ones_of_the_code() -> None:
    made = {board.uid: [target.query for panel in board.panels for target in panel.targets] for board in boards()}
    assert made == {board["uid"]: [target["query"] for panel in board["panels"] for target in panel["targets"]] for board in BOARDS}


def test_files_are_there() -> None:
    assert len(TARGETS) > 40
    assert Path(GENERATED).is_dir()
