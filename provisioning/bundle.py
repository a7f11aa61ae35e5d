"""Bundle: one archive that makes one box one gateway: its configuration, what it trusts, its certificates and keys. Not an update channel.

    edge.toml · cloud-ca.crt cloud.crt cloud.key · clinic-ca.crt clinic.crt clinic.key (when its coolers speak MQTT)

Invariant: an archive holds these names and nothing else, and unpacking writes them into one folder, keys for their owner alone.
"""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol.units import DeviceId, GatewayId
from provisioning import toml
from provisioning.broker import COOLER_ROOT
from provisioning.errors import ProvisioningError
from provisioning.files import PRIVATE_FILE, PUBLIC_FILE, make_private_folder, write_file
from provisioning.identity import Authority

__all__ = ["NAMES", "Endpoint", "GatewayPlan", "configuration", "files_of", "pack", "unpack"]

NAMES = ("edge.toml", "cloud-ca.crt", "cloud.crt", "cloud.key", "clinic-ca.crt", "clinic.crt", "clinic.key")
BUNDLE_BYTES_MAX = 1_048_576  # a bundle has 10 KiB; a configuration of 256 coolers 30 KiB


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a broker listens."""

    host: str
    port: int = 8883


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What one gateway is to do. ``coolers`` maps serial numbers to profiles; paths are as the gateway will see them.

    ``tables`` are further tables of the configuration (``clock``, ``outbox`` …), as ``edge`` documents them.
    """

    gateway: GatewayId
    site: str
    cloud: Endpoint
    clinic: Endpoint | None
    coolers: Mapping[DeviceId, str]
    data_dir: Path = Path("/var/lib/icecap")
    health_socket: Path = Path("/run/icecap/edge.sock")
    tables: Mapping[str, Mapping[str, toml.Scalar]] | None = None


def configuration(plan: GatewayPlan) -> str:
    """Return ``edge.toml``; certificates are named relative to its own folder."""
    tables = plan.tables or {}
    parts = [
        toml.pairs({"gateway": plan.gateway, "site": plan.site, "data_dir": plan.data_dir}),
        toml.table("cloud", {"host": plan.cloud.host, "port": plan.cloud.port, **_files("cloud")}),
        toml.table("health", {"socket": plan.health_socket}),
        *(toml.table(name, values) for name, values in tables.items()),
        toml.array_tables("device", [{"serial": serial, "profile": profile} for serial, profile in plan.coolers.items()]),
    ]
    if plan.clinic:
        source: dict[str, toml.Scalar] = {"name": "clinic", "host": plan.clinic.host, "port": plan.clinic.port, **_files("clinic")}
        parts.append(toml.array_tables("source.mqtt", [source]))
        topic: dict[str, toml.Scalar] = {"filter": f"{COOLER_ROOT}/+/telemetry", "serial_level": 1, "format": "json"}
        parts.append(toml.array_tables("source.mqtt.topic", [topic]))
    return "".join(parts)


def files_of(plan: GatewayPlan, *, cloud: Authority, clinic: Authority | None) -> dict[str, bytes]:
    """Issue the gateway's certificates and return the content of every file by name.

    Raises ``ProvisioningError`` when the plan has coolers on MQTT and there is no clinic authority, or the other way round.
    """
    if (plan.clinic is None) is not (clinic is None):
        raise ProvisioningError("a clinic broker and a clinic authority belong together; one of them is missing")
    files = {"edge.toml": configuration(plan).encode()}
    for stem, authority in (("cloud", cloud), ("clinic", clinic)):
        if authority:
            issued = authority.issue_client(plan.gateway)
            files |= {f"{stem}-ca.crt": authority.root, f"{stem}.crt": issued.certificate, f"{stem}.key": issued.key}
    return files


def pack(files: Mapping[str, bytes], *, wall_ms: int) -> bytes:
    """Return the archive (tar, gzip). It holds private keys: whoever has it is that gateway.

    Raises ``ProvisioningError`` for a name that is not one of ``NAMES``.
    """
    if foreign := sorted(set(files) - set(NAMES)):
        raise ProvisioningError(f"a bundle does not hold {', '.join(foreign)}")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name in NAMES:
            if name in files:
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = len(files[name]), _mode(name), wall_ms // 1000
                archive.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def unpack(archive_path: Path, folder: Path) -> list[Path]:
    """Write an archive's files into the private ``folder`` and return their paths; each is replaced whole or not at all.

    Raises ``ProvisioningError`` for anything but a bundle; then nothing has been written.
    """
    try:
        with tarfile.open(archive_path, mode="r:gz") as archive:
            files = _read(archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ProvisioningError(f"{archive_path} is not a bundle: {error}") from error
    if missing := {"edge.toml", "cloud-ca.crt", "cloud.crt", "cloud.key"} - files.keys():
        raise ProvisioningError(f"{archive_path} is not a whole bundle: {', '.join(sorted(missing))} missing")
    make_private_folder(folder)
    for name, data in files.items():
        write_file(folder / name, data, mode=_mode(name))
    return [folder / name for name in files]


def _read(archive: tarfile.TarFile) -> dict[str, bytes]:
    """Nothing is extracted: a name must be one of ours to the letter, so no filter of ``tarfile`` (new in 3.11.4) is needed."""
    files: dict[str, bytes] = {}
    total = 0
    while member := archive.next():
        total += member.size
        if member.name not in NAMES or member.name in files or not member.isreg() or total > BUNDLE_BYTES_MAX:
            raise ProvisioningError(f"a bundle does not hold {member.name!r} ({member.size} bytes)")
        content = archive.extractfile(member)
        files[member.name] = content.read() if content else b""
    return files


def _mode(name: str) -> int:
    return PRIVATE_FILE if name.endswith(".key") else PUBLIC_FILE


def _files(stem: str) -> dict[str, toml.Scalar]:
    return {"ca": f"{stem}-ca.crt", "cert": f"{stem}.crt", "key": f"{stem}.key"}
