"""Config: one TOML file into frozen values, every error at once, before any socket opens. Not live state, and nothing here is a secret.

Invariant: a ``Config`` that exists is whole: profiles are parsed, files are there, a private key is its owner's alone, and TLS is either
complete or plainly refused. Keys, defaults and units: ``docs/reference/edge-config.md``.
"""

import hashlib
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import msgspec

from edge.errors import EdgeError
from edge.settings import (
    DEVICES_MAX,
    ClockConfig,
    CloudConfig,
    DeviceConfig,
    Document,
    HealthConfig,
    MqttSource,
    MqttTopic,
    OutboxConfig,
    ProfileFile,
    ReplaySource,
)
from edge.shape import Shaper
from protocol import profile as profiles
from protocol.profile import Profile, ProfileError
from protocol.units import DeviceId, GatewayId, is_device_id, is_gateway_id

__all__ = ["Config", "ConfigError", "ServiceManager", "load", "parse", "service_manager"]

CONFIG_BYTES_MAX = 1_048_576  # a site of hundreds of coolers needs a tenth; a larger file is not a configuration
SITE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
SOCKET_PATH_BYTES_MAX = 107  # unix(7): 108 with the final zero
TOPIC_BYTES_MAX = 256  # a topic filter longer than this is a paste error; MQTT itself allows 65,535


class ConfigError(EdgeError):
    """A configuration that cannot be used; ``errors`` lists every reason, one a line in the message."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration: paths absolute, every cooler with its profile. ``digest`` changes only when the meaning does."""

    gateway: GatewayId
    site: str
    version: int
    data_dir: Path
    clock: ClockConfig
    cloud: CloudConfig
    outbox: OutboxConfig
    health: HealthConfig
    devices: MappingProxyType[DeviceId, Profile]
    mqtt: tuple[MqttSource, ...]
    replay: tuple[ReplaySource, ...]
    digest: bytes


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """What systemd says to a service: where to report (empty: nowhere) and how often (``None``: no watchdog)."""

    socket: str = ""
    watchdog_s: float | None = None


def service_manager() -> ServiceManager:
    """Return what the environment says of the service manager (sd_notify(3), sd_watchdog_enabled(3))."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return ServiceManager(os.environ.get("NOTIFY_SOCKET", ""), int(limit) / 1_000_000 if mine and limit.isdigit() and int(limit) else None)


def load(path: Path) -> Config:
    """Return the configuration in a file; paths in it are relative to its folder.

    Raises ``ConfigError`` with every error: of the text, of what it says, and of the files that it names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    return parse(data, path.parent.absolute())


def parse(data: bytes, folder: Path) -> Config:
    """Return the configuration in the bytes of a TOML file that lies in ``folder``. Raises ``ConfigError`` with every error."""
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError([f"the file is over {CONFIG_BYTES_MAX} bytes"])
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"not TOML: {error}"]) from error
    shaper = Shaper(lambda filled, _where: _table_errors(filled, folder))
    document = shaper.fill(Document, table)
    if document is None:
        raise ConfigError(shaper.errors)
    document = _absolute(document, folder)
    site_profiles, errors = _site_profiles(document)
    devices = _devices(document, site_profiles, errors)
    errors += _names_twice(document) + _foreign_channels(document, devices)
    if shaper.errors or errors:
        raise ConfigError(shaper.errors + errors)
    return Config(
        gateway=GatewayId(document.gateway),
        site=document.site,
        version=document.version,
        data_dir=document.data_dir,
        clock=document.clock,
        cloud=document.cloud,
        outbox=document.outbox,
        health=document.health,
        devices=MappingProxyType(devices),
        mqtt=document.source.mqtt,
        replay=document.source.replay,
        digest=_digest(document, devices),
    )


def _table_errors(table: msgspec.Struct, folder: Path) -> list[str]:
    """What is wrong within one table, files included."""
    match table:
        case Document():
            return _document_errors(table, folder)
        case CloudConfig():
            return [*_file_errors({"ca": table.ca, "cert": table.cert}, folder), *_key_errors(table.key, folder)]
        case MqttSource():
            return _mqtt_errors(table, folder)
        case MqttTopic():
            return _topic_errors(table)
        case ReplaySource():
            return _file_errors({"file": table.file}, folder) + _serial_errors(table.serial)
        case ProfileFile():
            return _file_errors({"file": table.file}, folder)
        case DeviceConfig():
            return _serial_errors(table.serial)
    return []


