"""Origin: whose bytes these are, and which clock stamps them. Not a decoder.

Invariant: two samples of one cooler that carry neither a number nor a time of their own never get the same millisecond, so nothing later
can take them for one.
"""

from collections import Counter
from dataclasses import dataclass

from protocol.profile import Profile
from protocol.reading import CODE_MAX, CODE_MIN, Reading, Stamp
from protocol.refusal import Reason, Refusal
from protocol.units import DeviceId

__all__ = ["Origin", "Sample", "Times"]

LEAD_MS_MAX = 10_000  # a burst of 20 Hz for minutes stays below it; more lead means that the gateway's own clock was set back
NUMBER_MAX = 2**63 - 1  # counters and boot numbers are signed 64-bit in both databases


class Times:
    """Chooses between the device's time and the gateway's, and counts why.

    ``ahead_ms_max`` and ``behind_ms_max`` say how far a device's clock may be from the gateway's and still be believed.
    """

    __slots__ = ("_last_given", "ahead_ms_max", "behind_ms_max", "counts")

    def __init__(self, *, ahead_ms_max: int, behind_ms_max: int) -> None:
        self.ahead_ms_max = ahead_ms_max
        self.behind_ms_max = behind_ms_max
        self.counts: Counter[str] = Counter()
        self._last_given: dict[DeviceId, int] = {}  # one entry per provisioned cooler: unknown ones never come here

    def settle(self, device: DeviceId, device_ms: int | None, stamp: Stamp) -> int:
        """Return the sample's time in wall milliseconds."""
        if device_ms is None:
            self.counts["no_device_time"] += 1
        elif device_ms > stamp.wall_ms + self.ahead_ms_max:
            self.counts["device_ahead"] += 1
        elif device_ms < stamp.wall_ms - self.behind_ms_max:
            self.counts["device_behind"] += 1
        else:
            return device_ms
        after = self._last_given.get(device, stamp.wall_ms - 1) + 1
        given = after if stamp.wall_ms <= after <= stamp.wall_ms + LEAD_MS_MAX else stamp.wall_ms
        self._last_given[device] = given
        return given


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent it (a provisioned cooler and its profile), when it arrived, and the clock rules of its source."""

    device: DeviceId
    profile: Profile
    stamp: Stamp
    times: Times


@dataclass(frozen=True, slots=True)
class Sample:
    """What a format found, before it is a Reading: values in each channel's unit, and the device's own time, number and boot."""

    values: dict[int, float | int]
    """By channel position; what is not there is missing."""
    ts_ms: int | None = None
    counter: int | None = None
    boot: int | None = None

    def reading(self, origin: Origin) -> Reading | Refusal:
        """Return the sample as codes with its time settled, or why it holds no reading."""
        if not self.values:
            return Refusal(Reason.BAD_VALUE, "no channel of the profile in it")
        codes: list[int | None] = [None] * len(origin.profile.channels)
        for position, value in self.values.items():
            channel = origin.profile.channels[position]
            try:
                code = channel.code(value)
            except (OverflowError, ValueError):
                return Refusal(Reason.BAD_VALUE, f"{channel.name} is not finite")
            if not CODE_MIN <= code <= CODE_MAX:
                return Refusal(Reason.BAD_VALUE, f"{channel.name} is over 64 bits")
            codes[position] = code
        return self.with_codes(origin, tuple(codes))

    def with_codes(self, origin: Origin, codes: tuple[int | None, ...]) -> Reading | Refusal:
        """Return the reading for codes that are made already."""
        for name, number in (("time", self.ts_ms), ("counter", self.counter), ("boot", self.boot)):
            if number is not None and not 0 <= number <= NUMBER_MAX:
                return Refusal(Reason.BAD_VALUE, f"{name} {number} is not in 0 to 2^63-1")
        counter = self.counter
        if counter is not None and self.boot is None:
            # A number that starts again at each start of the device names nothing without the start's own number.
            origin.times.counts["counter_without_boot"] += 1
            counter = None
        return Reading(
            device=origin.device,
            ts_ms=origin.times.settle(origin.device, self.ts_ms, origin.stamp),
            stamp=origin.stamp,
            codes=codes,
            counter=counter,
            source_boot=self.boot or 0,
        )
