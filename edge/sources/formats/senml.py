"""SenML (RFC 8428) in JSON: a pack of records with base fields, several times allowed. Not CBOR, XML or EXI, and no sums.

    [{"bn": "cooler-1:", "bt": 1767225600, "n": "coolant_temp_1", "u": "Cel", "v": -4.12}, {"n": "flow_1", "u": "l/min", "v": 3.05}]

Invariant: a record in a unit that does not convert into the channel's refuses the pack: a wrong scale is worse than a gap.
"""

from dataclasses import dataclass, field
from typing import TypeGuard

from edge.settings import MqttTopic
from edge.sources.formats.json_text import Json, parse
from edge.sources.origin import Origin, Sample
from protocol.profile import Profile
from protocol.reading import Reading
from protocol.refusal import Reason, Refusal

__all__ = ["Senml"]

RECORDS_MAX = 4096  # what fits into the largest payload; bounds the work for one message
SENML_VERSION = 10
NUMBER_MAX = 1e18  # no code of 64 bits stands for more, and sums of two such numbers stay finite
RELATIVE_S_MAX = 2**28  # RFC 8428 §4.5.3: smaller times are relative to now
KNOWN = frozenset({"bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut"})

# From a SenML unit (RFC 8428 §12.1, RFC 8798) to the profile's: value * multiply + add.
CONVERSIONS: dict[str, dict[str, tuple[float, float]]] = {
    "degC": {"Cel": (1.0, 0.0), "K": (1.0, -273.15)},
    "l/min": {"l/s": (60.0, 0.0), "m3/s": (60_000.0, 0.0)},
    "kPa": {"Pa": (0.001, 0.0), "hPa": (0.1, 0.0)},
    "A": {"mA": (0.001, 0.0)},
    "%": {"/": (100.0, 0.0)},
    "V": {"mV": (0.001, 0.0)},
    "s": {"ms": (0.001, 0.0), "min": (60.0, 0.0)},
    "1": {"/": (1.0, 0.0), "count": (1.0, 0.0)},
}


@dataclass(slots=True)
class _Base:
    """Base fields so far; they hold for the record that has them and for those after it."""

    name: str = ""
    time_s: float = 0.0
    unit: str = ""
    value: float = 0.0


@dataclass(slots=True)
class _Row:
    """What one time of a pack holds."""

    is_timed: bool
    """False for a record that says no time at all: then the gateway gives it one, and never the same twice."""
    values: dict[int, float | int] = field(default_factory=dict)
    counter: int | None = None
    boot: int | None = None


