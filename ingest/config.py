"""Config: one TOML file into frozen values, every error at once, before anything opens. Not live state.

Invariant: a ``Config`` that exists is whole: profiles are parsed, files are there, and the broker is spoken to over TLS or on loopback.
Secrets stay in the environment: the file names the variables. Keys and defaults: ``docs/reference/ingest-config.md``.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ingest.errors import IngestError
from ingest.influx.sink import InfluxSettings
from ingest.link import BrokerSettings, client_id
from ingest.profiles import Profiles
from ingest.store import Store, StoreError
from protocol import profile
from protocol.profile import Profile, ProfileError
from protocol.topics import PARTITIONS, is_partition

__all__ = ["ClockConfig", "Config", "ConfigError", "load", "parse"]

CONFIG_BYTES_MAX = 262_144  # some kilobytes are usual; a larger file is not a configuration
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(IngestError):
    """A configuration that cannot be used; ``errors`` lists every reason, one a line in the message."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables: an unknown key is an error."""


class ClockConfig(_Table, frozen=True):
    """``[clock]``: the machine's clock, or one that runs ``scale`` times as fast (a demonstration; all processes share the values)."""

    kind: Literal["machine", "scaled"] = "machine"
    scale: int = 1
    origin_ns: int = 0
    start_wall_ms: int = 0


class BrokerTable(_Table, frozen=True):
    """``[broker]``."""

    host: str
    port: int = 8883
    ca: str = ""
    cert_dir: str = ""
    keepalive_s: int = 20
    receive_maximum: int = 64


class InfluxTable(_Table, frozen=True):
    """``[influx]``: where points go; absent: nowhere. The ``…_env`` keys name environment variables."""

    url: str
    bucket: str
    api: Literal["v1", "v2"] = "v2"
    org: str = ""
    token_env: str = ""
    user_env: str = ""
    password_env: str = ""
    gzip: bool = False
    timeout_s: float = 20.0
    ca: str = ""


class HealthTable(_Table, frozen=True):
    """``[health]``: a Unix socket that answers ``/healthz`` and ``/metrics``; empty: none."""

    socket: str = ""


class ProfileTable(_Table, frozen=True):
    """``[[profile]]``: a site's own profile."""

    file: str


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration; paths are absolute."""

    database: str
    partitions: tuple[str, ...]
    clock: ClockConfig
    broker: BrokerSettings
    influx: InfluxSettings | None
    health_socket: Path | None
    profiles: Profiles
    rollup: bool = True


def load(path: Path) -> Config:
    """Return the configuration in a file; paths in it are relative to its folder, secrets come from the environment.

    Raises ``ConfigError`` with every error: of the text, of what it says, and of the files that it names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError([f"{path}: over {CONFIG_BYTES_MAX} bytes"])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8: {error}"]) from error
    return parse(text, folder=path.resolve().parent, environment=os.environ)


