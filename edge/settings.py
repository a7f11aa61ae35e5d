"""Settings: the shape of the gateway's TOML file, defaults and units beside each key. Not the checks between keys (``edge.config``).

Invariant: plain frozen values; whatever needs a look at the disk or at another table is not decided here.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "DEVICES_MAX",
    "ClockConfig",
    "CloudConfig",
    "DeviceConfig",
    "Document",
    "HealthConfig",
    "MqttSource",
    "MqttTopic",
    "OutboxConfig",
    "ProfileFile",
    "ReplayColumn",
    "ReplaySource",
    "SourceConfig",
]

DEVICES_MAX = 256  # one gateway reads a clinic, not a hospital chain; bounds every per-device table in the process

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table."""


class ClockConfig(_Table, frozen=True, kw_only=True):
    """Where stamps come from. ``scaled`` is for demonstrations: all processes share origin, start and scale."""

    kind: Literal["machine", "scaled"] = "machine"
    scale: Positive = 1
    origin_ns: int = 0
    start_wall_ms: int = 0


class CloudConfig(_Table, frozen=True, kw_only=True):
    """The broker of the cloud; always TLS with a client certificate whose CN is the gateway's name."""

    host: str
    port: Port = 8883
    ca: Path
    cert: Path
    key: Path
    keepalive_s: Annotated[int, Meta(ge=5, le=120)] = 20  # noticed within 40 s: the service level for a dead link


class OutboxConfig(_Table, frozen=True, kw_only=True):
    """Bounds and rhythm of the store."""

    telemetry_bytes_max: Annotated[int, Meta(ge=1_000_000)] = 2_000_000_000  # 30 days of 8 coolers at 1 Hz
    commit_interval_ms: Annotated[int, Meta(ge=1, le=1000)] = 200  # what a power cut may cost is bounded by one second
    seal_rows: Annotated[int, Meta(ge=1, le=4096)] = 60
    seal_age_s_session: Positive = 60
    seal_age_s_idle: Positive = 300
    in_flight_unreceipted_max: Annotated[int, Meta(ge=1, le=1024)] = 1024


class HealthConfig(_Table, frozen=True, kw_only=True):
    """Where health is served: a Unix socket, so that a gateway listens on no TCP port."""

    socket: Path = Path("/run/icecap/edge.sock")


class ProfileFile(_Table, frozen=True, kw_only=True):
    """A site's own profile."""

    file: Path


class DeviceConfig(_Table, frozen=True, kw_only=True):
    """A provisioned cooler."""

    serial: str
    profile: str = "icecap-cooler"


class MqttTopic(_Table, frozen=True, kw_only=True):
    """How one kind of topic is read.

    ``serial_level`` counts topic levels from 0 and says which holds the serial number. ``fields`` maps a channel to the key (or the JSON
    pointer, when it begins with ``/``) under which the cooler sends it; a channel not listed is read under its own name.
    """

    filter: str
    serial_level: Annotated[int, Meta(ge=0, le=15)] = 1
    format: Literal["json", "senml", "raw"] = "json"
    fields: dict[str, str] = {}
    ts_key: str = "t"
    ts_unit: Literal["ms", "s"] = "ms"
    counter_key: str = "n"
    boot_key: str = "boot"


class MqttSource(_Table, frozen=True, kw_only=True):
    """A broker in the clinic on which coolers publish."""

    name: Name = "clinic"
    host: str
    port: Port = 8883
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    plaintext: bool = False
    client_id: Annotated[str, Meta(max_length=64)] = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=120)] = 20
    receive_maximum: Annotated[int, Meta(ge=1, le=1024)] = 256
    ts_ahead_max_s: Positive = 600  # a sample from the future is a wrong clock
    ts_behind_max_s: Positive = 604_800  # a cooler that was alone for a week delivers what it kept
    topic: tuple[MqttTopic, ...]


class ReplayColumn(_Table, frozen=True, kw_only=True):
    """A column that is not in the channel's unit: ``value = cell * multiply + add``."""

    column: str
    multiply: float = 1.0
    add: float = 0.0


class ReplaySource(_Table, frozen=True, kw_only=True):
    """A recording played as if a cooler sent it.

    ``time_format`` is ``s``, ``ms`` or a strptime pattern (read as UTC). ``start_wall_ms`` is added to numeric times. ``speed`` is how many
    recorded seconds pass in one second of the Clock; 0 plays as fast as the store takes it.
    """

    name: Name
    file: Path
    serial: str
    profile: str
    time_column: str
    time_format: str = "s"
    start_wall_ms: int = 0
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    columns: dict[str, str | ReplayColumn]
    speed: Annotated[float, Meta(ge=0)] = 1.0


class SourceConfig(_Table, frozen=True, kw_only=True):
    """Everything that readings come from."""

    mqtt: tuple[MqttSource, ...] = ()
    replay: tuple[ReplaySource, ...] = ()


class Document(_Table, frozen=True, kw_only=True):
    """The file as it is written."""

    gateway: str
    site: str
    version: Annotated[int, Meta(ge=0)] = 0
    data_dir: Path
    clock: ClockConfig = ClockConfig()
    cloud: CloudConfig
    outbox: OutboxConfig = OutboxConfig()
    health: HealthConfig = HealthConfig()
    profile: tuple[ProfileFile, ...] = ()
    device: tuple[DeviceConfig, ...] = ()
    source: SourceConfig = SourceConfig()
