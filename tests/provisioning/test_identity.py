import datetime as dt
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import ManualClock
from provisioning.errors import ProvisioningError
from provisioning.files import read_private, write_file
from provisioning.identity import LEAF_DAYS, Authority, Issued, Realm, Role, name_role
from tests.support.mtls import CLOCK

DAY_MS = 86_400_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cloud(tmp_path: Path, clock: ManualClock) -> Authority:
    return Authority.create(tmp_path / "cloud", realm=Realm.CLOUD, clock=clock)


def leaf(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("gw-a", Role.GATEWAY),
        ("gw-" + "a" * 29, Role.GATEWAY),
        ("ingest-p00", Role.INGEST),
        ("ingest-p15", Role.INGEST),
        ("cooler-0001", Role.COOLER),
    ],
)
def test_names_say_who_somebody_is(name, role):
    assert name_role(name) is role


@pytest.mark.parametrize(
    "name",
    [
        *("", "gw-", "gw-" + "a" * 30, "gw-A", "gw-é", "ingest", "ingest-p16", "ingest-p1", "ingest-x", "ingester"),
        *("+", "#", "a/b", "gw-1/#", "gw-\x00", "gw-1\n", " gw-1", "x" * 33, "Cooler-1", "gw-1\u0661"),
    ],
)
def test_names_that_could_cross_into_a_topic_are_refused(cloud, name):
    assert name_role(name) is None
    with pytest.raises(ProvisioningError):
        cloud.issue_client(name)


@given(st.text(max_size=40))
def test_an_accepted_name_holds_only_harmless_characters(name):
    if name_role(name) is not None:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(("realm", "name"), [(Realm.CLOUD, "cooler-0001"), (Realm.CLINIC, "ingest-p07")])
def test_a_realm_issues_only_to_those_who_meet_there(tmp_path, clock, realm, name):
    authority = Authority.create(tmp_path / "ca", realm=realm, clock=clock)

    with pytest.raises(ProvisioningError, match="no business"):
        authority.issue_client(name)


def test_a_client_certificate_is_for_clients_only_and_lives_ninety_days(cloud, clock):
    certificate = leaf(cloud.issue_client("gw-1").certificate)

    assert certificate.subject.rfc4514_string() == "CN=gw-1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert list(usage.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.not_valid_after_utc == dt.datetime.fromtimestamp(clock.wall_ms() / 1000, dt.UTC) + dt.timedelta(days=LEAF_DAYS)
    assert certificate.not_valid_before_utc < dt.datetime.fromtimestamp(clock.wall_ms() / 1000, dt.UTC)


def test_a_server_certificate_is_for_servers_only_and_carries_names_and_addresses(cloud):
    certificate = leaf(cloud.issue_server(["mqtt.example.org", "localhost"], ["127.0.0.1", "::1"]).certificate)

    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mqtt.example.org", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("names", [([], []), (["a b"], []), (["-x"], []), ([], ["300.1.1.1"]), (["a\x00.b"], []), (["x"] * 33, [])])
def test_a_server_certificate_for_no_real_name_is_refused(cloud, names):
    with pytest.raises(ProvisioningError):
        cloud.issue_server(*names)


def test_the_tree_has_a_root_of_path_length_one_and_authorities_that_end_there(cloud):
    limits = {
        stem: x509.load_pem_x509_certificate((cloud.folder / f"{stem}.crt").read_bytes())
        .extensions.get_extension_for_class(x509.BasicConstraints)
        .value.path_length
        for stem in ("root", "server-ca", "client-ca")
    }

    assert limits == {"root": 1, "server-ca": 0, "client-ca": 0}


def test_issuing_needs_no_root_key(cloud, clock):
    (cloud.folder / "root.key").unlink()

    reopened = Authority(cloud.folder, clock=clock)

    assert reopened.realm is Realm.CLOUD
    assert reopened.issue_client("gw-1").name == "gw-1"


