"""Identity: our own certificate authority, who may be called what, and revocation. Not enrolment, and no code reads a request's subject.

    root (path length 1, its key can be taken away) ── server CA (serverAuth only) ── brokers, InfluxDB, console
                                                    └─ client CA (clientAuth only) ── gateways, ingest workers, coolers

A realm is one such tree: ``cloud`` and ``clinic`` never trust each other, so a cooler's certificate opens nothing but its clinic's broker.
Invariant: a leaf's name follows ``name_role``, its use is exactly one of server and client, and everything it may claim was chosen here.
"""

import datetime as dt
import ipaddress
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.clock import Clock
from protocol.topics import is_partition
from protocol.units import is_device_id, is_gateway_id
from provisioning.errors import ProvisioningError
from provisioning.files import PRIVATE_FILE, PUBLIC_FILE, make_private_folder, read_private, write_file

__all__ = ["LEAF_DAYS", "Authority", "Issued", "Realm", "Role", "name_role"]

LEAF_DAYS = 90
"""Life of a leaf; renewal is due at two thirds of it."""
CA_DAYS = 5 * 365  # an issuing authority outlives its leaves many times and is rolled over with an overlap
ROOT_DAYS = 20 * 365  # longer than a machine serves
CRL_DAYS = 30  # an expired list locks every client out of Mosquitto, so it must be renewed well before
BACKDATE = dt.timedelta(minutes=5)  # a gateway whose clock is a little behind must still find its new certificate valid
SERVER_NAMES_MAX = 32  # names and addresses in one server certificate

_DNS_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_ORGANISATION = "Icecap"


class Realm(StrEnum):
    """Which broker a tree of certificates belongs to."""

    CLOUD = "cloud"
    """Gateways and ingest workers meet here."""
    CLINIC = "clinic"
    """Coolers and their gateway meet here."""


class Role(StrEnum):
    """Who a client is; its certificate's name says so."""

    GATEWAY = "gateway"
    INGEST = "ingest"
    COOLER = "cooler"


_ROLES = {Realm.CLOUD: {Role.GATEWAY, Role.INGEST}, Realm.CLINIC: {Role.GATEWAY, Role.COOLER}}


def name_role(name: str) -> Role | None:
    """Return who may be called ``name``: ``gw-…``, ``ingest-p00`` … ``ingest-p15``, or a cooler's serial; ``None`` for all else.

    The libraries accept NUL, line ends, blanks, ``/``, ``+`` and ``#`` in a common name, and the broker puts the name into topics.
    """
    if name.startswith("gw-"):
        return Role.GATEWAY if is_gateway_id(name) else None
    if name.startswith("ingest"):
        return Role.INGEST if name.startswith("ingest-") and is_partition(name.removeprefix("ingest-")) else None
    return Role.COOLER if is_device_id(name) else None


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate with the issuing authority's behind it, and its key; all PEM."""

    name: str
    serial: int
    certificate: bytes
    key: bytes

    def write(self, folder: Path, stem: str) -> tuple[Path, Path]:
        """Write ``stem.crt`` (0644) and ``stem.key`` (0600) into the private ``folder``; return their paths."""
        make_private_folder(folder)
        certificate, key = folder / f"{stem}.crt", folder / f"{stem}.key"
        write_file(key, self.key, mode=PRIVATE_FILE)
        write_file(certificate, self.certificate, mode=PUBLIC_FILE)
        return certificate, key


@dataclass(frozen=True, slots=True)
class _Signer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class _Leaf:
    """What a leaf certificate is about to say."""

    name: str
    usage: x509.ObjectIdentifier
    alternatives: Sequence[x509.GeneralName] = ()


