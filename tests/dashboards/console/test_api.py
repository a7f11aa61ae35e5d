"""The JSON API: what it says, who gets it, and that it keeps to its own description."""

from collections.abc import Callable

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from dashboards.console.roles import Role
from tests.dashboards.console.conftest import Served, token_for
from tests.dashboards.console.world import World

WITH_PARAMETERS = {"/api/v1/machines/{serial}", "/api/v1/machines/{serial}/series"}
SignedIn = Callable[[Role], TestClient]


@pytest.fixture
def token(signed_in: SignedIn) -> str:
    return token_for(signed_in(Role.ADMIN))


def test_a_token_reads_and_changes_nothing(token: str, stranger: TestClient) -> None:
    bearer = {"authorization": f"Bearer {token}"}

    assert stranger.get("/api/v1/machines", headers=bearer).status_code == 200
    assert stranger.get("/fleet", headers=bearer).status_code == 303
    assert stranger.post("/account/sessions/end", headers=bearer).status_code == 303
    assert stranger.get("/api/v1/machines", headers={"authorization": f"Bearer {token}x"}).status_code == 401


def test_a_clinics_token_is_bound_to_its_site(signed_in: SignedIn, stranger: TestClient) -> None:
    bearer = {"authorization": f"Bearer {token_for(signed_in(Role.CLINIC))}"}

    found = stranger.get("/api/v1/machines", headers=bearer).json()

    assert {one["site"] for one in found} == {"uferpark"}


def test_a_machine_says_what_it_measures_in_which_unit(signed_in: SignedIn) -> None:
    one = signed_in(Role.VIEWER).get("/api/v1/machines/cooler-0001").json()

    values = {value["channel"]: value for value in one["values"]}
    assert values["coolant_temp_1"]["unit"] == "°C"
    assert values["flow_2"]["unit"] == "L/min"
    assert values["flow_2"]["circuit"] == 2
    assert one["gateway_online"] is True
    assert one["time_zone"] == "Europe/Berlin"
    assert len(one["circuits"]) == 2


def test_a_live_value_is_there_before_its_block(world: World, signed_in: SignedIn) -> None:
    client = signed_in(Role.VIEWER)

    world.live("cooler-0004", "gw-uferpark-1", {"coolant_temp_1": -4120})

    one = client.get("/api/v1/machines/cooler-0004").json()
    assert {value["channel"]: value["value"] for value in one["values"]}["coolant_temp_1"] == -4.12
    assert one["age_ms"] == 0


def test_a_series_has_one_axis_for_all_curves(signed_in: SignedIn) -> None:
    found = signed_in(Role.VIEWER).get("/api/v1/machines/cooler-0001/series?range=1h&channels=flow_1,cap_temp_1a").json()

    assert [one["channel"] for one in found["curves"]] == ["flow_1", "cap_temp_1a"]
    for curve in found["curves"]:
        assert len(curve["mean"]) == len(curve["lo"]) == len(curve["hi"]) == len(found["t_ms"]) <= 2000


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/machines/cooler-0001/series?range=2h", 422),
        ("/api/v1/machines/cooler-0001/series?channels=nonsense", 404),
        ("/api/v1/machines/no-such-machine", 404),
        ("/api/v1/machines/..%2F..", 404),
        ("/api/v1/machines/ABC", 422),
        ("/api/v1/nowhere", 404),
    ],
)
def test_a_bad_request_is_told_why_in_json(path: str, status: int, signed_in: SignedIn) -> None:
    answer = signed_in(Role.VIEWER).get(path)

    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_big_numbers_travel_as_text(world: World, signed_in: SignedIn) -> None:
    streams = signed_in(Role.VIEWER).get("/api/v1/gateways").json()[0]["streams"]

    assert all(isinstance(one["stream"], str) for one in streams)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_api_keeps_to_its_description(mode: GenerationMode, served: Served) -> None:
    """Schemathesis makes requests from the description, good and bad ones, and holds the answers against it."""
    bearer = {"authorization": f"Bearer {served.token('ada')}"}
    schema = schemathesis.openapi.from_url(f"{served.url}/api/v1/openapi.json", headers=bearer)
    asked = set()

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=schema.as_strategy(generation_mode=mode))
    def hold(case: schemathesis.Case) -> None:
        asked.add(case.operation.path)
        case.call_and_validate(headers=bearer)

    hold()

    # Nothing can be wrong with a request that takes no parameter.
    assert asked >= (WITH_PARAMETERS if mode is GenerationMode.NEGATIVE else {*WITH_PARAMETERS, "/api/v1/machines", "/api/v1/gateways"})
