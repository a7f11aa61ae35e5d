"""What the pages say, and how: headers, errors, escaping, unknown values, what a form changes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from structlog.testing import capture_logs

from dashboards.console import queries
from dashboards.console.headers import BODY_BYTES_MAX
from dashboards.console.roles import Role
from dashboards.console.settings import Listen, Settings
from ingest.arrivals import Incoming
from ingest.schema import console_audit, dead_letter
from ingest.store import StoreDownError
from tests.dashboards.console.conftest import PASSWORD, csrf_of, hidden, make_app, sign_in
from tests.dashboards.console.world import World, rows

PAGES = ("/sign-in", "/fleet", "/machines/cooler-0001", "/gateways", "/dead-letters", "/users", "/account", "/health", "/nowhere")
SignedIn = Callable[[Role], TestClient]


def test_every_answer_carries_the_security_headers(signed_in: SignedIn) -> None:
    client = signed_in(Role.ADMIN)
    for path in (*PAGES, "/api/v1/machines", "/static/console.css"):
        headers = client.get(path).headers

        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
        assert path.startswith("/static") or headers["cache-control"] == "no-store"


def test_no_page_holds_what_the_policy_forbids(signed_in: SignedIn) -> None:
    client = signed_in(Role.ADMIN)
    for path in PAGES:
        html = client.get(path).text

        for forbidden in ("<style", " style=", " onclick", "<script>", "http://", "https://"):
            assert forbidden not in html, (path, forbidden)


def test_a_sites_name_that_looks_like_a_script_is_printed(signed_in: SignedIn) -> None:
    client = signed_in(Role.ADMIN)

    for path in ("/fleet", "/machines/cooler-0003", "/gateways", "/users"):
        html = client.get(path).text
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in html
        assert "<script>alert" not in html


def test_what_people_type_comes_back_escaped(stranger: TestClient, signed_in: SignedIn) -> None:
    nasty = '"><script>alert(1)</script>'

    form = stranger.get("/sign-in", params={"go_to": nasty})
    page = signed_in(Role.ADMIN).get("/fleet", params={"search": nasty})

    assert "<script>alert" not in form.text
    assert "<script>alert" not in page.text
    assert "&#34;&gt;&lt;script&gt;" in page.text


def test_unknown_is_a_dash_and_never_zero(signed_in: SignedIn) -> None:
    client = signed_in(Role.VIEWER)

    html = client.get("/machines/cooler-0004/live").text
    values = client.get("/api/v1/machines/cooler-0004").json()["values"]

    assert ">0" not in html.replace(" ", "")
    assert html.count("unknown") > 10
    assert {one["value"] for one in values} == {None}


def test_a_channel_that_stopped_is_unknown_while_its_machine_goes_on(world: World, signed_in: SignedIn) -> None:
    start = world.clock.wall - 200_000
    both = rows(start, {"flow_1": [2.0], "tank_level": [60.0]})
    later = rows(start + 180_000, {"tank_level": [61.0]})
    world.apply([*world.blocks("cooler-0004", "gw-uferpark-1", both), *world.blocks("cooler-0004", "gw-uferpark-1", later)])

    values = {one["channel"]: one for one in signed_in(Role.VIEWER).get("/api/v1/machines/cooler-0004").json()["values"]}

    assert values["tank_level"]["value"] == 61.0
    assert values["flow_1"]["value"] is None
    assert values["flow_1"]["sampled_ms"] == start


def test_a_silent_machine_shows_no_values_as_if_they_were_now(signed_in: SignedIn) -> None:
    html = signed_in(Role.VIEWER).get("/fleet?search=cooler-0003").text

    body = html.split("<tbody", 1)[1]
    assert "Silent for 4 h 00 min" in body
    assert "°C" not in body
    assert body.count("> unknown<") >= 8


def test_worst_comes_first(signed_in: SignedIn) -> None:
    machines = signed_in(Role.VIEWER).get("/api/v1/machines").json()

    assert [one["standing"] for one in machines] == sorted(
        (one["standing"] for one in machines), key=["fault", "silent", "limit", "late", "never", "fine"].index
    )
    assert machines[0]["serial"] == "cooler-0003"


def test_a_fault_that_the_machine_reports_comes_before_everything(world: World, signed_in: SignedIn) -> None:
    fault = rows(world.clock.wall - 1000, {"state_1": [8], "tank_level": [60.0]})
    world.apply(world.blocks("cooler-0004", "gw-uferpark-1", fault))

    first = signed_in(Role.VIEWER).get("/api/v1/machines").json()[0]

    assert (first["serial"], first["standing"]) == ("cooler-0004", "fault")
    assert first["troubles"][0] == "Circuit 1: fault reported by the machine"


def test_a_limit_counts_only_in_the_states_in_which_it_holds(world: World, signed_in: SignedIn) -> None:
    client = signed_in(Role.VIEWER)
    warm = {"coolant_temp_1": [21.0], "flow_1": [0.0]}
    found = []
    for step, state in enumerate((0, 4)):  # off, infusion
        block = rows(world.clock.wall - 2000 + step, {**warm, "state_1": [state]})
        world.apply(world.blocks("cooler-0004", "gw-uferpark-1", block))
        found.append(client.get("/api/v1/machines/cooler-0004").json())

    assert found[0]["standing"] == "fine"
    assert found[1]["standing"] == "limit"
    assert found[1]["troubles"] == ["Circuit 1: coolant 21.00 °C, above 0.0", "Circuit 1: flow 0.00 L/min, below 1.2"]


FOUND = {
    "search=LAKESIDE": ["cooler-0002"],
    "search=gw-uferpark": ["cooler-0004", "cooler-0001"],
    "site=uferpark&sort=machine": ["cooler-0001", "cooler-0004"],
    "site=uferpark&sort=machine&down=1": ["cooler-0004", "cooler-0001"],
    "only=attention": ["cooler-0003", "cooler-0004"],
    "sort=age": ["cooler-0001", "cooler-0002", "cooler-0003", "cooler-0004"],
    "sort=age&down=1": ["cooler-0003", "cooler-0002", "cooler-0001", "cooler-0004"],
    "sort=nonsense": ["cooler-0003", "cooler-0004", "cooler-0001", "cooler-0002"],
    "search=nothing-like-it": [],
}


def test_the_fleet_is_searched_filtered_and_sorted(signed_in: SignedIn) -> None:
    client = signed_in(Role.VIEWER)

    found = {query: [part.split('"', 1)[0] for part in client.get(f"/fleet/rows?{query}").text.split('id="to-')[1:]] for query in FOUND}

    assert found == FOUND


def test_a_dead_letter_is_counted_shown_and_tried_again(world: World, signed_in: SignedIn) -> None:
    good = world.blocks("cooler-0001", "gw-uferpark-1", rows(world.clock.wall - 1000, {"flow_1": [2.0]}))[0]
    foreign = Incoming("icecap/v1/p99/gw-uferpark-1/t", good.payload, good.received_ms)
    world.apply([foreign])
    client = signed_in(Role.OPERATOR)

    listing = client.get("/dead-letters").text
    detail = client.get("/dead-letters/1").text
    answer = client.post("/dead-letters/1/retry", data={"csrf": csrf_of(client)})

    assert "bad topic" in listing
    assert "ec 49 43 31" in detail
    assert answer.headers["location"] == "/dead-letters/1?tried=refused"
    with world.store.reading() as connection:
        assert connection.execute(select(dead_letter.c.resolved_ms)).scalar() is None
        trail = connection.execute(select(console_audit.c.action, console_audit.c.outcome, console_audit.c.target)).all()
    assert ("retry", "refused", "dead letter 1") in [tuple(one) for one in trail]


def test_a_retry_that_ingestion_now_accepts_solves_the_letter(world: World, signed_in: SignedIn) -> None:
    from provisioning import registry

    message = world.blocks("cooler-0005", "gw-late-1", rows(world.clock.wall - 1000, {"flow_1": [2.0]}))[0]
    world.apply([message])
    with world.store.transaction() as connection:
        registry.add_gateway(connection, "gw-late-1", site_id="uferpark", at_ms=0)
    client = signed_in(Role.OPERATOR)

    answer = client.post("/dead-letters/1/retry", data={"csrf": csrf_of(client)})

    assert answer.headers["location"] == "/dead-letters/1?tried=ok"
    assert "Accepted" in client.get(answer.headers["location"]).text
    assert client.get("/api/v1/machines/cooler-0005").json()["newest_ms"] == world.clock.wall - 1000


def test_an_error_page_shows_nothing_of_the_inside(signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_named: object) -> None:
        raise RuntimeError("secret inside /var/lib")

    client = signed_in(Role.ADMIN)
    monkeypatch.setattr(queries, "gateways", broken)

    with capture_logs() as events:
        answers = [client.get("/gateways"), client.get("/api/v1/gateways")]

    assert [(one["event"], one["path"]) for one in events] == [("bug", "/gateways"), ("bug", "/api/v1/gateways")]
    for answer in answers:
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert "content-security-policy" in answer.headers


def test_a_store_that_is_down_is_told_in_words(signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_args: object, **_named: object) -> None:
        raise StoreDownError("database: disk I/O error")

    client = signed_in(Role.ADMIN)
    monkeypatch.setattr(queries, "gateways", down)

    answer = client.get("/gateways")

    assert answer.status_code == 503
    assert "nothing is lost" in answer.text
    assert "disk" not in answer.text


def test_a_request_that_is_too_large_is_refused_before_it_is_read(stranger: TestClient) -> None:
    answer = stranger.post("/sign-in", content=b"x" * (BODY_BYTES_MAX + 1))

    assert answer.status_code == 413


def test_a_streamed_request_that_grows_too_large_is_cut(stranger: TestClient) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 1024 + 2):
            yield b"name=" + b"x" * 1019

    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = stranger.post("/sign-in", content=drip(), headers=headers)

    assert answer.status_code in {400, 413}


def test_over_tls_the_cookie_is_secure_and_bound_to_the_host(world: World, tmp_path: Path) -> None:
    settings = Settings("sqlite://", listen=Listen(behind_tls_proxy=True))
    with TestClient(make_app(world, settings), base_url="https://console.test", follow_redirects=False) as client:
        form = client.get("/sign-in")
        data = {"name": "ada", "password": PASSWORD, "token": hidden(form.text, "token")}
        answer = client.post("/sign-in", data=data)

    cookies = [one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-icecap=")]
    assert len(cookies) == 1
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert part in cookies[0]
    assert "strict-transport-security" in answer.headers


def test_htmx_is_sent_to_the_form_when_the_session_ends(stranger: TestClient) -> None:
    answer = stranger.get("/fleet/rows", headers={"hx-request": "true"})

    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/sign-in"


def test_static_files_may_be_kept_for_ever_only_under_their_hash(stranger: TestClient) -> None:
    named = stranger.get(hidden_asset(stranger.get("/sign-in").text, "console.css"))
    plain = stranger.get("/static/console.css")

    assert named.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "cache-control" not in plain.headers


def hidden_asset(html: str, name: str) -> str:
    return "/static/" + name + html.split(f"/static/{name}", 1)[1].split('"', 1)[0]


def test_users_page_makes_closes_and_reopens_accounts(world: World, signed_in: SignedIn) -> None:
    admin = signed_in(Role.ADMIN)
    token = csrf_of(admin)

    made = admin.post("/users", data={"name": "Nils", "role": "viewer", "csrf": token})
    password = made.text.split('class="secret">', 1)[1].split("<", 1)[0]
    with TestClient(make_app(world), base_url="http://console.test", follow_redirects=False) as nils:
        first = sign_in(nils, "nils", password)
        seen = nils.get("/fleet").status_code
        admin.post("/users/6", data={"role": "viewer", "csrf": token})  # not active any more
        after = nils.get("/fleet").status_code
        again = sign_in(nils, "nils", password)

    assert (first, seen, after, again) == (303, 200, 303, 401)


def test_the_last_administrator_stays(signed_in: SignedIn) -> None:
    admin = signed_in(Role.ADMIN)
    token = csrf_of(admin)
    own = admin.get("/users").text.split("you</span>", 1)[1].split('action="/users/', 1)[1].split('"', 1)[0]

    answer = admin.post(f"/users/{own}", data={"role": "viewer", "active": "yes", "csrf": token})

    assert answer.status_code == 409
    assert "last administrator" in answer.text
