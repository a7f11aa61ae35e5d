"""The whole path on this machine, as ``icecap demo`` runs it: nothing here is replaced by anything."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from protocol.clock import MachineClock
from simulator import demo_cli, stage
from simulator.clinic import Clinic
from simulator.demo import Kill, parse_kills
from simulator.stage import Settings, StageError, environment, prepare
from tests.support.services import wait_until

RUN_S = 180.0  # fourteen seconds of it are the run; the rest is there for a machine that is busy with other things
START_S = 90.0  # six cold starts of Python on a loaded machine with two cores


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder with a short name, which the demonstration takes for the machine's own temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="ic-"))
    yield folder
    shutil.rmtree(folder)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "icecap", "demo", *words]


def surroundings(place: Path) -> dict[str, str]:
    services = ("DATABASE_URL", "INFLUX_URL", "GRAFANA_URL")
    return {name: value for name, value in os.environ.items() if name not in services} | environment() | {"TMPDIR": str(place)}


def living(place: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(place) in line:
            found.append(line)
    return found


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ingest_and_gateway_are_killed_and_nothing_is_lost_or_stored_twice(require: Callable[[str], Path], place, tmp_path):
    require("mosquitto")
    path = tmp_path / "report.json"
    words = command("--for", "14", "--kill", "ingest@4,gateway@8", "--report", str(path))

    done = subprocess.run(words, env=surroundings(place), capture_output=True, text=True, timeout=RUN_S, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(path.read_text())
    assert report["restarts"]["ingest"] == 1
    assert report["restarts"]["gateway"] == 1
    assert report["drained"]
    assert (report["lost"], report["twice"], report["unreadable_blocks"]) == (0, 0, 0)
    assert report["readings_acknowledged"] >= 4 * 60 * 10, "four coolers at sixty rows a second for most of the time"
    assert report["rows_received"] == report["readings_acknowledged"]
    assert report["blocks_received"] == report["blocks_appended"]
    assert 0 < report["latency_p50_ms"] <= report["latency_p99_ms"]
    assert {"ingest", "gateway", "console", "cloud-broker", "clinic-broker", "demo"} <= report["rss_bytes"].keys()
    assert living(place) == []
    assert list(place.iterdir()) == []


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ctrl_c_ends_it_in_order_and_leaves_nothing(require: Callable[[str], Path], place, tmp_path):
    require("mosquitto")
    path, log = tmp_path / "report.json", tmp_path / "said"
    with log.open("w") as said:
        words = command("--report", str(path), "--coolers", "2")
        running = subprocess.Popen(words, env=surroundings(place) | {"COLUMNS": "200"}, stdout=said, stderr=said, start_new_session=True)
    try:
        wait_until(lambda: "in the cloud" in log.read_text() or running.poll() is not None, START_S, "rows in the cloud")
        assert living(place), log.read_text()

        os.killpg(running.pid, signal.SIGINT)  # what a terminal does: to the whole group

        assert running.wait(60) == 0, log.read_text()
    finally:
        running.kill()
        running.wait()
    assert "http://127.0.0.1:" in log.read_text()
    assert "password" in log.read_text()
    assert json.loads(path.read_text())["lost"] == 0
    assert living(place) == []
    assert list(place.iterdir()) == []


def test_a_missing_broker_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "find_program", lambda _name: None)
    clock = MachineClock(time.time_ns, time.monotonic_ns, lambda: True)

    with pytest.raises(StageError, match="install"):
        prepare(Settings(tmp_path / "demo", tmp_path), machine=clock, say=lambda _text: None)

    assert not (tmp_path / "demo").exists()


def test_a_folder_that_is_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    result = CliRunner().invoke(demo_cli.app, ["--dir", str(tmp_path), "--for", "1"])

    assert result.exit_code == 1
    assert "not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("option", [("--kill", "ingest"), ("--fault", "cooler-0001/flood@1"), ("--fault", "cooler-9999/dead_pump@1")])
def test_an_option_that_means_nothing_is_refused_before_anything_starts(tmp_path, option):
    result = CliRunner().invoke(demo_cli.app, ["--dir", str(tmp_path / "demo"), "--for", "1", *option])

    assert result.exit_code == 1
    assert not (tmp_path / "demo").exists()


def test_a_surprise_is_the_same_for_the_same_seed():
    first, again, other = (demo_cli._faults(["cooler-0001/surprise"], Clinic(seed, 1)) for seed in ("a", "a", "b"))

    assert first == again != other
    assert list(first) == ["cooler-0001"]


def test_kills_are_a_name_and_a_second():
    assert parse_kills("ingest@20,gateway@35.5") == [Kill("ingest", 20.0), Kill("gateway", 35.5)]
    assert parse_kills("") == []


@pytest.mark.service
@pytest.mark.slow
def test_a_real_influxdb_gets_its_database_and_every_row(require: Callable[[str], Path], influxd, place, tmp_path):
    require("mosquitto")
    path = tmp_path / "report.json"
    words = command("--for", "8", "--coolers", "2", "--report", str(path))

    done = subprocess.run(
        words, env=surroundings(place) | {"INFLUX_URL": influxd.url}, capture_output=True, text=True, timeout=110, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(path.read_text())
    assert report["points_projected"] == report["rows_received"] > 0
    answer = json.loads(influxd.query("select count(ambient_temp) from cooler", database="icecap"))
    assert answer["results"][0]["series"][0]["values"][0][1] > 0.95 * report["rows_received"], "a few samples were rejected"
