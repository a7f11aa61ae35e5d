"""Reading and Stamp: one sample of one cooler as it travels from a source to a block. Not the wire format (``frame``, ``block``).

Invariant: time and identity are stamped at the first hop and carried; no later stage reads a clock again for them.
"""

from dataclasses import dataclass
from enum import IntEnum

from protocol.clock import ClockQuality
from protocol.units import DeviceId

__all__ = ["CODE_MAX", "CODE_MIN", "MachineState", "Quality", "Reading", "Stamp"]

CODE_MIN = -(2**63)  # codes are int64 in every block
CODE_MAX = 2**63 - 1  # the other end of int64


class Quality(IntEnum):
    """What the gate says of one sample. The numbers are on the wire and equal the constants of ``native.smooth``."""

    OK = 0
    MISSING = 1
    """The device sent no value for this channel in this row."""
    SENTINEL = 2
    """The value is one that the sensor uses to say 'no reading' (85.00, -127.00, 0x8000)."""
    RANGE = 3
    """Outside what the sensor can physically report."""
    SPIKE = 4
    """The innovation gate rejected it: not consistent with the signal and not yet confirmed as a step."""
    RATE = 5
    """It moved faster than the profile says the quantity can."""
    STALE = 6
    """The device repeated an old sample: its counter or clock did not advance."""
    COASTED = 7
    """Only on derived values: extrapolated over a gap. Never stored in a block."""


class MachineState(IntEnum):
    """Codes of a channel whose role is STATE: what the cooler says it is doing. The cooler decides; Icecap only reads it."""

    OFF = 0
    COOLING_DOWN = 1
    READY = 2
    PRE_COOL = 3
    INFUSION = 4
    POST_COOL = 5
    WARM_UP = 6
    PAUSED = 7
    FAULT = 8


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who counted it and when: carried from the first hop to the ledger.

    ``boot`` is a random 64-bit number made at each start of the gateway process; ``monotonic_ms`` means something only within one boot.
    """

    boot: int
    monotonic_ms: int
    wall_ms: int
    quality: ClockQuality


@dataclass(frozen=True, slots=True)
class Reading:
    """One row of one cooler: integer codes in the profile's channel order.

    ``ts_ms`` is the wall time of the sample (the device's own when it has a believable clock, else the gateway's at arrival).
    ``counter`` and ``source_boot`` are the device's own sample number and boot number when it sends them: the dedupe key at the edge.
    ``codes`` holds ``None`` where the device sent nothing: unknown is not zero.
    """

    device: DeviceId
    ts_ms: int
    stamp: Stamp
    codes: tuple[int | None, ...]
    counter: int | None = None
    source_boot: int = 0
