"""InfluxDB made ready: on the real 1.6.7 with sign-in, and as recorded requests for 2.x, which cannot be installed here."""

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provisioning.cli import app
from provisioning.influx import Admin, InfluxError, data_source, prepare_bucket, prepare_database
from tests.conftest import Require
from tests.support import services
from tests.support.grafana_stub import GrafanaStub
from tests.support.services import Influxd, free_port

PASSWORD = "it's \\ hard"


@pytest.fixture
def locked(require: Require, tmp_path: Path) -> Iterator[Influxd]:
    """An InfluxDB 1.6.7 that wants to know who asks."""
    server = services.make_influxd(require("influxd"), tmp_path / "locked", auth=True)
    server.start()
    server.query("CREATE USER \"root\" WITH PASSWORD 'rootroot' WITH ALL PRIVILEGES")
    yield server
    server.stop()


def ask(server: Influxd, statement: str, user: str, password: str) -> dict:
    query = urllib.parse.urlencode({"q": statement, "db": "icecap", "u": user, "p": password})
    with urllib.request.urlopen(f"{server.url}/query?{query}", b"", timeout=10) as answer:
        return json.loads(answer.read())["results"][0]


def write(server: Influxd, user: str, password: str) -> int:
    query = urllib.parse.urlencode({"db": "icecap", "u": user, "p": password})
    try:
        with urllib.request.urlopen(f"{server.url}/write?{query}", f"cooler x=1 {time.time_ns()}\n".encode(), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.service
def test_the_writer_may_write_and_the_reader_may_only_read(locked: Influxd) -> None:
    admin = Admin(locked.url, "root", "rootroot")
    for _ in range(2):  # again changes nothing
        prepare_database(admin, "icecap", keep_days=400, writer=("icecap-ingest", PASSWORD), reader=("icecap-grafana", PASSWORD))

    assert write(locked, "icecap-ingest", PASSWORD) == 204
    assert write(locked, "icecap-grafana", PASSWORD) == 403
    assert ask(locked, "SELECT x FROM cooler", "icecap-grafana", PASSWORD)["series"][0]["values"]
    for statement in ("DROP MEASUREMENT cooler", "DELETE FROM cooler", "DROP DATABASE icecap"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(locked, statement, "icecap-grafana", PASSWORD)
        assert caught.value.code == 403
    policy = ask(locked, "SHOW RETENTION POLICIES ON icecap", "root", "rootroot")["series"][0]["values"]
    assert [(row[0], row[1], row[-1]) for row in policy] == [("autogen", "9600h0m0s", True)]


@pytest.mark.service
@pytest.mark.parametrize(("days", "kept"), [(0, "0s"), (1, "24h0m0s"), (30, "720h0m0s")])
def test_any_number_of_days_can_be_kept(locked: Influxd, days: int, kept: str) -> None:
    prepare_database(Admin(locked.url, "root", "rootroot"), "icecap", keep_days=days)
    policy = ask(locked, "SHOW RETENTION POLICIES ON icecap", "root", "rootroot")["series"][0]["values"]
    assert [row[1] for row in policy] == [kept]


@pytest.mark.service
def test_a_password_is_changed_by_running_it_again(locked: Influxd) -> None:
    admin = Admin(locked.url, "root", "rootroot")
    prepare_database(admin, "icecap", writer=("icecap-ingest", "old"))
    prepare_database(admin, "icecap", writer=("icecap-ingest", "new"))
    assert write(locked, "icecap-ingest", "old") == 401
    assert write(locked, "icecap-ingest", "new") == 204


@pytest.mark.service
def test_a_wrong_admin_is_told_so_without_the_password_in_the_message(locked: Influxd) -> None:
    with pytest.raises(InfluxError, match="401") as caught:
        prepare_database(Admin(locked.url, "root", "hush"), "icecap", writer=("icecap-ingest", "hush-too"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", 'x"; DROP DATABASE y; --', "1st", "ä"])
def test_a_name_that_would_need_quoting_is_refused(name: str) -> None:
    with pytest.raises(InfluxError, match="no name"):
        prepare_database(Admin("http://127.0.0.1:1"), name)


def test_nobody_at_the_address_is_said() -> None:
    with pytest.raises(InfluxError, match="CREATE DATABASE"):
        prepare_database(Admin(f"http://127.0.0.1:{free_port()}"), "icecap")


class TwoPointX(BaseHTTPRequestHandler):
    """The documented answers of InfluxDB 2.x to the requests that we make."""

    seen: list[tuple[str, str, str, dict | None]]
    buckets: list[dict]

    def do_GET(self) -> None:
        self._record(None)
        path = self.path.partition("?")[0]
        answers = {
            "/api/v2/orgs": {"orgs": [{"id": "0a"}]},
            "/api/v2/buckets": {"buckets": self.buckets},
            "/api/v2/dbrps": {"content": self.buckets},
        }
        self._send(200, answers[path])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._record(body)
        if self.path == "/api/v2/dbrps":
            self.buckets.append({"id": "0b"})
        self._send(201, {"id": "0b"})

    def _record(self, body: dict | None) -> None:
        self.seen.append((self.command, self.path, self.headers["Authorization"], body))

    def _send(self, status: int, document: dict) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


@pytest.fixture
def two() -> Iterator[tuple[str, type[TwoPointX]]]:
    handler = type("Handler", (TwoPointX,), {"seen": [], "buckets": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_bucket_is_made_once_with_its_mapping_for_influxql(two: tuple[str, type[TwoPointX]]) -> None:
    url, handler = two
    admin = Admin(url, token="secret", org="icecap")
    assert prepare_bucket(admin, "icecap", keep_days=30)
    assert not prepare_bucket(admin, "icecap", keep_days=30)

    posts = [(path, body) for method, path, _, body in handler.seen if method == "POST"]
    assert posts == [
        ("/api/v2/buckets", {"orgID": "0a", "name": "icecap", "retentionRules": [{"type": "expire", "everySeconds": 2_592_000}]}),
        ("/api/v2/dbrps", {"orgID": "0a", "bucketID": "0b", "database": "icecap", "retention_policy": "autogen", "default": True}),
    ]
    assert {authorization for _, _, authorization, _ in handler.seen} == {"Token secret"}


def test_the_data_source_reads_by_get_and_keeps_its_secret_apart() -> None:
    plain = data_source("http://influx:8086", "icecap", api="v1")
    assert plain["uid"] == "icecap-influx"
    assert plain["jsonData"] == {"version": "InfluxQL", "dbName": "icecap", "httpMode": "GET"}
    assert "secureJsonData" not in plain
    one = data_source("http://influx:8086", "icecap", api="v1", user="reader", secret="hush")
    assert one["secureJsonData"] == {"password": "hush"}
    two = data_source("http://influx:8086", "icecap", api="v2", secret="hush")
    assert two["secureJsonData"] == {"httpHeaderValue1": "Token hush"}
    assert "hush" not in json.dumps({key: value for key, value in two.items() if key != "secureJsonData"})


@pytest.mark.service
def test_the_commands_make_a_database_a_bucket_and_a_data_source(locked: Influxd, two: tuple[str, type[TwoPointX]]) -> None:
    secrets = {"INFLUX_ADMIN_PASSWORD": "rootroot", "INFLUX_PASSWORD": PASSWORD, "INFLUX_READER_PASSWORD": "may-read"}
    made = CliRunner().invoke(app, ["influx", "database", "--url", locked.url, "--admin", "root"], env=secrets)
    assert made.exit_code == 0, made.output
    assert write(locked, "icecap-ingest", PASSWORD) == 204
    assert write(locked, "icecap-grafana", "may-read") == 403

    first = CliRunner().invoke(app, ["influx", "bucket", "--url", two[0], "--org", "icecap"], env={"INFLUX_ADMIN_TOKEN": "secret"})
    assert "was made" in first.output

    stub = GrafanaStub().start()
    try:
        words = ["influx", "grafana", "--url", locked.url, "--grafana-url", stub.url, "--user", "icecap-grafana"]
        told = CliRunner().invoke(app, words, env={"GRAFANA_TOKEN": "right", "INFLUX_READER_SECRET": "may-read"})
        assert "was made" in told.output
        assert stub.sources["icecap-influx"]["secureJsonData"] == {"password": "may-read"}
        refused = CliRunner().invoke(app, words, env={"GRAFANA_TOKEN": "wrong"})
        assert refused.exit_code == 2
    finally:
        stub.close()