def test_a_second_authority_in_the_same_folder_is_refused(cloud, clock):
    root = cloud.root

    with pytest.raises(ProvisioningError, match="already"):
        Authority.create(cloud.folder, realm=Realm.CLOUD, clock=clock)

    assert Authority(cloud.folder, clock=clock).root == root


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_keys_are_private_whatever_the_umask(tmp_path, clock, umask):
    before = os.umask(umask)
    try:
        authority = Authority.create(tmp_path / "ca", realm=Realm.CLOUD, clock=clock)
        certificate, key = authority.issue_client("gw-1").write(tmp_path / "gateway", "gw-1")
    finally:
        os.umask(before)

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (authority.folder, tmp_path / "gateway", certificate, key)}
    assert modes == {authority.folder: 0o700, tmp_path / "gateway": 0o700, certificate: 0o644, key: 0o600}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in authority.folder.glob("*.key"))
    assert not list(authority.folder.glob(".*"))


def test_an_authority_whose_key_others_may_read_does_not_open(cloud, clock):
    (cloud.folder / "client-ca.key").chmod(0o640)

    with pytest.raises(ProvisioningError, match="may be read by others"):
        Authority(cloud.folder, clock=clock)


def test_a_key_of_another_authority_is_noticed(cloud, clock):
    write_file(cloud.folder / "client-ca.key", read_private(cloud.folder / "server-ca.key"), mode=0o600)

    with pytest.raises(ProvisioningError, match="does not belong"):
        Authority(cloud.folder, clock=clock)


def test_a_missing_authority_says_how_to_make_one(tmp_path, clock):
    with pytest.raises(ProvisioningError, match="icecap provision ca"):
        Authority(tmp_path, clock=clock)


def test_a_torn_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "client.key"
    write_file(path, b"old", mode=0o600)

    def power_cut(*_args: object) -> None:
        raise OSError("power")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(OSError, match="power"):
        write_file(path, b"new", mode=0o600)
    monkeypatch.undo()

    assert path.read_bytes() == b"old"
    write_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"


def test_revocation_lists_every_living_certificate_of_a_name_once(cloud, clock):
    first, second, other = cloud.issue_client("gw-1"), cloud.issue_client("gw-1"), cloud.issue_client("gw-2")

    assert cloud.revoke("gw-1") == 2
    assert cloud.revoke("gw-1") == 0

    listed = {entry.serial_number for entry in x509.load_pem_x509_crl(Authority(cloud.folder, clock=clock).crl())}
    assert listed == {first.serial, second.serial}
    assert other.serial not in listed


def test_an_expired_certificate_needs_no_revocation(cloud, clock):
    cloud.issue_client("gw-1")
    clock.advance((LEAF_DAYS + 1) * DAY_MS)

    assert cloud.revoke("gw-1") == 0


def test_a_revocation_list_is_signed_by_the_client_authority_and_ends(cloud, clock):
    cloud.write_crl(cloud.folder / "revoked.crl")

    crl = x509.load_pem_x509_crl((cloud.folder / "revoked.crl").read_bytes())
    issuer = x509.load_pem_x509_certificate((cloud.folder / "client-ca.crt").read_bytes())
    assert crl.is_signature_valid(issuer.public_key())
    assert crl.next_update_utc is not None
    assert dt.timedelta(days=29) < crl.next_update_utc - dt.datetime.fromtimestamp(clock.wall_ms() / 1000, dt.UTC) < dt.timedelta(days=31)


def test_a_client_certificate_cannot_pose_as_a_server(tmp_path):
    """A gateway that stands up a broker of its own must not catch the others."""
    authority = Authority.create(tmp_path / "ca", realm=Realm.CLOUD, clock=CLOCK)
    client = ssl.create_default_context(cadata=authority.root.decode())
    client.check_hostname = False  # only the use may be what is wrong
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    handshake(client, server_context(authority.issue_server(["localhost"], []), tmp_path))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|unsuitable"):
        handshake(client, server_context(authority.issue_client("gw-1"), tmp_path))


def server_context(issued: Issued, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued.write(folder / "server", issued.name))
    return context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = [False, False]
    for _ in range(10):
        for index, end in enumerate(ends):
            try:
                end.do_handshake()
                done[index] = True
            except ssl.SSLWantReadError:
                continue
    assert all(done)
