"""``/api/v2/write`` through a rewriting proxy in front of InfluxDB 1.6.7, and every way in which the answer can go wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.influx import Fault, InfluxSettings, SinkError, open_sink
from ingest.influx.projector import NAME
from ingest.projection import State, position
from ingest.store import Store
from tests.conftest import Require
from tests.ingest.influx_support import DATABASE, count, drain, projection, running, sqlite_store, v1
from tests.ingest.test_influx import full, rejects
from tests.support import services
from tests.support.blocks import Machine, put
from tests.support.rewrite import Answer, Rewriter
from tests.support.services import Influxd, wait_until

pytestmark = pytest.mark.service

LINE = b"cooler,device=a,gateway=b,model=c,site=d x=1 1767225600000000000\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = sqlite_store(tmp_path)
    yield one
    one.close()


@pytest.fixture
def server(influxd: Influxd) -> Influxd:
    influxd.create_database(DATABASE)
    return influxd


@pytest.fixture
def proxy(server: Influxd) -> Iterator[Rewriter]:
    one = Rewriter(server.url).start()
    yield one
    one.close()


def v2(proxy: Rewriter, **more: object) -> InfluxSettings:
    return InfluxSettings(proxy.url, DATABASE, api="v2", org="icecap", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_v2_writes_the_same_rows(store: Store, server: Influxd, proxy: Rewriter, *, packed: bool) -> None:
    put(store, full(Machine(), blocks=4))
    one = projection(store, v2(proxy, gzip=packed))

    drain(one)

    assert count(server) == 240
    assert proxy.writes == [("gzip" if packed else "identity", 204)] or not packed
    one.close()


def test_v1_behind_v2_gives_404_on_a_server_without_the_endpoint(server: Influxd) -> None:
    sink = open_sink(InfluxSettings(server.url, DATABASE, api="v2", org="icecap"))
    with pytest.raises(SinkError) as caught:
        sink.write(LINE)
    assert caught.value.fault is Fault.NO_DATABASE
    sink.close()


class Once:
    """Says ``answer`` the first ``times`` times."""

    def __init__(self, answer: Answer, times: int) -> None:
        self.answer, self.left = answer, times

    def __call__(self, _any: object) -> Answer | None:
        self.left -= 1
        return self.answer if self.left >= 0 else None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(503, {"Retry-After": "0"}, b'{"code":"unavailable","message":"starting"}'), Fault.SERVER_ERROR),
        (Answer(500, {}, b"boom"), Fault.SERVER_ERROR),
        (Answer(429, {"Retry-After": "0.1"}), Fault.THROTTLED),
        (Answer(401, {}, b'{"code":"unauthorized","message":"unauthorized access"}'), Fault.UNAUTHORIZED),
        (Answer(403, {}, b'{"code":"forbidden","message":"insufficient permissions"}'), Fault.UNAUTHORIZED),
        (Answer(200, {"Content-Type": "text/html"}, b"<h1>please sign in</h1>"), Fault.UNEXPECTED),
        (Answer(302, {"Location": "/login"}), Fault.UNEXPECTED),
        (Answer(0), Fault.UNREACHABLE),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_an_answer_that_is_no_promise_is_waited_out(store: Store, server: Influxd, proxy: Rewriter, answer: Answer, reason: Fault) -> None:
    proxy.instead = Once(answer, 2)
    put(store, full(Machine(), blocks=3))
    one = projection(store, v2(proxy))
    seen: set[str] = set()
    with running(one) as runner:
        wait_until(lambda: seen.add(runner.status.reason) or one.totals.blocks == 3, 20, "written")

    assert reason in seen
    assert count(server) == 180
    assert rejects(store) == []


def test_an_answer_lost_on_the_way_back_costs_a_repetition_and_no_point(store: Store, server: Influxd, proxy: Rewriter) -> None:
    proxy.after = Once(Answer(0), 2)
    put(store, full(Machine(), blocks=3))
    one = projection(store, v2(proxy))
    with running(one):
        wait_until(lambda: one.totals.blocks == 3, 20, "written")

    assert count(server) == 180
    assert len(proxy.writes) == 3


def test_retry_after_is_honoured(proxy: Rewriter) -> None:
    proxy.instead = Once(Answer(429, {"Retry-After": "17"}), 1)
    sink = open_sink(v2(proxy))
    with pytest.raises(SinkError) as caught:
        sink.write(LINE)
    sink.close()
    assert caught.value.retry_after_s == 17.0


def test_a_400_about_the_address_is_the_worlds_fault_not_the_points(store: Store, server: Influxd, proxy: Rewriter) -> None:
    proxy.instead = lambda _body: Answer(400, {}, b'{"code":"invalid","message":"organisation name is not valid"}')
    put(store, full(Machine(), blocks=3))
    one = projection(store, v2(proxy))
    with running(one) as runner:
        wait_until(lambda: runner.status.state is State.WAITING, what="the refusal")
        assert runner.status.reason == Fault.REFUSES_ALL
        assert rejects(store) == []
        proxy.instead = lambda _body: None
        wait_until(lambda: one.totals.blocks == 3, 20, "written")
    assert count(server) == 180


def test_a_body_limit_of_the_proxy_is_met_with_smaller_bodies(store: Store, server: Influxd, proxy: Rewriter) -> None:
    proxy.instead = lambda body: Answer(413) if len(body) > 20_000 else None
    put(store, full(Machine(), blocks=3))
    one = projection(store, v2(proxy))
    drain(one)
    assert count(server) == 180
    assert rejects(store) == []
    one.close()


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_a_wrong_password_waits_and_reports_and_loses_nothing(store: Store, require: Require, tmp_path: Path, api: str) -> None:
    server = services.make_influxd(require("influxd"), tmp_path / "locked", auth=True)
    server.start()
    server.query("CREATE USER \"icecap\" WITH PASSWORD 'right' WITH ALL PRIVILEGES")
    proxy = Rewriter(server.url).start()

    def settings(password: str) -> InfluxSettings:
        if api == "v1":
            return v1(server, user="icecap", password=password)
        return v2(proxy, token=f"icecap:{password}")

    put(store, full(Machine(), blocks=2))
    try:
        wrong = projection(store, settings("wrong"))
        with running(wrong) as runner:
            wait_until(lambda: runner.status.failures >= 2, what="two refusals")
            assert runner.status.reason == Fault.UNAUTHORIZED
        with store.reading() as connection:
            assert position(connection, NAME) is None
        right = projection(store, settings("right"))
        _query(server, f'CREATE DATABASE "{DATABASE}"')
        assert drain(right) == 2
        assert rejects(store) == []
        assert '"values":[["1970-01-01T00:00:00Z",120]]' in _query(server, 'SELECT count(ambient_temp) FROM "cooler"')
        right.close()
    finally:
        proxy.close()
        server.stop()


def _query(server: Influxd, statement: str) -> str:
    import urllib.parse
    import urllib.request

    query = urllib.parse.urlencode({"q": statement, "db": DATABASE, "u": "icecap", "p": "right"})
    with urllib.request.urlopen(f"{server.url}/query?{query}", b"", timeout=10) as answer:
        return answer.read().decode()


def test_a_secret_is_not_in_the_settings_text() -> None:
    assert "hush" not in repr(InfluxSettings("http://x", "db", token="hush", password="hush"))


def test_the_waits_after_failures_are_spread_and_bounded() -> None:
    import random

    from ingest.projection import BACK_OFF_S, BACK_OFF_S_MAX, full_jitter_s

    rng = random.Random(4)
    waits: Callable[[int], list[float]] = lambda failures: [full_jitter_s(rng, failures) for _ in range(400)]  # noqa: E731
    assert 0 < max(waits(1)) <= BACK_OFF_S
    assert BACK_OFF_S_MAX * 0.9 < max(waits(50)) <= BACK_OFF_S_MAX
    assert min(waits(50)) < BACK_OFF_S_MAX * 0.1
