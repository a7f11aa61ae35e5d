"""The fixtures themselves: a service comes up, survives a kill on the same port, and the guards bite."""

import asyncio
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.services import Influxd, Mosquitto, Service, eventually, port_is_open, wait_until

ROOT = Path(__file__).parents[2]


def _publish_retained(port: int, topic: str, payload: bytes) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, qos=1, retain=True).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()


def _retained(port: int, topic: str) -> bytes:
    messages: list[bytes] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: messages.append(bytes(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe(topic, qos=1)
    wait_until(lambda: messages, 5, "the retained message")
    client.disconnect()
    client.loop_stop()
    return messages[0]


@pytest.mark.service
def test_broker_keeps_port_and_data_over_a_restart(mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()
    _publish_retained(broker.port, "cooler/1", b"4000")

    broker.restart()

    assert _retained(broker.port, "cooler/1") == b"4000"


@pytest.mark.service
def test_killed_broker_is_gone_and_comes_back_on_its_port(mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()

    broker.kill()
    assert not port_is_open(broker.port)
    broker.start()

    assert port_is_open(broker.port)


@pytest.mark.service
def test_broker_with_a_wrong_configuration_shows_its_log(mosquitto: Callable[..., Mosquitto]) -> None:
    with pytest.raises(RuntimeError, match="no_such_option"):
        mosquitto("no_such_option true\n")


@pytest.mark.service
def test_influxd_keeps_points_over_a_kill(influxd: Influxd) -> None:
    influxd.create_database("icecap")
    with urllib.request.urlopen(f"{influxd.url}/write?db=icecap", b"cap temp_mc=4000i 1000000000") as answer:
        assert answer.status == 204

    influxd.kill()
    influxd.start()

    series = json.loads(influxd.query("SELECT temp_mc FROM cap", database="icecap"))["results"][0]["series"]
    assert series[0]["values"] == [[1000, 4000]]


@pytest.mark.service
def test_each_test_has_an_empty_store(store_url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(store_url)
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table only_here (number integer)"))
            assert sqlalchemy.inspect(connection).get_table_names() == ["only_here"]
    finally:
        engine.dispose()


def test_process_that_ends_at_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    service = Service("dying", ["/bin/sh", "-c", "echo last words; exit 3"], tmp_path / "log", ready=lambda: False)

    with pytest.raises(RuntimeError, match="last words"):
        service.start()


def test_waiting_in_vain_names_what_was_awaited() -> None:
    with pytest.raises(TimeoutError, match="a pig that flies"):
        wait_until(lambda: False, 0.05, "a pig that flies")
    with pytest.raises(TimeoutError, match="a pig that flies"):
        asyncio.run(eventually(lambda: False, 0.05, "a pig that flies"))


GUARDED = """
import asyncio
import sys
import threading
import time


def test_blocks_the_loop():
    from edge import nap

    asyncio.run(nap.take())


def test_leaves_a_thread():
    threading.Thread(target=time.sleep, args=(60,), name="forgotten", daemon=True).start()


def test_behaves():
    asyncio.run(asyncio.sleep(0))
"""


def test_guards_fail_a_blocking_call_and_a_left_thread(tmp_path: Path) -> None:
    """A run of pytest in a copy of the fixtures with one module of ``edge`` that sleeps on the loop."""
    for folder in ("provisioning", "tests/support"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    for name in ("tests/__init__.py", "tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge/__init__.py").touch()
    (tmp_path / "edge/nap.py").write_text("import time\n\nasync def take():\n    time.sleep(0.01)\n")
    (tmp_path / "tests/test_guarded.py").write_text(GUARDED)

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_guarded.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert "BlockingError: Blocking call to time.sleep" in run.stdout
    assert "threads left running: forgotten" in run.stdout
    assert "1 failed, 2 passed, 1 error" in run.stdout


def test_missing_service_skips_with_the_command_and_fails_where_services_are_required(
    require: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.find_program", lambda _name: None)

    monkeypatch.delenv("ICECAP_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"install -y --no-install-recommends mosquitto|brew install mosquitto"):
        require("mosquitto")

    monkeypatch.setenv("ICECAP_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="mosquitto is not on this machine"):
        require("mosquitto")
