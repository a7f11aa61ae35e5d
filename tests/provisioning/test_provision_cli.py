import stat
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner, Result

from provisioning import registry
from provisioning.broker import INGEST_NAMES
from provisioning.cli import app
from tests.support.mtls import Credentials, connected
from tests.support.services import HOST, Mosquitto, free_port, port_is_open


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.service
def test_the_commands_alone_set_up_a_broker_that_a_gateway_and_a_worker_can_use(require, tmp_path):
    executable = require("mosquitto")
    port = free_port()

    run("ca", tmp_path / "cloud")
    run(
        "broker",
        "--ca",
        tmp_path / "cloud",
        "--out",
        tmp_path / "broker",
        "--host",
        HOST,
        "--port",
        port,
        "--dns",
        "localhost",
        "--ip",
        HOST,
    )
    run("ingest", "--ca", tmp_path / "cloud", "--out", tmp_path / "ingest")
    run("bundle", "gw-1", "--site", "clinic-a", "--cloud-ca", tmp_path / "cloud", "--cloud-host", HOST, "--out", tmp_path / "gw-1.tar.gz")
    run("unpack", tmp_path / "gw-1.tar.gz", tmp_path / "etc")

    assert len(list((tmp_path / "ingest").glob("*.key"))) == len(INGEST_NAMES)
    assert stat.S_IMODE((tmp_path / "gw-1.tar.gz").stat().st_mode) == 0o600
    # As root, Mosquitto becomes the account "mosquitto", which cannot enter pytest's private folders; the words on the command line can.
    configuration = tmp_path / "broker" / "mosquitto.conf"
    configuration.write_text(configuration.read_text().replace("user mosquitto", "user root"))
    broker = Mosquitto("broker", [str(executable), "-c", str(configuration)], tmp_path / "log", lambda: port_is_open(port), port=port)
    broker.start()
    try:
        etc = tmp_path / "etc"
        with connected(port, Credentials(etc / "cloud-ca.crt", etc / "cloud.crt", etc / "cloud.key")) as gateway:
            assert gateway.publish("icecap/v1/p00/gw-2/t", b"x") == 0x87
        ingest = tmp_path / "ingest"
        with connected(port, Credentials(ingest / "ca.crt", ingest / "ingest-p00.crt", ingest / "ingest-p00.key")) as worker:
            assert worker.subscribe("icecap/v1/p00/+/+") < 0x80
    finally:
        broker.stop()


def test_revoking_a_name_writes_it_into_the_list(tmp_path):
    run("ca", tmp_path / "ca")
    run("client", "gw-1", "--ca", tmp_path / "ca", "--out", tmp_path / "out")
    run("crl", "--ca", tmp_path / "ca", "--out", tmp_path / "revoked.crl")
    before = (tmp_path / "revoked.crl").read_bytes()

    result = run("revoke", "gw-1", "--ca", tmp_path / "ca", "--crl", tmp_path / "revoked.crl")

    assert "revoked 1" in result.output
    assert (tmp_path / "revoked.crl").read_bytes() != before


@pytest.mark.parametrize(
    "words",
    [
        ("client", "gw-1", "--ca", "nowhere", "--out", "out"),
        ("unpack", "nowhere.tar.gz", "out"),
        ("gateway", "gw-1", "--site", "clinic-a", "--database", "sqlite:///nowhere/x.db"),
    ],
)
def test_what_a_person_can_mend_is_one_red_line(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)

    result = run(*words, code=1)

    assert "Traceback" not in result.output
    assert "nowhere" in result.output or "unable to open" in result.output


def test_sites_gateways_and_coolers_are_registered(tmp_path):
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    engine = create_engine(url)
    registry.metadata.create_all(engine)

    run("site", "clinic-a", "--title", "Clinic A", "--database", url)
    run("gateway", "gw-1", "--site", "clinic-a", "--database", url)
    run("cooler", "cooler-0001", "--gateway", "gw-1", "--database", url)
    run("gateway", "gw-1", "--site", "clinic-a", "--database", url, code=1)

    with engine.connect() as connection:
        assert [(one.serial, one.site) for one in registry.devices(connection)] == [("cooler-0001", "clinic-a")]
    engine.dispose()


def test_every_command_explains_itself():
    for command in ("ca", "broker", "client", "ingest", "revoke", "crl", "bundle", "unpack", "site", "gateway", "cooler"):
        assert "Usage" in run(command, "--help").output


def test_a_folder_given_twice_is_not_overwritten(tmp_path: Path):
    run("ca", tmp_path / "ca")

    assert "already" in run("ca", tmp_path / "ca", code=1).output