class Senml:
    """Decoder of one topic mapping; a channel is found by ``fields``, by its own name, or by either after the base name."""

    __slots__ = ("_names", "_settings")

    def __init__(self, settings: MqttTopic) -> None:
        self._settings = settings
        self._names: dict[int, tuple[Profile, dict[str, int]]] = {}  # one entry per profile object in use

    def decode(self, payload: bytes, origin: Origin) -> tuple[Reading, ...] | Refusal:
        """Return one reading for each time in the pack, in order of time, or why there is none."""
        document = parse(payload)
        if isinstance(document, Refusal):
            return document
        if not isinstance(document, list) or not 0 < len(document) <= RECORDS_MAX:
            return Refusal(Reason.BAD_JSON, f"not a pack of 1 to {RECORDS_MAX} records")
        rows = self._rows(document, origin)
        if isinstance(rows, Refusal):
            return rows
        readings = []
        for ts_ms, row in sorted(rows.items()):
            reading = Sample(row.values, ts_ms if row.is_timed else None, row.counter, row.boot).reading(origin)
            if isinstance(reading, Refusal):
                return reading
            readings.append(reading)
        return tuple(readings) or Refusal(Reason.BAD_VALUE, "no record with a value")

    def _rows(self, pack: list[Json], origin: Origin) -> dict[int, _Row] | Refusal:
        base = _Base()
        rows: dict[int, _Row] = {}
        for record in pack:
            if not isinstance(record, dict):
                return Refusal(Reason.BAD_JSON, "a record is no object")
            refusal = _rebase(record, base) or self._place(record, base, rows, origin)
            if refusal is not None:
                return refusal
        return rows

    def _place(self, record: dict[str, Json], base: _Base, rows: dict[int, _Row], origin: Origin) -> Refusal | None:
        """Put one resolved record into the row of its time."""
        name, time, unit = record.get("n", ""), record.get("t", 0), record.get("u", base.unit)
        if not isinstance(name, str) or not isinstance(unit, str) or not _is_number(time):
            return Refusal(Reason.BAD_JSON, "n, u or t has a wrong type")
        value = _value(record, base)
        if value is None or isinstance(value, Refusal):
            return value
        seconds = base.time_s + time
        # §4.5.3: small and negative times count from now, here the arrival at the gateway.
        ts_ms = round(seconds * 1000) if seconds >= RELATIVE_S_MAX else origin.stamp.wall_ms + round(seconds * 1000)
        if not 0 <= ts_ms < 2**53:
            return Refusal(Reason.BAD_VALUE, "time")
        row = rows.setdefault(ts_ms, _Row(is_timed=seconds != 0))
        if name and name in {self._settings.counter_key, self._settings.boot_key}:
            return _number_row(row, value, is_counter=name == self._settings.counter_key)
        position = self._positions(origin.profile).get(name, self._positions(origin.profile).get(base.name + name))
        if position is None:
            return None
        converted = _convert(value, unit, origin.profile.channels[position].unit)
        if converted is None:
            return Refusal(Reason.BAD_VALUE, f"{origin.profile.channels[position].name} in {unit[:16]!r}")
        if position in row.values:
            return Refusal(Reason.BAD_VALUE, f"{origin.profile.channels[position].name} twice at one time")
        row.values[position] = converted
        return None

    def _positions(self, profile: Profile) -> dict[str, int]:
        if (known := self._names.get(id(profile))) is not None:
            return known[1]
        names = {self._settings.fields.get(channel.name, channel.name): position for position, channel in enumerate(profile.channels)}
        self._names[id(profile)] = (profile, names)
        return names


def _rebase(record: dict[str, Json], base: _Base) -> Refusal | None:
    """Take over a record's base fields; refuse what a reader must understand and does not (§4.4)."""
    unknown = [key for key in record if key not in KNOWN and key.endswith("_")]
    if unknown:
        return Refusal(Reason.BAD_JSON, f"must understand {unknown[0][:32]!r}")
    version = record.get("bver", SENML_VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or not 0 < version <= SENML_VERSION:
        return Refusal(Reason.UNKNOWN_VERSION, "bver")
    name, unit, time, value = (
        record.get("bn", base.name),
        record.get("bu", base.unit),
        record.get("bt", base.time_s),
        record.get("bv", base.value),
    )
    if not isinstance(name, str) or not isinstance(unit, str) or not _is_number(time) or not _is_number(value):
        return Refusal(Reason.BAD_JSON, "bn, bu, bt or bv has a wrong type")
    base.name, base.unit, base.time_s, base.value = name, unit, time, value
    return None


def _value(record: dict[str, Json], base: _Base) -> float | int | Refusal | None:
    """The record's number, ``None`` when it has none for us (texts, data, sums, base fields only)."""
    if len(record.keys() & {"v", "vs", "vb", "vd"}) > 1:
        return Refusal(Reason.BAD_JSON, "two values in one record")
    if "vb" in record:
        flag = record["vb"]
        return int(flag) if isinstance(flag, bool) else Refusal(Reason.BAD_VALUE, "vb is no boolean")
    if "v" not in record:
        return None
    value = record["v"]
    return value + base.value if _is_number(value) else Refusal(Reason.BAD_VALUE, "v is no number")


def _number_row(row: _Row, value: float, *, is_counter: bool) -> Refusal | None:
    if value != int(value):
        return Refusal(Reason.BAD_VALUE, "counter or boot is no whole number")
    if is_counter:
        row.counter = int(value)
    else:
        row.boot = int(value)
    return None


def _is_number(value: Json) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -NUMBER_MAX <= value <= NUMBER_MAX


def _convert(value: float, unit: str, wanted: str) -> float | None:
    """The value in the profile's unit; without a unit it is taken to be in it. ``None`` when the unit is another quantity's."""
    if unit in {"", wanted}:
        return value
    conversion = CONVERSIONS[wanted].get(unit)
    return None if conversion is None else value * conversion[0] + conversion[1]
