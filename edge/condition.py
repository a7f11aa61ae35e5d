"""Condition: what the gate says of each sample, and its smooth value beside it. Not a store, and it never changes a raw code.

Invariant: pure and deterministic. The same readings in the same order give the same rows on every machine, so the cloud can run the same
kernel over the stored raw codes and get the same smooth curve.
"""

import math
from dataclasses import dataclass

import msgspec

from native import DecodeError, smooth
from protocol import smoothing
from protocol.profile import Channel, Profile, Role
from protocol.reading import MachineState, Quality, Reading
from protocol.refusal import Reason, Refusal

__all__ = ["IN_SESSION", "ConditionedRow", "Conditioner", "is_in_session"]

IN_SESSION = frozenset(
    {
        MachineState.PRE_COOL,
        MachineState.INFUSION,
        MachineState.POST_COOL,
        MachineState.WARM_UP,
        MachineState.PAUSED,
        MachineState.FAULT,
    }
)
"""States in which a block is sealed early: a patient may be attached, or a person will look soon (fault)."""

BEHIND_ROWS_MAX = 60  # a minute of rows behind the newest is no longer back-fill between live rows: the device's clock was set back


@dataclass(frozen=True, slots=True)
class ConditionedRow:
    """One reading with the gate's word on every channel.

    ``quality`` has one ``Quality`` byte per channel of ``profile``. ``smoothed_milli`` holds thousandths of the channel's unit, ``None``
    before the first good sample; it is for live pages and rules, and is never stored. ``in_session`` is a hint for sealing.
    """

    reading: Reading
    profile: Profile
    quality: bytes
    smoothed_milli: tuple[int | None, ...] = ()
    in_session: bool = False


def is_in_session(profile: Profile, codes: tuple[int | None, ...]) -> bool:
    """Tell whether any circuit's state channel says that a session runs or a fault holds."""
    return any(channel.role == Role.STATE and code in IN_SESSION for channel, code in zip(profile.channels, codes, strict=True))


class _Gate:
    """One channel: limits that need no memory, and the tracker (``None`` for a discrete channel)."""

    __slots__ = ("hi", "lo", "milli_per_code", "sentinels", "tracker")

    def __init__(self, channel: Channel, tracker: smooth.Smoother | None) -> None:
        self.lo, self.hi = channel.code(channel.lo), channel.code(channel.hi)
        self.sentinels = frozenset(channel.code(value) for value in channel.sentinels)
        self.milli_per_code = channel.multiplier * 1000 / 10**channel.decimals
        self.tracker = tracker

    def judge(self, code: int | None) -> Quality:
        """What can be said of a code without knowing the ones before it."""
        if code is None:
            return Quality.MISSING
        if code in self.sentinels:
            return Quality.SENTINEL
        return Quality.OK if self.lo <= code <= self.hi else Quality.RANGE


class Conditioner:
    """The gates of one cooler. Feed it every reading in the order of arrival.

    A row that is not newer than the newest (back-fill after an outage, several samples within one millisecond) is judged by the limits
    alone and leaves the trackers as they are: it is data like any other, only late.
    """

    __slots__ = ("_behind", "_gates", "_last_key", "_newest_ms", "_smoothed", "profile")

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._gates = [_Gate(channel, smoothing.tracker(channel)) for channel in profile.channels]
        self._smoothed: tuple[int | None, ...] = (None,) * len(self._gates)
        self._newest_ms: int | None = None
        self._last_key: tuple[int, int | None, int] | None = None
        self._behind = 0

    def take(self, reading: Reading) -> ConditionedRow:
        """Return the reading with a quality and a smooth value per channel. Raises ``ValueError`` when the codes are of another profile."""
        if len(reading.codes) != len(self._gates):
            raise ValueError(f"{len(reading.codes)} codes for the {len(self._gates)} channels of {self.profile.id}")
        key = (reading.source_boot, reading.counter, reading.ts_ms)
        if key == self._last_key and reading.counter is not None:
            # The same sample again: a redelivery, which the outbox drops, or a frozen device.
            quality = bytes([Quality.STALE]) * len(self._gates)
        elif self._is_newer(reading.ts_ms):
            quality = self._track(reading)
        else:
            quality = bytes([gate.judge(code) for gate, code in zip(self._gates, reading.codes, strict=True)])
        self._last_key = key
        return ConditionedRow(reading, self.profile, quality, self._smoothed, is_in_session(self.profile, reading.codes))

    def _is_newer(self, ts_ms: int) -> bool:
        if self._newest_ms is not None and ts_ms <= self._newest_ms:
            self._behind += 1
            if self._behind <= BEHIND_ROWS_MAX:
                return False
            for gate, channel in zip(self._gates, self.profile.channels, strict=True):
                gate.tracker = smoothing.tracker(channel)
        self._behind = 0
        self._newest_ms = ts_ms
        return True

    def _track(self, reading: Reading) -> bytes:
        quality = bytearray(len(self._gates))
        smoothed: list[int | None] = []
        for index, (gate, code) in enumerate(zip(self._gates, reading.codes, strict=True)):
            if gate.tracker is None:
                quality[index] = gate.judge(code)
                smoothed.append(None if code is None else round(code * gate.milli_per_code))
                continue
            value, _slope, judged = gate.tracker.update(reading.ts_ms, code)
            # COASTED is a word about the derived value; of the sample itself the truth is that there was none.
            quality[index] = Quality.MISSING if judged == Quality.COASTED else judged
            smoothed.append(None if math.isnan(value) else round(value * gate.milli_per_code))
        self._smoothed = tuple(smoothed)
        return bytes(quality)

    def state(self) -> bytes:
        """Everything needed to go on after a restart; only for ``restore`` of the same profile."""
        trackers = [gate.tracker.state() if gate.tracker else b"" for gate in self._gates]
        return msgspec.msgpack.encode(_State(self.profile.id, self.profile.version, self._newest_ms, self._smoothed, trackers))

    @classmethod
    def restore(cls, profile: Profile, data: bytes) -> "Conditioner | Refusal":
        """Return a conditioner that goes on where ``state`` was taken, or why it cannot (another profile, damage)."""
        conditioner = cls(profile)
        try:
            state = msgspec.msgpack.decode(data, type=_State)
            if (state.profile, state.version) != (profile.id, profile.version) or len(state.trackers) != len(profile.channels):
                return Refusal(Reason.UNKNOWN_PROFILE, f"{state.profile} {state.version}")
            for gate, saved in zip(conditioner._gates, state.trackers, strict=True):
                if gate.tracker is not None:
                    gate.tracker = smooth.Smoother.restore(saved)
        except (msgspec.DecodeError, DecodeError) as error:
            return Refusal(Reason.BAD_VALUE, str(error)[:200])
        conditioner._newest_ms, conditioner._smoothed = state.newest_ms, state.smoothed
        return conditioner


class _State(msgspec.Struct, frozen=True, array_like=True):
    profile: str
    version: int
    newest_ms: int | None
    smoothed: tuple[int | None, ...]
    trackers: list[bytes]
