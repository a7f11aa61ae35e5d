"""Condition: what the gate says of each sample, and its smooth value beside it. Not a store, and it never changes a raw code.

Invariant: pure and deterministic. The same readings in the same order give the same rows on every machine, so the cloud can run the same
kernel over the stored raw codes and get the same smooth curve.
"""

from dataclasses import dataclass

from protocol.profile import Profile, Role
from protocol.reading import MachineState, Reading

__all__ = ["IN_SESSION", "ConditionedRow", "is_in_session"]

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
