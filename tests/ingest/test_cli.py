import contextlib
import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest import schema
from ingest.apply import apply_batch, read_nothing
from ingest.cli import app
from ingest.health import HealthServer, Part, Report
from ingest.store import Store
from provisioning import registry
from tests.ingest.applying import NOW_MS, PROFILES, apply_in, rows_in
from tests.ingest.conftest import SITE
from tests.ingest.frames import Gateway, flipped

CONFIG = 'database = "{url}"\n[broker]\nhost = "127.0.0.1"\nport = 1883\n[health]\nsocket = "h.sock"\n'


@pytest.fixture(autouse=True)
def _wide(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.delenv("DATABASE_URL", raising=False)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_migrate_makes_an_empty_database_ready_and_says_what_it_did(store_url: str) -> None:
    first, again = run("migrate", "--database", store_url), run("migrate", "--database", store_url)

    assert first[0] == again[0] == 0
    assert first[1].startswith("empty → ")
    assert "nothing to do" in again[1]


def test_streams_show_what_is_missing(store: Store, ready_url: str) -> None:
    gateway = Gateway()
    one, _, _, four = (gateway.block() for _ in range(4))
    apply_in(store, one, four)

    code, text = run("streams", "--database", ready_url)

    assert code == 0
    (line,) = [line for line in text.splitlines() if "gw-test-1" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")][:8] == ["gw-test-1", "t", "11", "1", "4", "2", "2", "0"]


def test_dead_letters_are_listed_shown_retried_and_closed(store: Store, ready_url: str, tmp_path: Path) -> None:
    late = Gateway("gw-late")
    bad = flipped(Gateway().block(), 800)
    apply_in(store, late.block(), bad)
    ids = {row.reason: row.id for row in rows_in(store, schema.dead_letter)}

    code, listed = run("dead-letters", "list", "--database", ready_url)
    assert code == 0
    assert "bad_checksum: 1, unknown_gateway: 1" in listed

    out = tmp_path / "bytes"
    code, shown = run("dead-letters", "show", str(ids["bad_checksum"]), "--database", ready_url, "--out", str(out))
    assert code == 0
    assert out.read_bytes() == bad.payload
    assert "bad_checksum" in shown
    assert run("dead-letters", "show", "99999", "--database", ready_url)[0] == 1

    with store.transaction() as connection:
        registry.add_gateway(connection, "gw-late", site_id=SITE, at_ms=5)
    assert run("dead-letters", "retry", "--database", ready_url)[1].strip() == "refused: 1, stored: 1"
    assert run("dead-letters", "close", str(ids["bad_checksum"]), "--database", ready_url)[1].strip() == "closed: 1"
    assert run("dead-letters", "retry", "--database", ready_url)[1].strip() == "nothing to try again"
    assert "no dead letters" in run("dead-letters", "list", "--database", ready_url)[1]


def test_parked_frames_are_retried_too(store: Store, ready_url: str) -> None:
    with store.transaction() as connection:
        apply_batch(connection, [Gateway().block()], profiles=PROFILES, now_ms=NOW_MS, reader=read_nothing)

    assert run("dead-letters", "retry", "--reason", "internal", "--database", ready_url)[1].strip() == "stored: 1"


def test_a_configuration_with_errors_ends_with_78_and_names_them_all(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('databse = "x"\n[broker]\nport = 1\n')

    for command in (("run", "--config", str(path)), ("check", str(path))):
        code, text = run(*command)
        assert code == 78
        assert "databse: unknown key" in text
        assert "broker.host: missing" in text


def test_a_good_configuration_is_called_good(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(CONFIG.format(url=f"sqlite:///{tmp_path / 'x.db'}"))

    assert run("check", str(path)) == (0, f"{path}: good; 16 partitions of 127.0.0.1:1883\n")


def test_status_shows_the_parts_and_ends_with_their_code(tmp_path: Path) -> None:
    path = tmp_path / "ingest.toml"
    path.write_text(CONFIG.format(url=f"sqlite:///{tmp_path / 'x.db'}"))
    reports = {"ok": Report(True, "1", 0, {"store": Part(True), "projection influx": Part(False, "unreachable")})}
    server = HealthServer(tmp_path / "h.sock", report=lambda: reports["ok"], metrics=lambda: b"")
    server.start()
    try:
        good = run("status", "--config", str(path))
        reports["ok"] = Report(False, "1", 0, {"store": Part(False, "the database is away")})
        bad = run("status", "--config", str(path))
    finally:
        server.stop()
    gone = run("status", "--config", str(path))

    assert good[0] == 0
    assert "unreachable" in good[1]
    assert bad[0] == 1
    assert "the database is away" in bad[1]
    assert gone[0] == 1
    assert "is it running?" in gone[1]


@pytest.mark.parametrize("words", [("migrate",), ("streams",), ("dead-letters", "list")])
def test_without_a_store_the_command_says_how_to_name_one(words: tuple[str, ...]) -> None:
    code, text = run(*words)

    assert code == 2
    assert "DATABASE_URL" in text


def test_a_store_that_is_away_is_one_line(free_port) -> None:
    code, text = run("streams", "--database", f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")

    assert code == 1
    assert "Traceback" not in text


def test_health_answers_json_metrics_and_nothing_else(tmp_path: Path) -> None:
    import socket

    server = HealthServer(tmp_path / "h.sock", report=lambda: Report(False, "1", 5, {}), metrics=lambda: b"icecap 1\n")
    server.start()

    def ask(request: bytes) -> tuple[str, bytes]:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "h.sock"))
            peer.sendall(request)
            peer.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: peer.recv(4096), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.split(b"\r\n")[0].decode(), body

    try:
        status, body = ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert json.loads(body)["wall_ms"] == 5
        assert ask(b"GET /metrics HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", b"icecap 1\n")
        assert ask(b"GET /etc/passwd HTTP/1.1\r\n\r\n")[0] == "HTTP/1.1 404 Not Found"
        assert ask(b"POST /healthz HTTP/1.1\r\n\r\n")[0] == "HTTP/1.1 405 Method Not Allowed"
        with contextlib.suppress(ConnectionResetError):  # it answers before it has read everything, and hangs up
            assert ask(b"\xff" * 20_000)[0] == "HTTP/1.1 405 Method Not Allowed"
        assert ask(b"") == ("HTTP/1.1 405 Method Not Allowed", b"GET only\n")
    finally:
        server.stop()
    assert not (tmp_path / "h.sock").exists()
    assert "health" not in {thread.name for thread in threading.enumerate()}
