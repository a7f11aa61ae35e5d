"""Pushing boards: the exact requests, through both transports, against a recording stand-in for Grafana."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from dashboards.build import boards, render
from dashboards.cli import app
from dashboards.push import FOLDER_TITLE, FOLDER_UID, MESSAGE, push
from provisioning.grafana import ClientTransport, GrafanaError, HttpTransport, ensure_data_source
from tests.support.grafana_stub import GrafanaStub
from tests.support.services import free_port

BOTH = [pytest.param(ClientTransport, id="grafana-api"), pytest.param(HttpTransport, id="httpx")]


@pytest.fixture
def grafana() -> Iterator[GrafanaStub]:
    one = GrafanaStub().start()
    yield one
    one.close()


@pytest.mark.parametrize("kind", BOTH)
def test_a_first_push_makes_the_folder_and_sends_each_board_as_built(grafana: GrafanaStub, kind: type) -> None:
    transport = kind(grafana.url, "right")
    done = push(transport, boards())
    transport.close()

    assert [(method, path) for method, path, _, _ in grafana.requests] == [
        ("GET", "/api/folders/icecap"),
        ("POST", "/api/folders"),
        *[("POST", "/api/dashboards/db")] * len(boards()),
    ]
    assert grafana.folders == {FOLDER_UID: {"uid": FOLDER_UID, "title": FOLDER_TITLE}}
    for board, (_, _, authorization, body) in zip(boards(), grafana.requests[2:], strict=True):
        assert authorization == "Bearer right"
        assert body == {
            "dashboard": {"id": None, **json.loads(render(board))},
            "folderUid": "icecap",
            "overwrite": True,
            "message": MESSAGE,
        }
    assert [(one.uid, one.version) for one in done] == [(board.uid, 1) for board in boards()]


@pytest.mark.parametrize("kind", BOTH)
def test_pushing_again_replaces_and_doubles_nothing(grafana: GrafanaStub, kind: type) -> None:
    transport = kind(grafana.url, "right")
    push(transport, boards())
    again = push(transport, boards())
    transport.close()

    assert {one.version for one in again} == {2}
    assert set(grafana.dashboards) == {board.uid for board in boards()}
    assert [path for method, path, _, _ in grafana.requests if (method, path) == ("POST", "/api/folders")] == ["/api/folders"]


def test_both_transports_send_the_same(grafana: GrafanaStub) -> None:
    sent = []
    for kind in (ClientTransport, HttpTransport):
        grafana.folders.clear()
        grafana.requests.clear()
        transport = kind(grafana.url, "right")
        push(transport, boards())
        transport.close()
        sent.append(list(grafana.requests))
    assert sent[0] == sent[1]


@pytest.mark.parametrize("kind", BOTH)
def test_grafana_below_a_path_is_reached(kind: type) -> None:
    stub = GrafanaStub(prefix="/monitoring/grafana").start()
    try:
        transport = kind(f"{stub.url}/", "right")
        assert push(transport, boards()[:1])[0].uid == boards()[0].uid
        transport.close()
        assert stub.requests[0][1] == "/monitoring/grafana/api/folders/icecap"
    finally:
        stub.close()


@pytest.mark.parametrize("kind", BOTH)
def test_a_wrong_token_is_said_and_nothing_is_sent(grafana: GrafanaStub, kind: type) -> None:
    transport = kind(grafana.url, "wrong")
    with pytest.raises(GrafanaError) as caught:
        push(transport, boards())
    transport.close()
    assert caught.value.status == 401
    assert "Invalid API key" in str(caught.value)
    assert len(grafana.requests) == 1


@pytest.mark.parametrize("kind", BOTH)
def test_an_answer_that_is_no_json_object_is_an_error_with_a_hint(grafana: GrafanaStub, kind: type) -> None:
    for page, hint in ((b"<html>sign in</html>", "is this address Grafana"), (b"[1, 2]", "expected a JSON object")):
        grafana.broken = page
        transport = kind(grafana.url, "right")
        with pytest.raises(GrafanaError, match=hint):
            push(transport, boards())
        transport.close()


@pytest.mark.parametrize("kind", BOTH)
def test_nobody_at_the_address_is_an_error_without_a_status(kind: type) -> None:
    transport = kind(f"http://127.0.0.1:{free_port()}", "right")
    with pytest.raises(GrafanaError) as caught:
        transport.request("GET", "/health")
    transport.close()
    assert caught.value.status == 0


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("url", ["grafana.example", "ftp://grafana.example", "http://", "http://user:secret@grafana.example"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(kind: type, url: str) -> None:
    with pytest.raises(GrafanaError, match="no address"):
        kind(url, "right")


@pytest.mark.parametrize("kind", BOTH)
def test_a_data_source_is_made_once_and_then_updated(grafana: GrafanaStub, kind: type) -> None:
    transport = kind(grafana.url, "right")
    source = {"uid": "icecap-influx", "type": "influxdb", "name": "Icecap", "access": "proxy", "url": "http://influx:8086"}
    assert ensure_data_source(transport, source)
    assert not ensure_data_source(transport, source | {"url": "http://other:8086"})
    transport.close()
    assert grafana.sources["icecap-influx"]["url"] == "http://other:8086"
    assert [method for method, _, _, _ in grafana.requests] == ["GET", "POST", "GET", "PUT"]


@pytest.mark.parametrize("client", ["grafana-api", "httpx"])
def test_the_command_pushes_and_shows_where_the_boards_are(grafana: GrafanaStub, client: str) -> None:
    result = CliRunner().invoke(app, ["push", "--url", grafana.url, "--token", "right", "--client", client])
    assert result.exit_code == 0, result.output
    assert set(grafana.dashboards) == {board.uid for board in boards()}
    assert "icecap-fleet" in result.output
    refused = CliRunner().invoke(app, ["push", "--url", grafana.url, "--token", "wrong", "--client", client])
    assert refused.exit_code == 2
    assert "401" in refused.output
