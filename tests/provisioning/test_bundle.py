import gzip
import io
import stat
import tarfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import ManualClock
from protocol.units import DeviceId, GatewayId
from provisioning import toml
from provisioning.bundle import BUNDLE_BYTES_MAX, Endpoint, GatewayPlan, configuration, files_of, pack, unpack
from provisioning.errors import ProvisioningError
from provisioning.identity import Authority, Realm

GATEWAY = GatewayId("gw-1")


@pytest.fixture
def cloud(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "cloud", realm=Realm.CLOUD, clock=ManualClock())


@pytest.fixture
def clinic(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "clinic", realm=Realm.CLINIC, clock=ManualClock())


def plan(**changes: object) -> GatewayPlan:
    values = {
        "gateway": GATEWAY,
        "site": "clinic-a",
        "cloud": Endpoint("mqtt.example.org"),
        "clinic": Endpoint("127.0.0.1", 18883),
        "coolers": {DeviceId("cooler-0001"): "icecap-cooler", DeviceId("cooler-0002"): "icecap-cooler"},
        "data_dir": Path("data"),
        "health_socket": Path("edge.sock"),
    }
    return GatewayPlan(**{**values, **changes})


def test_an_unpacked_bundle_is_a_configuration_that_the_gateway_accepts(tmp_path, cloud, clinic):
    edge_config = pytest.importorskip("edge.config", reason="the gateway is not installed")
    archive = tmp_path / "gw-1.tar.gz"
    archive.write_bytes(pack(files_of(plan(), cloud=cloud, clinic=clinic), wall_ms=0))

    paths = unpack(archive, tmp_path / "etc")

    config = edge_config.load(tmp_path / "etc" / "edge.toml")
    assert config.gateway == GATEWAY
    assert set(config.devices) == {"cooler-0001", "cooler-0002"}
    assert config.cloud.key == tmp_path / "etc" / "cloud.key"
    assert config.mqtt[0].topic[0].filter == "coolers/+/telemetry"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths} == {
        "edge.toml": 0o644,
        "cloud-ca.crt": 0o644,
        "cloud.crt": 0o644,
        "cloud.key": 0o600,
        "clinic-ca.crt": 0o644,
        "clinic.crt": 0o644,
        "clinic.key": 0o600,
    }


def test_a_gateway_without_mqtt_coolers_gets_no_clinic_certificate(cloud):
    files = files_of(plan(clinic=None), cloud=cloud, clinic=None)

    assert set(files) == {"edge.toml", "cloud-ca.crt", "cloud.crt", "cloud.key"}
    assert "source" not in tomllib.loads(files["edge.toml"].decode())


@pytest.mark.parametrize("with_endpoint", [True, False])
def test_a_clinic_broker_and_its_authority_come_together_or_not_at_all(cloud, clinic, with_endpoint):
    with pytest.raises(ProvisioningError, match="belong together"):
        files_of(plan() if with_endpoint else plan(clinic=None), cloud=cloud, clinic=None if with_endpoint else clinic)


def test_further_tables_reach_the_configuration():
    text = configuration(plan(tables={"clock": {"kind": "scaled", "scale": 60, "origin_ns": 1, "start_wall_ms": 2}}))

    assert tomllib.loads(text)["clock"] == {"kind": "scaled", "scale": 60, "origin_ns": 1, "start_wall_ms": 2}


def member(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


WHOLE = [member(name) for name in ("edge.toml", "cloud-ca.crt", "cloud.crt", "cloud.key")]


@pytest.mark.parametrize(
    "evil",
    [
        member("../edge.toml"),
        member("/etc/passwd"),
        member("cron.sh"),
        member("edge.toml"),  # a second one
        member("clinic.key", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("clinic.key", b"", type=tarfile.LNKTYPE, linkname="cloud.key"),
        member("clinic.key", b"", type=tarfile.FIFOTYPE),
        member("clinic.key", b"", type=tarfile.DIRTYPE),
        member("clinic.crt", bytes(BUNDLE_BYTES_MAX + 1)),
    ],
)
def test_an_archive_with_anything_else_in_it_writes_nothing(tmp_path, evil):
    archive = archive_of(tmp_path / "evil.tar.gz", [*WHOLE, evil])

    with pytest.raises(ProvisioningError):
        unpack(archive, tmp_path / "etc")

    assert not (tmp_path / "etc").exists()


def test_the_same_archive_without_the_evil_member_is_accepted(tmp_path):
    assert len(unpack(archive_of(tmp_path / "good.tar.gz", WHOLE), tmp_path / "etc")) == len(WHOLE)


@pytest.mark.parametrize("data", [b"", b"noise" * 100, gzip.compress(b"noise" * 300)], ids=lambda noise: f"{len(noise)} bytes")
def test_noise_is_no_bundle(tmp_path, data):
    path = tmp_path / "noise"
    path.write_bytes(data)

    with pytest.raises(ProvisioningError, match="not a"):
        unpack(path, tmp_path / "etc")


def test_a_truncated_bundle_writes_nothing(tmp_path, cloud, clinic):
    data = pack(files_of(plan(), cloud=cloud, clinic=clinic), wall_ms=0)
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])

    with pytest.raises(ProvisioningError):
        unpack(path, tmp_path / "etc")

    assert not (tmp_path / "etc").exists()


def test_modes_in_the_archive_cannot_open_a_key(tmp_path):
    loose = [member(info.name, data, mode=0o4777) for info, data in WHOLE]

    unpack(archive_of(tmp_path / "loose.tar.gz", loose), tmp_path / "etc")

    assert stat.S_IMODE((tmp_path / "etc" / "cloud.key").stat().st_mode) == 0o600


def test_a_bundle_packs_no_foreign_file():
    with pytest.raises(ProvisioningError, match=r"root\.key"):
        pack({"root.key": b"x"}, wall_ms=0)


scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text())


@given(st.dictionaries(st.text(min_size=1), scalars), st.lists(st.dictionaries(st.text(min_size=1), scalars), min_size=1, max_size=3))
def test_what_is_written_as_toml_reads_back(values, rows):
    assert tomllib.loads(toml.table("a", values) + toml.array_tables("b", rows)) == {"a": values, "b": rows}
