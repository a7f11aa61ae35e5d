"""The agent as a process beside a real broker: killed, reconfigured, mute peers, dead sources; nothing acknowledged is lost."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.cli import app
from protocol import facts, frame
from protocol.facts import ConfigurationApplied, FactRecord
from protocol.topics import Lane
from provisioning.identity import Realm
from tests.edge.gateway import CLINIC, DEVICE, ROOT, GatewayProcess, make_gateway
from tests.edge.rig import COOLER, opened, publisher, stored
from tests.support.mtls import connected, make_tls_broker
from tests.support.services import Mosquitto, wait_until

Broker = Callable[..., Mosquitto]

pytestmark = pytest.mark.service

RUNNER = CliRunner()

DURABLE = (
    "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {directory}/\n"
    "max_queued_messages 0\nmax_inflight_messages 1000\n"
)


@pytest.fixture
def gateways() -> Iterator[list[GatewayProcess]]:
    """Whatever a test puts in is ended."""
    made: list[GatewayProcess] = []
    yield made
    for one in made:
        one.close()


@pytest.fixture
def gateway(mosquitto: Broker, tmp_path: Path, gateways: list[GatewayProcess]) -> tuple[GatewayProcess, Mosquitto]:
    broker = mosquitto(DURABLE)
    gateways.append(make_gateway(tmp_path / "gateway", clinic_port=broker.port))
    return gateways[0], broker


def test_it_says_ready_feeds_the_watchdog_answers_health_and_stops_in_time(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, broker = gateway
    agent.start()

    with publisher(broker.port) as cooler:
        wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")
        cooler.wait([cooler.sample() for _ in range(10)])
        wait_until(lambda: agent.number("source clinic", "acknowledged") == 10, 10, "all acknowledged")
    status, body = agent.get("/healthz")
    metrics = agent.get("/metrics")[1].decode()
    wait_until(lambda: any("WATCHDOG=1" in notice for notice in agent.hear()), 5, "the watchdog is fed")
    code, seconds = agent.stop()

    report = json.loads(body)
    assert status == 503  # the cloud is not there, and that is said by its part
    assert {name for name, part in report["parts"].items() if not part["ok"]} == {"uplink"}
    assert 'icecap_edge_intake_events_total{event="rows_stored"} 10.0' in metrics
    assert 'icecap_edge_source_up{kind="mqtt",source="clinic"} 1.0' in metrics
    assert agent.get("/nothing")[0] == 0
    assert "STOPPING=1" in agent.hear()
    assert code == 0
    assert seconds < 5
    assert (agent.data / "gates.bin").exists()
    assert not (agent.folder / "edge.sock").exists()


@pytest.mark.slow
def test_killed_three_times_in_mid_run_it_loses_and_doubles_nothing(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, broker = gateway
    agent.start()
    wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")

    with publisher(broker.port) as cooler:
        taken = []
        for _ in range(3):
            taken += [cooler.sample(flow_1=1.0 + number % 100 / 100) for number in range(300)]
            wait_until(lambda: agent.number("source clinic", "acknowledged") > 20, 10, "in mid-run")  # since this start
            agent.kill()
            agent.start()
        cooler.wait(taken)
        wait_until(lambda: agent.number("source clinic", "messages"), 10, "the rest")
        wait_until(lambda: _is_idle(agent), 20, "all acknowledged")
    assert agent.stop()[0] == 0

    with opened(agent.data) as outbox:
        keys = stored(outbox).keys
    assert sorted(keys) == [(COOLER, 1, number) for number in range(1, 901)]


def _is_idle(agent: GatewayProcess) -> bool:
    before = agent.number("source clinic", "acknowledged")
    time.sleep(0.3)  # not a synchronisation: two looks at a counter need a distance
    return before > 0 and agent.number("source clinic", "acknowledged") == before


def test_over_tls_with_client_certificates(require: Callable[[str], Path], tmp_path: Path, gateways: list[GatewayProcess]) -> None:
    broker = make_tls_broker(require("mosquitto"), tmp_path / "clinic", realm=Realm.CLINIC, gateways=["gw-test-1"])
    names = broker.credentials("gw-test-1")
    source = f"""