def parse(text: str, *, folder: Path, environment: Mapping[str, str]) -> Config:
    """Return the configuration in a text; relative paths are below ``folder``. Raises ``ConfigError`` with every error found."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([str(error)]) from error
    reader = _Reader(document, folder, environment)
    config = reader.config()
    if config is None or reader.errors:
        raise ConfigError(reader.errors)
    return config


class _Reader:
    """Reads every table whatever is wrong in the others."""

    KEYS = ("database", "partitions", "clock", "broker", "influx", "health", "profile", "rollup")

    def __init__(self, document: Mapping[str, object], folder: Path, environment: Mapping[str, str]) -> None:
        self.errors = [f"{key}: unknown key; known here: {', '.join(self.KEYS)}" for key in document if key not in self.KEYS]
        self._document, self._folder, self._environment = document, folder, environment

    def config(self) -> Config | None:
        """The configuration, ``None`` when a part that it needs is wrong; ``errors`` tells."""
        database, broker = self._database(), self._broker()
        parts = (self._partitions(), self._clock(), self._influx(), self._health(), self._profiles(), self._rollup())
        if database is None or broker is None:
            return None
        partitions, clock, influx, health, profiles, rollup = parts
        if broker.cert_dir is not None:
            wanted = [broker.cert_dir / f"{client_id(one)}{end}" for one in partitions for end in (".crt", ".key")]
            self.errors.extend(f"broker.cert_dir: there is no {path}" for path in wanted if not path.is_file())
        return Config(database, partitions, clock, broker, influx, health, profiles, rollup)

    def _table(self, key: str, shape: type[T]) -> T | None:
        """A table as its shape; ``None`` and an error for each wrong key."""
        raw = self._document.get(key, {})
        if not isinstance(raw, dict):
            self.errors.append(f"{key}: expected a table")
            return None
        return self._convert(raw, key, shape)

    def _convert(self, raw: dict[str, object], where: str, shape: type[T]) -> T | None:
        """Msgspec stops at the first error; taking the named key away and trying again finds the next."""
        wrong = 0
        rest = dict(raw)
        fields = {field.name: field for field in msgspec.structs.fields(shape)}
        for key in [key for key in rest if key not in fields]:
            self.errors.append(f"{where}.{key}: unknown key; known here: {', '.join(fields)}")
            wrong += 1
            del rest[key]
        for name, field in fields.items():
            if name not in rest and field.required:
                self.errors.append(f"{where}.{name}: missing")
                wrong += 1
            elif name in rest:
                try:
                    msgspec.convert(rest[name], type=field.type)
                except msgspec.ValidationError as error:
                    self.errors.append(f"{where}.{name}: {error}")
                    wrong += 1
        return None if wrong else msgspec.convert(rest, type=shape)

    def _database(self) -> str | None:
        url = self._document.get("database")
        if not isinstance(url, str):
            self.errors.append("database: missing" if url is None else "database: expected text")
            return None
        try:
            Store.open(url).close()
        except StoreError as error:
            self.errors.append(f"database: {error}")
        return url

    def _partitions(self) -> tuple[str, ...]:
        wanted = self._document.get("partitions", "all")
        if wanted == "all":
            return tuple(f"p{number:02d}" for number in range(PARTITIONS))
        if not isinstance(wanted, list) or not wanted or not all(isinstance(one, str) and is_partition(one) for one in wanted):
            self.errors.append(f'partitions: "all", or a list of p00 to p{PARTITIONS - 1:02d}')
            return ()
        return tuple(sorted(set(wanted)))

    def _clock(self) -> ClockConfig:
        clock = self._table("clock", ClockConfig) or ClockConfig()
        if clock.kind == "scaled" and clock.scale < 1:
            self.errors.append("clock.scale: must be at least 1")
        return clock

    def _broker(self) -> BrokerSettings | None:
        if "broker" not in self._document:
            self.errors.append("broker: missing")
            return None
        table = self._table("broker", BrokerTable)
        if table is None:
            return None
        bounds = (
            ("port", table.port, 1, 65_535),
            ("keepalive_s", table.keepalive_s, 5, 120),
            ("receive_maximum", table.receive_maximum, 1, 1000),
        )
        self.errors.extend(f"broker.{name}: {value} is not {lo} to {hi}" for name, value, lo, hi in bounds if not lo <= value <= hi)
        if not table.ca and table.host not in LOOPBACK:
            self.errors.append("broker.ca: missing; only a broker on the loopback address may be spoken to in plain text")
        if bool(table.ca) != bool(table.cert_dir):
            self.errors.append("broker: ca and cert_dir belong together")
        ca = self._file("broker.ca", table.ca)
        cert_dir = self._folder / table.cert_dir if table.cert_dir else None
        return BrokerSettings(table.host, table.port, ca, cert_dir, table.keepalive_s, table.receive_maximum)

    def _influx(self) -> InfluxSettings | None:
        if "influx" not in self._document:
            return None
        table = self._table("influx", InfluxTable)
        if table is None:
            return None
        if not table.url.startswith(("http://", "https://")):
            self.errors.append(f"influx.url: {table.url!r} is no http or https address")
        ca = self._file("influx.ca", table.ca)
        return InfluxSettings(
            url=table.url,
            bucket=table.bucket,
            api=table.api,
            org=table.org,
            token=self._secret("influx.token_env", table.token_env),
            user=self._secret("influx.user_env", table.user_env),
            password=self._secret("influx.password_env", table.password_env),
            gzip=table.gzip,
            timeout_s=table.timeout_s,
            ca=str(ca) if ca else None,
        )

    def _health(self) -> Path | None:
        table = self._table("health", HealthTable)
        return self._folder / table.socket if table is not None and table.socket else None

    def _profiles(self) -> Profiles:
        found: dict[tuple[str, int], Profile] = {}
        raw = self._document.get("profile", [])
        if not isinstance(raw, list):
            self.errors.append("profile: expected a list of tables ([[profile]])")
            return Profiles()
        for index, one in enumerate(raw):
            where = f"profile[{index}]"
            table = self._convert(one, where, ProfileTable) if isinstance(one, dict) else None
            path = self._file(f"{where}.file", table.file) if table is not None else None
            if path is None or not path.is_file():
                continue
            try:
                parsed = profile.parse(path.read_text(encoding="utf-8"))
            except (ProfileError, UnicodeDecodeError) as error:
                self.errors.append(f"{where}.file: {error}")
                continue
            if (parsed.id, parsed.version) in found:
                self.errors.append(f"{where}.file: {parsed.id} version {parsed.version} is named twice")
            found[parsed.id, parsed.version] = parsed
        return Profiles(found)

    def _rollup(self) -> bool:
        wanted = self._document.get("rollup", True)
        if not isinstance(wanted, bool):
            self.errors.append("rollup: expected true or false")
        return bool(wanted)

    def _file(self, where: str, name: str) -> Path | None:
        if not name:
            return None
        path = self._folder / name
        if not path.is_file():
            self.errors.append(f"{where}: there is no file {path}")
        return path

    def _secret(self, where: str, variable: str) -> str:
        if variable and variable not in self._environment:
            self.errors.append(f"{where}: the environment has no {variable}")
        return self._environment.get(variable, "") if variable else ""
