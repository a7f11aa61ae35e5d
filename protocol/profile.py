"""Profiles: what a cooler model measures, as typed data. One TOML file a model in ``profiles/``; a site can bring its own.

Invariant: a profile is checked whole before any of it is used, every error is reported at once, and a block names the profile's id and
version, so that a code means the same for ever.
"""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

import msgspec

from protocol.units import Scale, Unit, is_device_id

__all__ = ["UNITS", "Channel", "Profile", "ProfileError", "Role", "builtin", "builtin_ids", "load", "parse"]

UNITS = ("degC", "l/min", "kPa", "A", "%", "V", "s", "1")
PROFILE_CHANNELS_MAX = 128  # a block holds no more


class ProfileError(ValueError):
    """A profile that cannot be used; the message lists every reason."""


class Role(StrEnum):
    """What a channel is to the session rules and the alarms, whatever a model calls it."""

    COOLANT_TEMP = "coolant_temp"
    CAP_TEMP = "cap_temp"
    FLOW = "flow"
    PRESSURE = "pressure"
    PUMP_CURRENT = "pump_current"
    TANK_LEVEL = "tank_level"
    AMBIENT_TEMP = "ambient_temp"
    CONDENSER_TEMP = "condenser_temp"
    MAINS_VOLTAGE = "mains_voltage"
    SET_POINT = "set_point"
    STATE = "state"
    LIFETIME = "lifetime"


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured quantity.

    ``lo`` and ``hi`` are what the sensor can report (codes outside are refused as RANGE), ``max_rate`` the fastest believable change in
    one second, ``sentinels`` the values that mean 'no reading', ``sigma`` the sensor's noise, ``max_error`` the bound to which the channel
    may be thinned (0: lossless); all in the channel's unit. ``alarm_lo`` and ``alarm_hi`` are the service limits. ``circuit`` is 0 for the
    whole machine. ``raw`` is the channel's place in the model's binary record (a struct format character); ``discrete`` marks a code that
    must not be smoothed.
    """

    name: str
    unit: str
    role: Role
    multiplier: int = 1
    decimals: int = 0
    lo: float
    hi: float
    circuit: int = 0
    max_rate: float | None = None
    sigma: float = 0.0
    max_error: float = 0.0
    sentinels: tuple[float, ...] = ()
    discrete: bool = False
    alarm_lo: float | None = None
    alarm_hi: float | None = None
    raw: str = "h"

    @property
    def scale(self) -> Scale:
        """How a code becomes a value."""
        return Scale(self.multiplier, self.decimals)

    def code(self, value: float) -> int:
        """Return ``value`` (in the channel's unit) as a code."""
        return self.scale.to_code(value)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    version: int
    model: str
    maker: str
    circuits: int
    channel: tuple[Channel, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A model's channels in wire order."""

    id: str
    version: int
    model: str
    maker: str
    circuits: int
    channels: tuple[Channel, ...]

    def index(self, name: str) -> int:
        """Return the position of a channel; ``KeyError`` when the model has none of that name."""
        for position, channel in enumerate(self.channels):
            if channel.name == name:
                return position
        raise KeyError(name)

    def by_role(self, role: Role, circuit: int | None = None) -> tuple[Channel, ...]:
        """Return the channels of a role, of one circuit when given."""
        return tuple(one for one in self.channels if one.role == role and circuit in {None, one.circuit})

    @property
    def max_error_codes(self) -> tuple[int, ...]:
        """The thinning bound of each channel in codes, rounded down: a bound is a promise."""
        return tuple(int(one.max_error * 10**one.decimals / one.multiplier) for one in self.channels)


def parse(text: str) -> Profile:
    """Return the profile in a TOML text. Raises ``ProfileError`` with every error found."""
    try:
        document = msgspec.convert(tomllib.loads(text), type=_Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        msg = f"profile: {error}"
        raise ProfileError(msg) from error
    errors = [
        *_document_errors(document),
        *(error for channel in document.channel for error in _channel_errors(channel, document.circuits)),
    ]
    if errors:
        msg = f"profile {document.id!r}: " + "; ".join(errors)
        raise ProfileError(msg)
    return Profile(document.id, document.version, document.model, document.maker, document.circuits, document.channel)


def _document_errors(document: _Document) -> list[str]:
    errors = []
    names = [channel.name for channel in document.channel]
    if not is_device_id(document.id):
        errors.append("id must be 3 to 32 of a-z 0-9 -")
    if not 0 < document.version < 2**16:
        errors.append("version must be 1 to 65535")
    if not 0 < len(names) <= PROFILE_CHANNELS_MAX:
        errors.append(f"a profile has 1 to {PROFILE_CHANNELS_MAX} channels, this has {len(names)}")
    errors.extend(f"channel {name!r} appears twice" for name in sorted(set(names)) if names.count(name) > 1)
    return errors


def _channel_errors(channel: Channel, circuits: int) -> list[str]:
    errors = []
    if not channel.name.isidentifier() or not channel.name.islower() or channel.name.endswith("_smooth"):
        errors.append(f"channel {channel.name!r}: a name is lower case letters, digits and _, and does not end in _smooth")
    if channel.unit not in UNITS:
        errors.append(f"channel {channel.name!r}: unit {channel.unit!r} is none of {', '.join(UNITS)}")
    if not channel.lo < channel.hi:
        errors.append(f"channel {channel.name!r}: lo must be below hi")
    if channel.multiplier < 1 or not 0 <= channel.decimals <= 9:
        errors.append(f"channel {channel.name!r}: multiplier must be at least 1 and decimals 0 to 9")
    if not 0 <= channel.circuit <= circuits:
        errors.append(f"channel {channel.name!r}: circuit {channel.circuit} of {circuits}")
    if channel.raw not in "bBhHiIqQ" or len(channel.raw) != 1:
        errors.append(f"channel {channel.name!r}: raw must be one of b B h H i I q Q")
    return errors


@cache
def builtin_ids() -> tuple[str, ...]:
    """Return the ids of the profiles that come with the product."""
    folder = resources.files("protocol") / "profiles"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@cache
def builtin(profile_id: str) -> Profile:
    """Return a profile that comes with the product. Raises ``ProfileError`` naming those that do when there is none of that id."""
    if profile_id not in builtin_ids():
        msg = f"no profile {profile_id!r}; there are: {', '.join(builtin_ids())}"
        raise ProfileError(msg)
    return parse((resources.files("protocol") / "profiles" / f"{profile_id}.toml").read_text(encoding="utf-8"))


def load(profile_id: str, site_profiles: dict[str, Profile]) -> Profile:
    """Return a site's own profile of that id, else the built-in one."""
    return site_profiles.get(profile_id) or builtin(profile_id)


def unit_of(channel: Channel) -> Unit:
    """Return the unit as its own type."""
    return Unit(channel.unit)