[[source.mqtt]]
name = "clinic"
host = "127.0.0.1"
port = {broker.port}
ca = "{names.ca}"
cert = "{names.cert}"
key = "{names.key}"
[[source.mqtt.topic]]
filter = "coolers/+/telemetry"
"""
    agent = make_gateway(tmp_path / "gateway", DEVICE, source)
    gateways.append(agent)
    broker.service.start()
    try:
        agent.start()
        with connected(broker.port, broker.credentials(COOLER)) as cooler:
            wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")
            assert cooler.publish(f"coolers/{COOLER}/telemetry", b'{"boot": 1, "n": 1, "flow_1": 3.0}') == 0
            wait_until(lambda: agent.number("source clinic", "acknowledged") == 1, 10, "stored")
    finally:
        broker.service.stop()


@pytest.mark.parametrize("fault", ["foreign authority", "wrong name"])
def test_tls_fails_closed(require: Callable[[str], Path], tmp_path: Path, gateways: list[GatewayProcess], fault: str) -> None:
    broker = make_tls_broker(require("mosquitto"), tmp_path / "clinic", realm=Realm.CLINIC, gateways=["gw-test-1"])
    names = broker.credentials("gw-test-1")
    agent = make_gateway(tmp_path / "gateway")
    gateways.append(agent)
    host, ca = (
        ("127.0.0.1", agent.folder / "ca.crt") if fault == "foreign authority" else ("127.1", names.ca)
    )  # the same address under a name that is not in the certificate
    source = CLINIC.replace("plaintext = true", f'ca = "{ca}"\ncert = "{names.cert}"\nkey = "{names.key}"')
    text = agent.config.read_text()
    text = text[: text.index("[[source")] + source.replace("127.0.0.1", host).replace("{clinic_port}", str(broker.port))
    agent.config.write_text(text)
    broker.service.start()
    try:
        agent.start()
        wait_until(lambda: agent.number("source clinic", "connects_failed") >= 1, 10, "refused")
        part = agent.part("source clinic")
    finally:
        broker.service.stop()
    assert not part["ok"]
    assert "connections" not in part["numbers"]  # type: ignore[operator]
    assert "certificate verify failed" in str(agent.events("source_disconnected")[0]["why"])


def test_a_changed_configuration_keeps_the_backlog_and_an_unchanged_one_changes_nothing(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, broker = gateway
    agent.start()
    assert agent.process is not None
    with publisher(broker.port) as cooler:
        wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")
        cooler.wait([cooler.sample(number) for number in range(1, 151)])
        wait_until(lambda: agent.number("source clinic", "acknowledged") == 150, 10, "stored")
        for times in range(1, 21):
            agent.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(agent.events("configuration_unchanged")) == times, 10, "read again")  # noqa: B023
        ready = len(agent.events("agent_ready"))

        site_profile = (
            (ROOT / "protocol" / "profiles" / "icecap-cooler.toml").read_text().replace('id = "icecap-cooler"', 'id = "site-cooler"')
        )
        (agent.folder / "site.toml").write_text(site_profile)
        text = agent.config.read_text().replace("coolers/+/telemetry", "fleet/+/telemetry")
        agent.config.write_text(text.replace(DEVICE, DEVICE + 'profile = "site-cooler"\n[[profile]]\nfile = "site.toml"\n'))
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(agent.events("agent_ready")) == 2, 20, "the new configuration")
        wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")
        cooler.wait([cooler.send({"boot": 1, "n": 151, "flow_1": 3.0}, f"fleet/{COOLER}/telemetry"), cooler.sample(152)])
        wait_until(lambda: agent.number("source clinic", "acknowledged") == 1, 10, "the new topic only")

        agent.config.write_text(agent.config.read_text().replace("clinic-a", "Clinic A"))
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: agent.events("configuration_refused"), 10, "the wrong file is refused")
        assert agent.part("source clinic")["ok"]
    agent.config.write_text(agent.config.read_text().replace("Clinic A", "clinic-a"))
    assert agent.stop()[0] == 0
    agent.start()
    assert agent.stop()[0] == 0

    assert ready == 1
    with opened(agent.data) as outbox:
        found = stored(outbox)
        assert sorted(found.keys) == [(COOLER, 1, number) for number in range(1, 152)]
        assert {one.head.profile: len(rows.ts_ms) for one, rows in found.blocks[-1:]} == {"site-cooler": 1}
        records = outbox.read(Lane.ALARM).result(10)
    applied = [_fact(record.data) for record in records]
    assert [type(one) for one in applied] == [ConfigurationApplied, ConfigurationApplied]
    assert applied[0] != applied[1]


def _fact(data: bytes) -> facts.Fact:
    found = frame.decode(data)
    assert isinstance(found, frame.Frame)
    record = facts.decode(found.body)
    assert isinstance(record, FactRecord)
    return record.fact


def test_a_wrong_configuration_ends_with_78_and_every_error(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, _broker = gateway
    agent.config.write_text(agent.config.read_text().replace('site = "clinic-a"', 'site = "A B"\nsitte = 1'))
    (agent.folder / "gw-test-1.key").chmod(0o644)

    code = agent.launch().wait(20)

    assert code == 78
    for expected in ("sitte: unknown key; did you mean 'site'?", "site: 'A B'", "chmod 600"):
        assert expected in agent.log()
    assert not agent.data.exists()


def test_a_second_agent_on_the_same_store_ends_with_75(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, _broker = gateway
    agent.start()
    second = GatewayProcess(agent.folder)

    assert second.launch().wait(20) == 75
    assert agent.process is not None
    assert agent.process.poll() is None


def test_a_store_that_cannot_be_opened_ends_with_74(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, _broker = gateway
    agent.start()
    agent.stop()
    agent.config.write_text(agent.config.read_text().replace("gw-test-1", "gw-other-1", 1))

    assert agent.launch().wait(20) == 74
    assert "gw-test-1" in agent.log()


def test_mute_peers_do_not_delay_the_stop(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, broker = gateway
    agent.start()
    wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")
    broker.pause()

    code, seconds = agent.stop()
    broker.resume()

    assert code == 0
    assert seconds < 5


def test_a_dying_source_is_shown_and_the_others_flow(gateway: tuple[GatewayProcess, Mosquitto], tmp_path: Path) -> None:
    agent, broker = gateway
    (agent.folder / "rig.csv").write_text("other\n1\n")
    replay = '\n[[source.replay]]\nname = "rig"\nfile = "rig.csv"\nserial = "cooler-0002"\nprofile = "icecap-cooler"\ntime_column = "t"\n'
    agent.config.write_text(agent.config.read_text() + replay + 'columns = { flow_1 = "flow" }\n')
    agent.start()

    wait_until(lambda: "no column flow, t" in str(agent.part("source rig").get("why")), 10, "shown")
    with publisher(broker.port) as cooler:
        wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")
        cooler.wait([cooler.sample()])
        wait_until(lambda: agent.number("source clinic", "acknowledged") == 1, 10, "stored")

    assert not agent.part("source rig")["ok"]
    wait_until(lambda: agent.number("source rig", "deaths") >= 2, 20, "tried again")


def test_status_is_a_table_or_json_and_says_by_code_whether_all_is_well(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, _broker = gateway
    nobody = RUNNER.invoke(app, ["status", "--config", str(agent.config)])
    agent.start()
    table = RUNNER.invoke(app, ["status", "--socket", str(agent.folder / "edge.sock")])
    as_json = RUNNER.invoke(app, ["status", "--config", str(agent.config), "--json"])

    assert nobody.exit_code == 69
    assert "is it running" in nobody.stderr
    assert table.exit_code == as_json.exit_code == 1
    assert "uplink" in table.stdout
    assert json.loads(as_json.stdout)["gateway"] == "gw-test-1"


def test_check_gives_every_error_and_78_or_a_summary(tmp_path: Path) -> None:
    agent = make_gateway(tmp_path / "gateway", clinic_port=1883)
    good = RUNNER.invoke(app, ["check", str(agent.config), "--json"])
    summary = RUNNER.invoke(app, ["check", str(agent.config)])
    agent.config.write_text(agent.config.read_text().replace("port", "prot"))
    bad = RUNNER.invoke(app, ["check", str(agent.config), "--json"])
    text = RUNNER.invoke(app, ["check", str(agent.config)])

    assert (good.exit_code, summary.exit_code, bad.exit_code, text.exit_code) == (0, 0, 78, 78)
    assert json.loads(good.stdout)["sources"] == ["clinic"]
    assert "is in order" in summary.stdout
    assert len(json.loads(bad.stdout)["errors"]) == 2
    assert "did you mean 'port'?" in text.stderr


def test_the_gateway_process_loads_nothing_of_the_cloud_the_simulator_or_the_console() -> None:
    code = (
        "import sys, edge.cli, edge.service, edge.agent, edge.asking, edge.logs\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )

    loaded = set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())

    assert loaded >= {"edge", "apsw", "paho"}
    assert not loaded & {
        "fastapi",
        "starlette",
        "sqlalchemy",
        "alembic",
        "psycopg",
        "uvicorn",
        "simulator",
        "ingest",
        "dashboards",
        "provisioning",
    }


def test_a_killed_broker_is_waited_for(gateway: tuple[GatewayProcess, Mosquitto]) -> None:
    agent, broker = gateway
    agent.start()
    wait_until(lambda: agent.part("source clinic").get("ok"), 10, "the source")

    broker.kill()
    wait_until(lambda: agent.part("source clinic").get("ok") is False, 10, "shown")
    broker.start()

    wait_until(lambda: agent.part("source clinic").get("ok"), 20, "connected again")
    with suppress(AssertionError), publisher(broker.port) as cooler:
        cooler.wait([cooler.sample()])
    wait_until(lambda: agent.number("source clinic", "acknowledged") == 1, 10, "stored")
