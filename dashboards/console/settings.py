"""Settings of the console: one TOML file into frozen structs. No I/O but reading the files it names; every error is reported at once.

Invariant: nothing is listened on and no database is opened before the whole file has been found right.
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from protocol.profile import Profile, ProfileError, parse

__all__ = ["ClockSettings", "FleetSettings", "Listen", "SessionSettings", "Settings", "SettingsError", "load"]

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SettingsError(ValueError):
    """A configuration that cannot be used; the message lists every reason."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of the file: unknown keys are errors."""


class ClockSettings(_Part, frozen=True):
    """Which time the machines live in. ``scaled`` is for the demo, whose processes share ``origin_ns`` and ``start_wall_ms``."""

    kind: Literal["machine", "scaled"] = "machine"
    scale: int = 1
    origin_ns: int = 0
    start_wall_ms: int = 0


class Listen(_Part, frozen=True):
    """Where the console answers. Another host than loopback needs ``cert`` and ``key`` (PEM files), or ``behind_tls_proxy``."""

    host: str = "127.0.0.1"
    port: int = 8600
    cert: str = ""
    key: str = ""
    behind_tls_proxy: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the console over TLS, so that cookies may say Secure."""
        return bool(self.cert) or self.behind_tls_proxy


class SessionSettings(_Part, frozen=True):
    """How long a login lasts, in real seconds: ``idle_s`` without a request, ``lifetime_s`` at most."""

    idle_s: int = 7200
    lifetime_s: int = 43_200


class FleetSettings(_Part, frozen=True):
    """When data counts as late and as silent, in seconds: a gateway at rest seals a block every 300 s, so three of them missing is late."""

    late_after_s: int = 900
    silent_after_s: int = 3600


class _ProfileFile(_Part, frozen=True):
    file: str


class Settings(_Part, frozen=True):
    """The whole file. ``database`` is the cloud store's SQLAlchemy address."""

    database: str
    clock: ClockSettings = ClockSettings()
    listen: Listen = Listen()
    session: SessionSettings = SessionSettings()
    fleet: FleetSettings = FleetSettings()
    profile: tuple[_ProfileFile, ...] = ()


def load(path: Path) -> tuple[Settings, dict[str, Profile]]:
    """Return the settings and the site's own profiles by id. Relative paths are taken from the file's folder.

    Raises ``SettingsError`` with every error found.
    """
    try:
        settings = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), type=Settings)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{path}: {error}") from error
    profiles, errors = _profiles(settings, path.parent)
    errors = [*_errors(settings, path.parent), *errors]
    if errors:
        raise SettingsError(f"{path}: " + "; ".join(errors))
    folder = path.parent
    listen = settings.listen
    if listen.cert:
        listen = msgspec.structs.replace(listen, cert=str(folder / listen.cert), key=str(folder / listen.key))
    return msgspec.structs.replace(settings, listen=listen), profiles


def _errors(settings: Settings, folder: Path) -> list[str]:
    listen, session, fleet = settings.listen, settings.session, settings.fleet
    errors = []
    if "://" not in settings.database:
        errors.append("database must be an address such as sqlite:////var/lib/icecap/cloud.db")
    if not 0 < listen.port < 65_536:
        errors.append("listen.port must be 1 to 65535")
    if bool(listen.cert) != bool(listen.key):
        errors.append("listen.cert and listen.key belong together")
    if listen.host not in LOOPBACK and not listen.is_secure:
        errors.append(f"listen.host {listen.host!r} is reachable from outside: give listen.cert and listen.key, or listen.behind_tls_proxy")
    errors.extend(f"listen: no file {folder / name}" for name in (listen.cert, listen.key) if name and not (folder / name).is_file())
    if not 60 <= session.idle_s <= session.lifetime_s:
        errors.append("session.idle_s must be 60 to session.lifetime_s")
    if not 0 < fleet.late_after_s < fleet.silent_after_s:
        errors.append("fleet.late_after_s must be below fleet.silent_after_s")
    if settings.clock.kind == "scaled" and not 0 < settings.clock.scale <= 3600:
        errors.append("clock.scale must be 1 to 3600")
    return errors


def _profiles(settings: Settings, folder: Path) -> tuple[dict[str, Profile], list[str]]:
    profiles: dict[str, Profile] = {}
    errors: list[str] = []
    for entry in settings.profile:
        try:
            profile = parse((folder / entry.file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ProfileError) as error:
            errors.append(f"profile {entry.file}: {error}")
        else:
            profiles[profile.id] = profile
    return profiles, errors
