import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocol.profile import builtin
from provisioning.identity import Realm
from simulator.cli import app
from simulator.stage import environment
from tests.support.mtls import connected, make_tls_broker
from tests.support.services import HOST, wait_until

START_S = 60.0  # a cold start of Python on a loaded machine


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_recording_has_a_row_a_second_and_a_column_a_channel(tmp_path):
    run("record", tmp_path / "a.csv", "--minutes", 3)
    run("record", tmp_path / "b.csv", "--minutes", 3)

    rows = table(tmp_path / "a.csv")
    assert len(rows) == 180
    assert list(rows[0]) == ["time_ms", *(channel.name for channel in builtin("icecap-cooler").channels)]
    assert {int(row["time_ms"]) % 1_000 for row in rows} == {0}
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_fault_is_in_the_recording(tmp_path):
    run("record", tmp_path / "healthy.csv", "--minutes", 2)
    run("record", tmp_path / "sagging.csv", "--minutes", 2, "--fault", "mains_sag@1")

    healthy, sagging = (float(table(tmp_path / name)[-1]["mains_voltage"]) for name in ("healthy.csv", "sagging.csv"))
    assert sagging < 180 < healthy


def test_a_fault_that_is_none_is_one_line(tmp_path):
    result = CliRunner().invoke(app, ["record", str(tmp_path / "a.csv"), "--fault", "flood@1"])

    assert result.exit_code == 1
    assert "KIND@FROM" in result.output
    assert "Traceback" not in result.output


def test_the_days_timetable_is_printed():
    output = run("day", "--coolers", 2)

    assert "cooler-0002  on " in output
    assert "pre_cool" in output


@pytest.mark.service
def test_coolers_report_to_a_broker_until_they_are_stopped(require, tmp_path):
    broker = make_tls_broker(require("mosquitto"), tmp_path / "clinic", realm=Realm.CLINIC, gateways=["gw-1"])
    broker.service.start()
    credentials = broker.credentials("cooler-0001")
    credentials.ca.rename(credentials.cert.parent / "ca.crt")
    words = ["simulate", "publish", HOST, str(credentials.cert.parent), "--port", str(broker.port), "--coolers", "1", "--speed", "60"]
    try:
        with connected(broker.port, broker.credentials("gw-1")) as gateway:
            gateway.subscribe("coolers/+/telemetry")
            running = subprocess.Popen(
                [sys.executable, "-m", "icecap", *words], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment()}
            )
            wait_until(lambda: gateway.messages.qsize() >= 60 or running.poll() is not None, START_S, "sixty rows")
            running.terminate()
            said, _ = running.communicate(timeout=30)
            numbers = [json.loads(gateway.messages.get().payload)["n"] for _ in range(60)]
    finally:
        broker.service.stop()

    assert running.returncode == 0
    assert "acknowledged=" in said
    assert numbers == list(range(numbers[0], numbers[0] + 60))
