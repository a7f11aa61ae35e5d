"""A configuration is judged whole: every error in one answer, files included, before anything opens."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import config
from edge.config import ConfigError
from protocol.profile import builtin

BASE = """
gateway = "gw-demo-1"
site = "clinic-a"
data_dir = "data"
[cloud]
host = "cloud.example"
ca = "ca.pem"
cert = "gw.pem"
key = "gw.key"
[[device]]
serial = "cooler-0001"
[[source.mqtt]]
host = "127.0.0.1"
port = 1883
plaintext = true
[[source.mqtt.topic]]
filter = "coolers/+/telemetry"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ca.pem", "gw.pem", "gw.key"):
        (tmp_path / name).write_text("pem")
    (tmp_path / "gw.key").chmod(0o600)
    return tmp_path


def errors_of(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text.encode(), folder)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return caught.value.errors


def test_a_good_file_gives_absolute_paths_and_profiles(folder: Path) -> None:
    (folder / "edge.toml").write_text(BASE)

    good = config.load(folder / "edge.toml")

    assert good.gateway == "gw-demo-1"
    assert good.data_dir == folder / "data"
    assert good.cloud.key == folder / "gw.key"
    assert good.devices == {"cooler-0001": builtin("icecap-cooler")}
    assert good.outbox.commit_interval_ms == 200
    assert good.mqtt[0].topic[0].format == "json"


def test_every_error_comes_at_once_with_its_key(folder: Path) -> None:
    (folder / "gw.key").chmod(0o640)
    (folder / "ca.pem").unlink()
    text = """
gatway = "typo"
gateway = "GW 1"
site = "Clinic A"
data_dir = "data"
[cloud]
host = "cloud.example"
port = 70000
ca = "ca.pem"
cert = "gw.pem"
key = "gw.key"
[outbox]
commit_interval_ms = 5000
[[device]]
serial = "X"
[[device]]
serial = "cooler-0001"
profile = "no-such"
[[source.mqtt]]
host = "10.0.0.1"
plaintext = true
[[source.mqtt.topic]]
filter = "coolers/#/telemetry"
format = "xml"
"""

    found = "\n".join(errors_of(text, folder))

    for expected in (
        "gatway: unknown key; did you mean 'gateway'?",
        "gateway: 'GW 1' is not",
        "site: 'Clinic A' is not",
        "cloud.port: Expected `int` <= 65535",
        f"cloud: ca: {folder}/ca.pem is not a file",
        f"cloud: key: {folder}/gw.key has mode 0640; others can read it: chmod 600",
        "outbox.commit_interval_ms: Expected `int` <= 1000",
        "device[0]: serial: 'X'",
        "device[1].profile: no profile 'no-such'",
        "source.mqtt[0].topic[0].format: Invalid enum value 'xml'",
        "source.mqtt[0].topic[0]: filter: 'coolers/#/telemetry' is not an MQTT topic filter",
        "source.mqtt[0]: plaintext: only for a broker on this machine",
    ):
        assert expected in found, found


def test_a_missing_table_does_not_hide_errors_in_its_neighbours(folder: Path) -> None:
    (folder / "gw.key").chmod(0o644)

    found = errors_of(BASE.replace('gateway = "gw-demo-1"\n', ""), folder)

    assert "gateway: missing" in found
    assert any("others can read it" in one for one in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("plaintext = true", ""), "ca: missing"),
        (("plaintext = true", 'plaintext = true\nca = "ca.pem"'), "contradicts ca"),
        (("plaintext = true", 'ca = "ca.pem"\ncert = "gw.pem"'), "one without the other"),
        (("[[source.mqtt.topic]]", "[[source.mqtt.topic]]\nserial_level = 7"), "has levels 0 to 2"),
        (("[[source.mqtt.topic]]", '[[source.mqtt.topic]]\nfields = {flux = "f"}'), "no profile here has a channel 'flux'"),
        (('serial = "cooler-0001"', 'serial = "cooler-0001"\n[[device]]\nserial = "cooler-0001"'), "is there twice"),
        (('data_dir = "data"', 'data_dir = "ca.pem/data"'), "data_dir"),
        (("[[device]]", "[[profile]]\nfile = 'absent.toml'\n[[device]]"), "absent.toml is not a file"),
        (("[[device]]", "[outbox]\nseal_age_s_session = 900\n[[device]]"), "must not be above seal_age_s_idle"),
        (("[[device]]", "device = 3\n[x]"), "unknown key"),
    ],
)
def test_each_rule_is_told_by_name(folder: Path, change: tuple[str, str], expected: str) -> None:
    assert any(expected in one for one in errors_of(BASE.replace(*change, 1), folder))


def test_no_source_at_all_is_an_error(folder: Path) -> None:
    assert any("source: there is none" in one for one in errors_of(BASE[: BASE.index("[[source")], folder))


def test_the_digest_follows_the_meaning_not_the_spelling(folder: Path) -> None:
    first = config.parse(BASE.encode(), folder)
    same = config.parse(("# a comment\n" + BASE.replace("port = 1883", "port=0x75b")).encode(), folder)
    other = config.parse(BASE.replace("coolers/+/telemetry", "fleet/+/telemetry").encode(), folder)

    assert first.digest == same.digest
    assert first.digest != other.digest
    assert first == same


def test_a_changed_site_profile_changes_the_digest(folder: Path) -> None:
    profile = (
        'id = "rig"\nversion = 1\nmodel = "Rig"\nmaker = "Lab"\ncircuits = 1\n'
        '[[channel]]\nname = "flow"\nunit = "l/min"\nrole = "flow"\ndecimals = 2\nlo = 0.0\nhi = 9.0\n'
    )
    text = BASE.replace("[[device]]", '[[profile]]\nfile = "rig.toml"\n[[device]]\nprofile = "rig"')
    (folder / "rig.toml").write_text(profile)
    first = config.parse(text.encode(), folder)

    (folder / "rig.toml").write_text(profile.replace("hi = 9.0", "hi = 8.0"))

    assert first.devices["cooler-0001"].id == "rig"  # type: ignore[index]
    assert config.parse(text.encode(), folder).digest != first.digest


def test_a_bad_site_profile_reports_its_own_errors(folder: Path) -> None:
    (folder / "rig.toml").write_text('id = "rig"\nversion = 0\nmodel = "Rig"\nmaker = "Lab"\ncircuits = 1\nchannel = []\n')

    found = errors_of(BASE.replace("[[device]]", '[[profile]]\nfile = "rig.toml"\n[[device]]'), folder)

    assert any("version must be 1 to 65535" in one and "profile[0]" in one for one in found)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"gateway = ", b"x" * 1_048_577], ids=["not text", "not TOML", "too long"])
def test_what_is_no_configuration_is_refused(folder: Path, text: bytes) -> None:
    with pytest.raises(ConfigError):
        config.parse(text, folder)


def test_an_absent_file_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "absent.toml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["gateway", "cloud", "source", "mqtt", "x"]), inner),
        max_leaves=12,
    )
)
def test_any_table_is_filled_or_refused(value: object) -> None:
    from edge.settings import Document
    from edge.shape import Shaper

    shaper = Shaper(lambda _table, _where: [])

    assert shaper.fill(Document, value) is None
    assert shaper.errors