class Authority:
    """One realm's certificates, in one private folder.

    ``root.crt server-ca.crt client-ca.crt`` with their keys, ``issued.jsonl`` (serial, name, end) and ``revoked.jsonl``. ``root.key`` is
    needed by ``create`` only and belongs in a safe.
    """

    __slots__ = ("_client", "_clock", "_root", "_server", "folder", "realm")

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        """Open what ``create`` made. Raises ``ProvisioningError`` when a file is missing, unreadable or a key is open to others."""
        self.folder, self._clock = folder, clock
        self._root = _load_certificate(folder / "root.crt")
        self._server, self._client = _load_signer(folder, "server-ca"), _load_signer(folder, "client-ca")
        self.realm = Realm(str(self._root.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value))

    @classmethod
    def create(cls, folder: Path, *, realm: Realm, clock: Clock) -> "Authority":
        """Make a root and its two issuing authorities in ``folder``. Raises ``ProvisioningError`` when there is one already."""
        if (folder / "root.crt").exists():
            raise ProvisioningError(f"{folder} holds a certificate authority already; a second one would orphan every device of the first")
        make_private_folder(folder)
        now = _moment(clock)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(realm, "root")
        root = _Signer(_ca_builder(name, key, now, ROOT_DAYS, path_length=1).issuer_name(name).sign(key, hashes.SHA256()), key)
        for stem, usage in (("server-ca", ExtendedKeyUsageOID.SERVER_AUTH), ("client-ca", ExtendedKeyUsageOID.CLIENT_AUTH)):
            own = ec.generate_private_key(ec.SECP256R1())
            builder = _ca_builder(_subject(realm, stem), own, now, CA_DAYS, path_length=0).add_extension(
                x509.ExtendedKeyUsage([usage]),
                critical=False,  # as OpenSSL and the public authorities do; OpenSSL refuses a chain through the wrong one either way
            )
            _write_signer(folder, stem, _Signer(_sign(builder, root), own))
        _write_signer(folder, "root", root)  # last: its presence says that the tree is whole
        return cls(folder, clock=clock)

    @property
    def root(self) -> bytes:
        """What every client and server of this realm trusts, PEM."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    @property
    def client_chain(self) -> bytes:
        """The client authority and the root, PEM: the ``cafile`` of a server that wants client certificates."""
        return self._client.certificate.public_bytes(serialization.Encoding.PEM) + self.root

    def issue_server(self, dns: Sequence[str], ips: Sequence[str]) -> Issued:
        """Issue a server certificate for host names and addresses. Raises ``ProvisioningError`` for a name that is none."""
        names = [*dns, *ips]
        if not 0 < len(names) <= SERVER_NAMES_MAX:
            raise ProvisioningError(f"a server certificate holds 1 to {SERVER_NAMES_MAX} names and addresses, not {len(names)}")
        if bad := [name for name in dns if len(name) > 253 or not _DNS_NAME.fullmatch(name)]:
            raise ProvisioningError(f"not host names: {', '.join(map(repr, bad))}")
        try:
            addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ips]
        except ValueError as error:
            raise ProvisioningError(str(error)) from None
        common = names[0] if len(names[0]) <= 64 else "server"  # a common name holds 64 characters; only the alternatives count
        return self._issue(_Leaf(common, ExtendedKeyUsageOID.SERVER_AUTH, [*map(x509.DNSName, dns), *addresses]), self._server)

    def issue_client(self, name: str) -> Issued:
        """Issue a client certificate to a gateway, an ingest worker or a cooler. Raises ``ProvisioningError`` for any other name."""
        role = name_role(name)
        if role is None:
            raise ProvisioningError(f"{name!r} is no gateway (gw-…), no ingest worker (ingest-p00 … ingest-p15) and no serial number")
        if role not in _ROLES[self.realm]:
            raise ProvisioningError(f"{name!r} is a {role}, which has no business on the {self.realm} broker")
        return self._issue(_Leaf(name, ExtendedKeyUsageOID.CLIENT_AUTH), self._client)

    def revoke(self, name: str) -> int:
        """Revoke every certificate of ``name`` that is still valid and return how many; ``crl`` carries them from then on."""
        now = _moment(self._clock)
        revoked = {entry.serial for entry in self._entries("revoked.jsonl")}
        found = [one for one in self._entries("issued.jsonl") if one.name == name and one.serial not in revoked and one.end > now]
        self._append("revoked.jsonl", (_Entry(one.serial, one.name, now) for one in found))
        return len(found)

    def crl(self) -> bytes:
        """Return the client authority's revocation list, PEM, valid for ``CRL_DAYS``."""
        now = _moment(self._clock)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._client.certificate.subject)
        builder = builder.last_update(now - BACKDATE).next_update(now + dt.timedelta(days=CRL_DAYS))
        for entry in self._entries("revoked.jsonl"):
            one = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.end).build()
            builder = builder.add_revoked_certificate(one)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._client.key.public_key())
        number = x509.CRLNumber(int(now.timestamp()))
        builder = builder.add_extension(issuer, critical=False).add_extension(number, critical=False)
        return builder.sign(self._client.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def write_crl(self, path: Path) -> None:
        """Replace ``path`` by the current list: built, read back and checked before the rename, for a broker given rubbish has no list."""
        data = self.crl()
        if not x509.load_pem_x509_crl(data).is_signature_valid(self._client.key.public_key()):
            raise ProvisioningError("the new revocation list does not verify; the old one stays")
        write_file(path, data, mode=PUBLIC_FILE)

    def _issue(self, leaf: _Leaf, signer: _Signer) -> Issued:
        now = _moment(self._clock)
        key = ec.generate_private_key(ec.SECP256R1())
        end = now + dt.timedelta(days=LEAF_DAYS)
        builder = _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.name)]), key, now - BACKDATE, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([leaf.usage]), critical=True)
        if leaf.alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(leaf.alternatives), critical=False)
        certificate = _sign(builder, signer)
        self._append("issued.jsonl", [_Entry(certificate.serial_number, leaf.name, end)])
        chain = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (certificate, signer.certificate))
        return Issued(leaf.name, certificate.serial_number, chain, _key_pem(key))

    def _entries(self, file_name: str) -> "list[_Entry]":
        path = self.folder / file_name
        return [_Entry.parse(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _append(self, file_name: str, entries: "Iterable[_Entry]") -> None:
        path = self.folder / file_name
        before = path.read_bytes() if path.exists() else b""
        write_file(path, before + b"".join(entry.line() for entry in entries), mode=PRIVATE_FILE)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a list of certificates; ``end`` is the end of validity, or the moment of revocation."""

    serial: int
    name: str
    end: dt.datetime

    @classmethod
    def parse(cls, line: str) -> "_Entry":
        fields = json.loads(line)
        return cls(int(fields["serial"], 16), fields["name"], dt.datetime.fromisoformat(fields["end"]))

    def line(self) -> bytes:
        return json.dumps({"serial": f"{self.serial:x}", "name": self.name, "end": self.end.isoformat()}).encode() + b"\n"


def _moment(clock: Clock) -> dt.datetime:
    return dt.datetime.fromtimestamp(clock.wall_ms() // 1000, tz=dt.UTC)  # certificates hold whole seconds


def _subject(realm: Realm, what: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, _ORGANISATION), (NameOID.ORGANIZATIONAL_UNIT_NAME, realm.value), (NameOID.COMMON_NAME, what))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, start: dt.datetime, end: dt.datetime) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _ca_builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime, days: int, *, path_length: int
) -> x509.CertificateBuilder:
    builder = _builder(subject, key, now - BACKDATE, now + dt.timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_key_usage(ca=True), critical=True)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, signer: _Signer) -> x509.Certificate:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    return builder.issuer_name(signer.certificate.subject).add_extension(issuer, critical=False).sign(signer.key, hashes.SHA256())


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write_signer(folder: Path, stem: str, signer: _Signer) -> None:
    write_file(folder / f"{stem}.key", _key_pem(signer.key), mode=PRIVATE_FILE)
    write_file(folder / f"{stem}.crt", signer.certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC_FILE)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise ProvisioningError(f"{path} is missing; make an authority with: icecap provision ca {path.parent}") from None
    except ValueError as error:
        raise ProvisioningError(f"{path} is not a certificate: {error}") from None


def _load_signer(folder: Path, stem: str) -> _Signer:
    certificate = _load_certificate(folder / f"{stem}.crt")
    key = serialization.load_pem_private_key(read_private(folder / f"{stem}.key"), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ProvisioningError(f"{folder / stem}.key does not belong to {stem}.crt")
    return _Signer(certificate, key)
