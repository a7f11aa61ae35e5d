"""Broker: ``mosquitto.conf`` and the access list of the two brokers there are, and the folder that holds them. It starts nothing.

Works on Mosquitto 2.0.11 (Debian 12) and later. Invariant: who somebody is comes from the certificate alone (its common name is user
name and client id), and nobody may write under another's name.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from protocol.topics import PARTITIONS, ROOT, Leaf
from protocol.units import GatewayId
from provisioning.errors import ProvisioningError
from provisioning.files import PUBLIC_FILE, make_private_folder, write_file
from provisioning.identity import Authority, Realm

__all__ = ["COOLER_ROOT", "INGEST_NAMES", "PACKET_BYTES_MAX", "Broker", "BrokerFolder", "access_list", "configuration", "write_broker"]

COOLER_ROOT = "coolers"
"""On a clinic's broker a cooler writes below ``coolers/{serial}/``."""

INGEST_NAMES = tuple(f"ingest-p{number:02d}" for number in range(PARTITIONS))
"""One certificate a partition: with the certificate's name as client id, a worker opens one session for each partition it holds."""

PACKET_BYTES_MAX = 262_144  # a frame (protocol.frame.FRAME_BYTES_MAX) and its MQTT head
QUEUED_MESSAGES_MAX = 100_000_000
"""In effect none: bytes are what bounds a queue. Mosquitto's default of 1,000 drops in silence and tells the publisher Success; its word
for no bound, 0, makes 2.0.11 close the connection of whoever publishes what the access list refuses."""
QUEUED_BYTES_MAX = 512 * 1024 * 1024  # of one sleeping client; beyond it the broker drops in silence, which receipts repair
INFLIGHT_MAX = 1_000  # Receive Maximum in CONNACK; the default of 20 lets a worker that commits in batches starve
KEEPALIVE_S_MAX = 120  # a dead peer is noticed within 1.5 times this
AUTOSAVE_S = 30  # the broker is a wire, not a store: this only makes resending after its crash rarer
SESSION_LIFE = "14d"  # a worker that stays away longer starts anew; what was unreceipted comes again from the gateways


@dataclass(frozen=True, slots=True)
class Broker:
    """What differs from one broker to the next; ``user`` is the account it changes to when it is started as root."""

    host: str
    port: int
    user: str = "mosquitto"


@dataclass(frozen=True, slots=True)
class BrokerFolder:
    """Where a broker's files lie; absolute, for Mosquitto reads them from its own working directory."""

    folder: Path

    @property
    def configuration(self) -> Path:
        """``mosquitto -c`` of this."""
        return self.folder / "mosquitto.conf"

    @property
    def access_list(self) -> Path:
        """Who may do what."""
        return self.folder / "access.acl"

    @property
    def revoked(self) -> Path:
        """The revocation list; replace it, then send SIGHUP."""
        return self.folder / "revoked.crl"

    @property
    def clients(self) -> Path:
        """The chain that client certificates must end in."""
        return self.folder / "clients.crt"

    @property
    def data(self) -> Path:
        """Sessions and queues."""
        return self.folder / "data"


def configuration(broker: Broker, files: BrokerFolder) -> str:
    """Return ``mosquitto.conf``: TLS 1.2 or newer, client certificates only, names from certificates, bounded packets and queues."""
    lines = (
        "per_listener_settings false",
        "allow_anonymous false",
        f"acl_file {files.access_list}",
        f"user {broker.user}",
        "",
        f"listener {broker.port} {broker.host}",
        f"cafile {files.clients}",
        f"certfile {files.folder / 'server.crt'}",
        f"keyfile {files.folder / 'server.key'}",
        f"crlfile {files.revoked}",
        "tls_version tlsv1.2",  # the lowest that is accepted, not the only one
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",  # without it any valid certificate can take another's client id and empty its queue
        "",
        f"max_packet_size {PACKET_BYTES_MAX}",
        f"max_keepalive {KEEPALIVE_S_MAX}",
        f"max_inflight_messages {INFLIGHT_MAX}",
        f"max_queued_messages {QUEUED_MESSAGES_MAX}",
        f"max_queued_bytes {QUEUED_BYTES_MAX}",
        f"persistent_client_expiration {SESSION_LIFE}",
        "set_tcp_nodelay true",
        "",
        "persistence true",
        f"persistence_location {files.data}/",
        f"autosave_interval {AUTOSAVE_S}",
        "",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages true",
    )
    return "\n".join(lines) + "\n"


def access_list(realm: Realm, gateways: Iterable[GatewayId] = ()) -> str:
    """Return the access list of a realm's broker; a clinic's names the ``gateways`` that read its coolers."""
    return _cloud_list() if realm is Realm.CLOUD else _clinic_list(gateways)


def _cloud_list() -> str:
    upward, downward = (Leaf.TELEMETRY, Leaf.METERING, Leaf.ALARM, Leaf.STATE), (Leaf.RECEIPT, Leaf.COMMAND)
    lines = ["# Everybody writes under the own name only (%u); the partition is checked by ingest, which knows how it is computed."]
    lines += [f"pattern write {ROOT}/+/%u/{leaf}" for leaf in upward]
    lines += [f"pattern read {ROOT}/+/%u/{leaf}" for leaf in downward]
    for name in INGEST_NAMES:
        partition = name.removeprefix("ingest-")
        lines += ["", f"user {name}", "topic read $SYS/broker/#"]
        lines += [f"topic read {ROOT}/{partition}/+/{leaf}" for leaf in upward]
        lines += [f"topic write {ROOT}/{partition}/+/{leaf}" for leaf in downward]
    return "\n".join(lines) + "\n"


def _clinic_list(gateways: Iterable[GatewayId]) -> str:
    lines = ["# A cooler writes under its own serial number only (%u) and reads nothing.", f"pattern write {COOLER_ROOT}/%u/#"]
    for gateway in gateways:
        lines += ["", f"user {gateway}", f"topic read {COOLER_ROOT}/#", "topic read $SYS/broker/#"]
    return "\n".join(lines) + "\n"


def write_broker(
    folder: Path, broker: Broker, authority: Authority, *, dns: Iterable[str], ips: Iterable[str], gateways: Iterable[GatewayId] = ()
) -> BrokerFolder:
    """Write everything that the broker of ``authority``'s realm needs into the private ``folder`` and return where it lies.

    Issues a new server certificate for the names at which clients will call it. Run it again to renew that certificate and send SIGHUP.
    """
    files = BrokerFolder(make_private_folder(folder.absolute()))
    make_private_folder(files.data)
    authority.issue_server(list(dns), list(ips)).write(files.folder, "server")
    write_file(files.clients, authority.client_chain, mode=PUBLIC_FILE)
    authority.write_crl(files.revoked)
    write_file(files.access_list, access_list(authority.realm, gateways).encode(), mode=PUBLIC_FILE)
    write_file(files.configuration, configuration(broker, files).encode(), mode=PUBLIC_FILE)
    _hand_over(files.folder, broker.user)
    return files


def _hand_over(folder: Path, user: str) -> None:
    """Give the files to the account that will read them: Mosquitto gives up root before it opens its key."""
    if os.geteuid() != 0 or user == "root":
        return
    try:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    except LookupError:
        raise ProvisioningError(f"there is no account {user!r} on this machine; install mosquitto first or name another user") from None
