from pathlib import Path

import pytest

from ingest.config import ConfigError, load, parse
from ingest.service import make_clock
from protocol.clock import ClockQuality, ScaledClock

LOOPBACK = 'database = "sqlite:////tmp/x.db"\n[broker]\nhost = "127.0.0.1"\nport = 1883\n'


def errors_of(text: str, folder: Path, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, folder=folder, environment=environment or {})
    return caught.value.errors


def test_the_shortest_configuration_has_every_default(tmp_path: Path) -> None:
    config = parse(LOOPBACK, folder=tmp_path, environment={})

    assert config.partitions == tuple(f"p{number:02d}" for number in range(16))
    assert (config.broker.ca, config.broker.keepalive_s, config.broker.receive_maximum) == (None, 20, 64)
    assert (config.influx, config.health_socket, config.rollup) == (None, None, True)
    assert config.clock.kind == "machine"


def test_every_error_is_reported_at_once(tmp_path: Path) -> None:
    text = """
database = "mysql://x/y"
partitions = ["p00", "p99"]
rollup = "yes"
colour = "blue"
[clock]
kind = "scaled"
scale = 0
[broker]
host = "broker.example"
port = 99999
keepalive_s = "long"
receive_maximum = 0
hots = "typo"
[influx]
url = "ftp://x"
bucket = "b"
token_env = "NOT_THERE"
ca = "nowhere.crt"
[health]
socket = 5
[[profile]]
file = "missing.toml"
"""

    found = "\n".join(errors_of(text, tmp_path))

    for part in (
        "database: database address: mysql",
        "partitions:",
        "rollup:",
        "colour: unknown key",
        "clock.scale",
        "broker.keepalive_s",
        "broker.hots: unknown key",
        "influx.url",
        "influx.token_env: the environment has no NOT_THERE",
        "influx.ca: there is no file",
        "health.socket",
        "profile[0].file: there is no file",
    ):
        assert part in found


def test_bounds_of_the_broker_are_checked(tmp_path: Path) -> None:
    text = LOOPBACK.replace("1883", "0") + "receive_maximum = 5000\nkeepalive_s = 1\n"

    found = errors_of(text, tmp_path)

    assert found == [
        "broker.port: 0 is not 1 to 65535",
        "broker.keepalive_s: 1 is not 5 to 120",
        "broker.receive_maximum: 5000 is not 1 to 1000",
    ]


def test_a_broker_elsewhere_needs_tls_with_a_certificate_for_each_partition(tmp_path: Path) -> None:
    (tmp_path / "root.crt").write_text("x")
    plain = LOOPBACK.replace("127.0.0.1", "broker.example")

    assert any("plain text" in one for one in errors_of(plain, tmp_path))
    assert "broker: ca and cert_dir belong together" in errors_of(plain + 'ca = "root.crt"\n', tmp_path)
    missing = errors_of('partitions = ["p07"]\n' + plain + 'ca = "root.crt"\ncert_dir = "certs"\n', tmp_path)
    assert [one.rsplit("/", 1)[1] for one in missing] == ["ingest-p07.crt", "ingest-p07.key"]


def test_secrets_come_from_the_environment_and_do_not_show(tmp_path: Path) -> None:
    text = LOOPBACK + '[influx]\nurl = "http://x"\nbucket = "b"\ntoken_env = "TOKEN"\n'

    config = parse(text, folder=tmp_path, environment={"TOKEN": "hush"})

    assert config.influx is not None
    assert config.influx.token == "hush"
    assert "hush" not in repr(config)


def test_a_sites_profiles_are_found_by_version(tmp_path: Path) -> None:
    body = (
        'maker = "m"\nmodel = "x"\ncircuits = 1\n[[channel]]\nname = "coolant"\nunit = "degC"\nrole = "coolant_temp"\nlo = -20\nhi = 40\n'
    )
    for version in (1, 2):
        (tmp_path / f"v{version}.toml").write_text(f'id = "site-cooler"\nversion = {version}\n' + body)
    listed = '[[profile]]\nfile = "v1.toml"\n[[profile]]\nfile = "v2.toml"\n'

    profiles = parse(LOOPBACK + listed, folder=tmp_path, environment={}).profiles

    assert [found and found.version for found in (profiles.find("site-cooler", 1), profiles.find("site-cooler", 2))] == [1, 2]
    assert profiles.find("site-cooler", 3) is None
    assert profiles.latest("site-cooler") == profiles.find("site-cooler", 2)
    assert profiles.latest("icecap-cooler") is not None
    twice = errors_of(LOOPBACK + listed + '[[profile]]\nfile = "v1.toml"\n', tmp_path)
    assert twice == ["profile[2].file: site-cooler version 1 is named twice"]


def test_a_scaled_clock_says_that_it_is_one(tmp_path: Path) -> None:
    text = LOOPBACK + '[clock]\nkind = "scaled"\nscale = 60\norigin_ns = 5\nstart_wall_ms = 1000\n'

    clock = make_clock(parse(text, folder=tmp_path, environment={}).clock)

    assert isinstance(clock, ScaledClock)
    assert (clock.scale, clock.origin_ns, clock.start_wall_ms, clock.quality()) == (60, 5, 1000, ClockQuality.RELATIVE)


@pytest.mark.parametrize("text", ["database =", "a = 1\na = 2"])
def test_text_that_is_no_toml_is_one_error(tmp_path: Path, text: str) -> None:
    assert len(errors_of(text, tmp_path)) == 1


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "bad.toml")
