"""Doctor: what is good, what is bad, and the next step with it; never a secret."""

import json
import socket
import threading

import pytest
from typer.testing import CliRunner

from provisioning import doctor
from provisioning.doctor import Finding, Verdict
from provisioning.doctor_cli import app

NOW_MS = 1_767_225_600_000


def look(*configs, environment=None) -> list[Finding]:
    return list(doctor.examine(tuple(configs), environment=environment or {}, now_ms=NOW_MS))


def about(findings: list[Finding], part: str) -> list[Finding]:
    return [one for one in findings if one.part == part]


def test_this_machine_is_described_and_nothing_about_it_is_bad():
    findings = look()

    assert {one.subject for one in about(findings, "machine")} == {"python", "kernels"}
    assert all(one.verdict is not Verdict.BAD for one in findings)
    assert all(one.step for one in findings if one.verdict is not Verdict.GOOD)


@pytest.mark.parametrize(("text", "expected"), [(None, "No such file"), ("x = ", "Invalid value"), ("\udcff", "codec")])
def test_an_unreadable_configuration_is_named(text, expected, tmp_path):
    file = tmp_path / "edge.toml"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))

    (finding,) = about(look(file), "configuration")

    assert finding.verdict is Verdict.BAD
    assert expected in finding.detail


def test_a_key_that_others_can_read_and_a_missing_certificate_are_bad(tmp_path):
    (tmp_path / "gw.key").write_text("secret material")
    (tmp_path / "gw.key").chmod(0o644)
    file = tmp_path / "edge.toml"
    file.write_text('[cloud]\nca = "nosuch.crt"\nkey = "gw.key"\n')

    findings = about(look(file), "certificate")

    assert [one.verdict for one in findings] == [Verdict.BAD, Verdict.BAD]
    assert "chmod 600" in findings[1].step
    assert "secret material" not in str(findings)


def test_a_broker_that_does_not_answer_is_bad(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    file = tmp_path / "edge.toml"
    file.write_text(f'[cloud]\nhost = "127.0.0.1"\nport = {port}\n')

    (finding,) = about(look(file), "broker")

    assert finding.verdict is Verdict.BAD
    assert "running" in finding.step


def test_health_is_read_over_the_unix_socket(tmp_path):
    body = json.dumps({"parts": {"uplink": {"ok": False, "why": "no receipt for 40 s"}, "outbox": {"ok": True}}}).encode()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "edge.sock"))
    server.listen()

    def answer() -> None:
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    file = tmp_path / "edge.toml"
    file.write_text('[health]\nsocket = "edge.sock"\n')

    findings = about(look(file), "health")
    thread.join(5)
    server.close()

    assert {one.subject: one.verdict for one in findings} == {"uplink": Verdict.BAD, "outbox": Verdict.GOOD}
    assert findings[0].detail == "no receipt for 40 s"


def test_a_process_that_is_not_running_is_bad(tmp_path):
    file = tmp_path / "edge.toml"
    file.write_text('[health]\nsocket = "edge.sock"\n')

    (finding,) = about(look(file), "health")

    assert finding.verdict is Verdict.BAD


def test_a_database_password_is_never_shown(tmp_path):
    findings = look(environment={"DATABASE_URL": "postgresql+psycopg://icecap:hunter2@127.0.0.1:1/none"})

    (finding,) = about(findings, "database")
    assert finding.verdict is Verdict.BAD
    assert "hunter2" not in str(findings)


def test_services_that_do_not_answer_are_bad():
    findings = look(environment={"INFLUX_URL": "http://127.0.0.1:1", "GRAFANA_URL": "http://127.0.0.1:1"})

    assert [one.verdict for one in about(findings, "service")] == [Verdict.BAD, Verdict.BAD]


def test_the_command_prints_json_and_fails_when_something_is_bad(tmp_path):
    good = CliRunner().invoke(app, ["--json"], env={"DATABASE_URL": "", "INFLUX_URL": "", "GRAFANA_URL": ""})
    bad = CliRunner().invoke(app, ["--config", str(tmp_path / "nosuch.toml")])

    assert good.exit_code == 0
    assert {"part", "subject", "verdict", "detail", "step"} == set(json.loads(good.output)[0])
    assert bad.exit_code == 1
