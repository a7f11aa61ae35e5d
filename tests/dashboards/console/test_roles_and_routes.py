"""Who may do what, asked of the running application route by route."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.routing import Mount

from dashboards.console.app import ROUTERS
from dashboards.console.guard import PUBLIC
from dashboards.console.roles import Role
from ingest.arrivals import Incoming
from ingest.schema import console_audit, console_user
from tests.dashboards.console.conftest import csrf_of
from tests.dashboards.console.world import World

EVERYONE = frozenset(Role)
STAFF = EVERYONE - {Role.FINANCE, Role.CLINIC}
# What the product promises, written down once more and not taken from the code.
ALLOWED: dict[tuple[str, str], frozenset[Role]] = {
    ("GET", "/"): EVERYONE,
    ("GET", "/fleet"): EVERYONE,
    ("GET", "/fleet/rows"): EVERYONE,
    ("GET", "/machines/{serial}"): EVERYONE,
    ("GET", "/machines/{serial}/live"): EVERYONE,
    ("GET", "/gateways"): STAFF | {Role.CLINIC},
    ("GET", "/gateways/rows"): STAFF | {Role.CLINIC},
    ("GET", "/dead-letters"): frozenset({Role.OPERATOR, Role.ADMIN}),
    ("GET", "/dead-letters/{letter_id}"): frozenset({Role.OPERATOR, Role.ADMIN}),
    ("POST", "/dead-letters/{letter_id}/retry"): frozenset({Role.OPERATOR, Role.ADMIN}),
    ("GET", "/users"): frozenset({Role.ADMIN}),
    ("POST", "/users"): frozenset({Role.ADMIN}),
    ("POST", "/users/{user_id}"): frozenset({Role.ADMIN}),
    ("POST", "/users/{user_id}/password"): frozenset({Role.ADMIN}),
    ("GET", "/account"): EVERYONE,
    ("POST", "/account/password"): EVERYONE,
    ("POST", "/account/tokens"): EVERYONE,
    ("POST", "/account/tokens/revoke"): EVERYONE,
    ("POST", "/account/sessions/end"): EVERYONE,
    ("POST", "/sign-out"): EVERYONE,
    ("GET", "/health"): STAFF,
    ("GET", "/api/v1/machines"): EVERYONE,
    ("GET", "/api/v1/machines/{serial}"): EVERYONE,
    ("GET", "/api/v1/machines/{serial}/series"): EVERYONE,
    ("GET", "/api/v1/gateways"): STAFF | {Role.CLINIC},
    ("GET", "/api/v1/openapi.json"): EVERYONE,
}
FORMS = {
    "/users": {"name": "newbie", "role": "viewer"},
    "/users/{user_id}": {"role": "viewer", "active": "yes"},
    "/account/password": {"old": "x" * 12, "new": "y" * 12},
    "/account/tokens": {"name": "script"},
    "/account/tokens/revoke": {"key": "00"},
}


def routes() -> list[APIRoute]:
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def permissions(dependant: Dependant) -> list[object]:
    own = [getattr(dependant.call, "permission", None)]
    return [one for one in (*own, *(found for inner in dependant.dependencies for found in permissions(inner))) if one is not None]


def filled(path: str) -> str:
    return path.replace("{serial}", "cooler-0001").replace("{letter_id}", "1").replace("{user_id}", "1")


def test_the_application_serves_these_routes_and_nothing_else(app: FastAPI) -> None:
    included = [route for route in app.routes if not isinstance(route, Mount)]

    assert [route.path for route in app.routes if isinstance(route, Mount)] == ["/static"]
    assert [route.original_router for route in included] == list(ROUTERS)  # type: ignore[attr-defined]
    known = {(method, route.path) for route in routes() for method in route.methods or ()}
    assert known == set(ALLOWED) | {("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/alive")}


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.name}")
def test_every_route_has_one_guard_or_is_public(route: APIRoute) -> None:
    assert len(permissions(route.dependant)) == (0 if route.path in PUBLIC else 1)


@pytest.mark.parametrize("role", list(Role))
def test_a_role_reaches_exactly_its_routes(role: Role, world: World, signed_in: Callable[[Role], TestClient]) -> None:
    world.apply([Incoming("icecap/v1/p00/gw-nobody/t", b"noise", world.clock.wall)])
    client = signed_in(role)
    token = csrf_of(client)
    # Sign-out last: it ends the session; whoever changes the own account does it just before.
    ordered = sorted(ALLOWED, key=lambda one: (one[1] == "/sign-out", one[1].startswith("/users/"), one))

    refused = set()
    for method, path in ordered:
        data = {**FORMS.get(path, {}), "csrf": token} if method == "POST" else None
        answer = client.request(method, filled(path), data=data)
        assert answer.status_code not in {401, 500, 503}, (method, path, answer.text[:200])
        if answer.status_code == 403:
            refused.add((method, path))

    assert refused == {key for key, roles in ALLOWED.items() if role not in roles}


def test_a_stranger_reaches_nothing(stranger: TestClient) -> None:
    for method, path in sorted(ALLOWED):
        answer = stranger.request(method, filled(path), data=FORMS.get(path))

        if path.startswith("/api/"):
            assert answer.status_code == 401, path
        else:
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/sign-in?go_to=%2F"), path


def test_a_change_without_the_sessions_token_is_refused(signed_in: Callable[[Role], TestClient], world: World) -> None:
    client, other = signed_in(Role.ADMIN), signed_in(Role.ADMIN)
    paths = [path for method, path in sorted(ALLOWED) if method == "POST"]
    forged = ("", "wrong", csrf_of(other))

    codes = set()
    for path in paths:
        for token in forged:
            codes.add(client.post(filled(path), data={**FORMS.get(path, {}), "csrf": token}).status_code)

    assert codes == {403}
    assert client.get("/account").status_code == 200
    with world.store.reading() as connection:
        assert connection.execute(select(console_user.c.id).where(console_user.c.name == "newbie")).first() is None
        trail = connection.execute(select(console_audit.c.target).where(console_audit.c.outcome == "refused")).scalars().all()
    assert sorted(trail) == sorted(f"POST {filled(path)}: csrf" for path in paths for _ in forged)


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.test"}])
def test_another_sites_request_is_refused_even_with_the_token(headers: dict[str, str], signed_in: Callable[[Role], TestClient]) -> None:
    client = signed_in(Role.VIEWER)

    answer = client.post("/account/sessions/end", data={"csrf": csrf_of(client)}, headers=headers)

    assert answer.status_code == 403


def test_the_token_may_come_in_a_header_as_htmx_sends_it(signed_in: Callable[[Role], TestClient]) -> None:
    client = signed_in(Role.VIEWER)

    answer = client.post("/account/sessions/end", headers={"x-csrf-token": csrf_of(client)})

    assert answer.status_code == 303


def test_a_clinic_sees_its_own_site_only(signed_in: Callable[[Role], TestClient]) -> None:
    client = signed_in(Role.CLINIC)

    pages = "".join(client.get(path).text for path in ("/fleet", "/fleet?site=lakeside", "/gateways", "/fleet/rows"))
    machines = client.get("/api/v1/machines").json()
    gateways = client.get("/api/v1/gateways").json()

    assert "cooler-0001" in pages
    assert "cooler-0002" not in pages
    assert "lakeside" not in pages.lower().replace("site=lakeside", "")
    assert {one["serial"] for one in machines} == {"cooler-0001", "cooler-0004"}
    assert {one["id"] for one in gateways} == {"gw-uferpark-1"}
    for path in ("/machines/{}", "/machines/{}/live", "/api/v1/machines/{}", "/api/v1/machines/{}/series"):
        assert client.get(path.format("cooler-0002")).status_code == 404


def test_the_answer_for_a_foreign_machine_is_that_for_none(signed_in: Callable[[Role], TestClient]) -> None:
    client = signed_in(Role.CLINIC)

    foreign = client.get("/api/v1/machines/cooler-0002").json()
    missing = client.get("/api/v1/machines/cooler-9999").json()

    assert foreign["detail"].replace("cooler-0002", "X") == missing["detail"].replace("cooler-9999", "X")
