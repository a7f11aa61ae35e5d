"""Raw profile bytes: the model's own binary record, packed by the ``raw`` characters of its profile. Not a frame.

    boot u64 · counter u64 · ts_ms i64 (0: the device has no clock) · channels in profile order, little-endian, unpadded

Invariant: the length is exact. The lowest number of a signed field (0x8000 for ``h``) means that the device has no value.
"""

import struct

from edge.sources.origin import NUMBER_MAX, Origin, Sample
from protocol.profile import Profile
from protocol.reading import CODE_MAX, Reading
from protocol.refusal import Reason, Refusal

__all__ = ["HEADER", "RawProfile", "pack"]

HEADER = "QQq"


class RawProfile:
    """Decoder of raw records; one structure per profile in use."""

    __slots__ = ("_layouts",)

    def __init__(self) -> None:
        self._layouts: dict[int, tuple[Profile, struct.Struct, tuple[int | None, ...]]] = {}

    def decode(self, payload: bytes, origin: Origin) -> tuple[Reading, ...] | Refusal:
        """Return the one reading in ``payload`` or why there is none."""
        _profile, layout, lowest = self._layout_of(origin.profile)
        if len(payload) != layout.size:
            return Refusal(Reason.BAD_LENGTH, f"{len(payload)} bytes, {origin.profile.id} has {layout.size}")
        boot, counter, ts_ms, *fields = layout.unpack(payload)
        codes = tuple(None if code == least else code for code, least in zip(fields, lowest, strict=True))
        if any(code is not None and code > CODE_MAX for code in codes):
            return Refusal(Reason.BAD_VALUE, "a channel is over 63 bits")
        if boot > NUMBER_MAX or counter > NUMBER_MAX or ts_ms < 0:
            return Refusal(Reason.BAD_VALUE, "boot, counter or time")
        if all(code is None for code in codes):
            return Refusal(Reason.BAD_VALUE, "no channel has a value")
        reading = Sample({}, ts_ms or None, counter, boot or None).with_codes(origin, codes)
        return reading if isinstance(reading, Refusal) else (reading,)

    def _layout_of(self, profile: Profile) -> tuple[Profile, struct.Struct, tuple[int | None, ...]]:
        if (known := self._layouts.get(id(profile))) is not None:
            return known
        made = (profile, _layout(profile), tuple(_lowest(channel.raw) for channel in profile.channels))
        self._layouts[id(profile)] = made
        return made


def pack(profile: Profile, *, boot: int, counter: int, ts_ms: int, codes: tuple[int | None, ...]) -> bytes:
    """Return the record that a device of ``profile`` would send.

    Raises ``struct.error`` when a code does not fit its field, ``ValueError`` for ``None`` in an unsigned one: it has no way to say so.
    """
    fields = []
    for channel, code in zip(profile.channels, codes, strict=True):
        least = _lowest(channel.raw)
        if code is None and least is None:
            raise ValueError(f"{channel.name} ({channel.raw}) cannot be missing")
        fields.append(least if code is None else code)
    return _layout(profile).pack(boot, counter, ts_ms, *fields)


def _layout(profile: Profile) -> struct.Struct:
    return struct.Struct("<" + HEADER + "".join(channel.raw for channel in profile.channels))


def _lowest(raw: str) -> int | None:
    """The number of a signed field that means 'no value'; an unsigned one has none."""
    return -(1 << (8 * struct.calcsize("<" + raw) - 1)) if raw.islower() else None
