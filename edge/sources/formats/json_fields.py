"""JSON by a mapping of fields: one object a sample, channels by key or by JSON pointer (RFC 6901). Not a query language.

    {"boot": 3, "n": 1042, "t": 1767225600000, "coolant_temp_1": -4.12, "flow_1": 3.05}

Invariant: a key that the mapping does not name is ignored, a named one that holds no finite number refuses the whole message.
"""

from edge.settings import MqttTopic
from edge.sources.formats.json_text import Json, parse
from edge.sources.origin import Origin, Sample
from protocol.profile import Profile
from protocol.reading import Reading
from protocol.refusal import Reason, Refusal

__all__ = ["JsonFields"]

MS_PER_UNIT = {"ms": 1, "s": 1000}
MILLIS_MAX = 2**53  # the last whole number that a JSON float holds exactly; as milliseconds it is the year 287396


class JsonFields:
    """Decoder of one topic mapping."""

    __slots__ = ("_paths", "_settings")

    def __init__(self, settings: MqttTopic) -> None:
        self._settings = settings
        self._paths: dict[int, tuple[Profile, list[tuple[int, tuple[str, ...]]]]] = {}  # one entry per profile object in use

    def decode(self, payload: bytes, origin: Origin) -> tuple[Reading, ...] | Refusal:
        """Return the one reading in ``payload`` or why there is none."""
        document = parse(payload)
        if isinstance(document, Refusal):
            return document
        if not isinstance(document, dict):
            return Refusal(Reason.BAD_JSON, "not an object")
        sample = self._sample(document, origin.profile)
        reading = sample if isinstance(sample, Refusal) else sample.reading(origin)
        return reading if isinstance(reading, Refusal) else (reading,)

    def _sample(self, document: dict[str, Json], profile: Profile) -> Sample | Refusal:
        values: dict[int, float | int] = {}
        for position, path in self._paths_of(profile):
            found = _look_up(document, path)
            if found is None:
                continue
            if isinstance(found, bool) or not isinstance(found, (int, float)):
                return Refusal(Reason.BAD_VALUE, f"{profile.channels[position].name} is no number")
            values[position] = found
        own: list[int | None] = []
        for key in (self._settings.counter_key, self._settings.boot_key):
            number = _look_up(document, _path(key)) if key else None
            if isinstance(number, bool) or not isinstance(number, (int, type(None))):
                return Refusal(Reason.BAD_VALUE, f"{key} is no whole number")
            own.append(number)
        time = self._time_ms(document)
        return time if isinstance(time, Refusal) else Sample(values, time, own[0], own[1])

    def _time_ms(self, document: dict[str, Json]) -> int | Refusal | None:
        key = self._settings.ts_key
        time = _look_up(document, _path(key)) if key else None
        if time is None:
            return None
        if (
            isinstance(time, bool)
            or not isinstance(time, (int, float))
            or not 0 <= time * MS_PER_UNIT[self._settings.ts_unit] <= MILLIS_MAX
        ):
            return Refusal(Reason.BAD_VALUE, f"{key} is no time")
        return round(time * MS_PER_UNIT[self._settings.ts_unit])

    def _paths_of(self, profile: Profile) -> list[tuple[int, tuple[str, ...]]]:
        """Where each channel of a profile is looked for; made once per profile."""
        if (known := self._paths.get(id(profile))) is not None:
            return known[1]
        fields = self._settings.fields
        paths = [(position, _path(fields.get(channel.name, channel.name))) for position, channel in enumerate(profile.channels)]
        self._paths[id(profile)] = (profile, paths)
        return paths


def _path(key: str) -> tuple[str, ...]:
    """A key, or a JSON pointer with ``~1`` for ``/`` and ``~0`` for ``~``."""
    if not key.startswith("/"):
        return (key,)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in key[1:].split("/"))


def _look_up(document: Json, path: tuple[str, ...]) -> Json:
    """The value at a path, ``None`` when there is none."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isascii() and step.isdigit() and len(step) < 6 and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document