def _document_errors(document: Document, folder: Path) -> list[str]:
    errors = []
    if not is_gateway_id(document.gateway):
        errors.append(f"gateway: {document.gateway!r} is not gw- and 1 to 29 of a-z 0-9 -")
    if not SITE_ID.fullmatch(document.site):
        errors.append(f"site: {document.site!r} is not 1 to 64 of a-z 0-9 -")
    if len(document.device) > DEVICES_MAX:
        errors.append(f"device: {len(document.device)} coolers, a gateway reads at most {DEVICES_MAX}")
    if not (document.source.mqtt or document.source.replay):
        errors.append("source: there is none; a gateway needs [[source.mqtt]] or [[source.replay]]")
    if document.outbox.seal_age_s_session > document.outbox.seal_age_s_idle:
        errors.append("outbox: seal_age_s_session must not be above seal_age_s_idle")
    if len(os.fsencode(folder / document.health.socket)) > SOCKET_PATH_BYTES_MAX:
        errors.append(
            f"health.socket: {folder / document.health.socket} is over {SOCKET_PATH_BYTES_MAX} bytes, which no Unix socket may be"
        )
    data_dir = folder / document.data_dir
    nearest = next(one for one in (data_dir, *data_dir.parents) if one.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        errors.append(f"data_dir: {nearest} is not a folder that this user may write to")
    return errors


def _mqtt_errors(source: MqttSource, folder: Path) -> list[str]:
    """TLS is whole or, on this machine only and when asked for, absent: nothing falls back to clear text by itself."""
    errors = []
    if source.plaintext:
        if source.host not in LOOPBACK:
            errors.append(f"plaintext: only for a broker on this machine, not {source.host!r}")
        if source.ca or source.cert or source.key:
            errors.append("plaintext: contradicts ca, cert and key")
    elif not source.ca:
        errors.append("ca: missing (or plaintext = true for a broker on this machine)")
    if (source.cert is None) != (source.key is None):
        errors.append("cert and key: one without the other")
    named = {"ca": source.ca, "cert": source.cert}
    errors += _file_errors({key: path for key, path in named.items() if path}, folder)
    if source.key:
        errors += _key_errors(source.key, folder)
    if not source.topic:
        errors.append("topic: a source needs at least one [[source.mqtt.topic]]")
    return errors


def _topic_errors(topic: MqttTopic) -> list[str]:
    errors = []
    levels = topic.filter.split("/")
    misplaced = any(("#" in level and (level != "#" or index != len(levels) - 1)) for index, level in enumerate(levels))
    if misplaced or any("+" in level and level != "+" for level in levels) or "\0" in topic.filter or not topic.filter:
        errors.append(f"filter: {topic.filter!r} is not an MQTT topic filter")
    if len(topic.filter.encode()) > TOPIC_BYTES_MAX:
        errors.append(f"filter: over {TOPIC_BYTES_MAX} bytes")
    if "#" not in levels and topic.serial_level >= len(levels):
        errors.append(f"serial_level: {topic.filter!r} has levels 0 to {len(levels) - 1}")
    return errors


def _serial_errors(serial: str) -> list[str]:
    return [] if is_device_id(serial) else [f"serial: {serial!r} is not 3 to 32 of a-z 0-9 -"]


def _file_errors(named: dict[str, Path], folder: Path) -> list[str]:
    absent = {key: folder / path for key, path in named.items() if not (folder / path).is_file()}
    sealed = {key: folder / path for key, path in named.items() if key not in absent and not os.access(folder / path, os.R_OK)}
    return [f"{key}: {path} is not a file" for key, path in absent.items()] + [
        f"{key}: {path} is not readable for this user" for key, path in sealed.items()
    ]


def _key_errors(path: Path, folder: Path) -> list[str]:
    """A private key that others can read is no key; told before it is used."""
    errors = _file_errors({"key": path}, folder)
    if not errors and (mode := (folder / path).stat().st_mode & 0o777) & 0o077:
        errors.append(f"key: {folder / path} has mode {mode:04o}; others can read it: chmod 600")
    return errors


def _absolute(document: Document, folder: Path) -> Document:
    """The same document with every path made absolute; an absolute path stays what it is."""
    replace = msgspec.structs.replace
    cloud = document.cloud
    mqtt = tuple(
        replace(one, **{key: folder / path for key in ("ca", "cert", "key") if (path := getattr(one, key)) is not None})
        for one in document.source.mqtt
    )
    replay = tuple(replace(one, file=folder / one.file) for one in document.source.replay)
    return replace(
        document,
        data_dir=folder / document.data_dir,
        cloud=replace(cloud, ca=folder / cloud.ca, cert=folder / cloud.cert, key=folder / cloud.key),
        health=replace(document.health, socket=folder / document.health.socket),
        profile=tuple(replace(one, file=folder / one.file) for one in document.profile),
        source=replace(document.source, mqtt=mqtt, replay=replay),
    )


def _site_profiles(document: Document) -> tuple[dict[str, Profile], list[str]]:
    found: dict[str, Profile] = {}
    errors = []
    for index, entry in enumerate(document.profile):
        try:
            profile = profiles.parse(entry.file.read_text(encoding="utf-8"))
        except ProfileError as error:
            errors.append(f"profile[{index}]: {error}")
        except (OSError, UnicodeDecodeError):
            continue  # a file that is absent or unreadable was named when its table was read
        else:
            if profile.id in found:
                errors.append(f"profile[{index}]: id {profile.id!r} is there twice")
            found[profile.id] = profile
    return found, errors


def _devices(document: Document, site_profiles: dict[str, Profile], errors: list[str]) -> dict[DeviceId, Profile]:
    """Every cooler with its profile, those that only a recording brings included."""
    devices: dict[DeviceId, Profile] = {}
    for where, serial, profile_id in _declared(document):
        try:
            devices[DeviceId(serial)] = profiles.load(profile_id, site_profiles)
        except ProfileError as error:
            errors.append(f"{where}.profile: {error}")
    return devices


def _declared(document: Document) -> Iterator[tuple[str, str, str]]:
    for index, device in enumerate(document.device):
        yield f"device[{index}]", device.serial, device.profile
    for index, replay in enumerate(document.source.replay):
        yield f"source.replay[{index}]", replay.serial, replay.profile


def _names_twice(document: Document) -> list[str]:
    serials = Counter(serial for _where, serial, _profile in _declared(document))
    sources = Counter(chain((one.name for one in document.source.mqtt), (one.name for one in document.source.replay)))
    return [f"device: serial {serial!r} is there twice" for serial, times in serials.items() if times > 1] + [
        f"source: name {name!r} is there twice" for name, times in sources.items() if times > 1
    ]


def _foreign_channels(document: Document, devices: dict[DeviceId, Profile]) -> list[str]:
    """Mapped channels that no profile has: a silent hole in the data otherwise."""
    known = {channel.name for profile in devices.values() for channel in profile.channels}
    errors = [
        f"source.mqtt[{index}].topic[{place}].fields: no profile here has a channel {name!r}"
        for index, source in enumerate(document.source.mqtt)
        for place, topic in enumerate(source.topic)
        for name in topic.fields
        if name not in known
    ]
    for index, replay in enumerate(document.source.replay):
        profile = devices.get(DeviceId(replay.serial))
        names = {channel.name for channel in profile.channels} if profile else set(replay.columns)
        errors += [f"source.replay[{index}].columns: the profile has no channel {name!r}" for name in replay.columns if name not in names]
    return errors


def _digest(document: Document, devices: dict[DeviceId, Profile]) -> bytes:
    """SHA-256 over the meaning (values and profiles, not comments or order of keys): the same configuration again is the same digest."""
    meaning = (document, {serial: (one.id, one.version, one.channels) for serial, one in devices.items()})
    return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic", enc_hook=str)).digest()
