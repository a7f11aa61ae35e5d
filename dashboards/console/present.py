"""Present: how a machine stands and how a number is written. Pure: values in, view records out; no database, no HTML.

Invariant: unknown is not zero. A value that nobody measured, or that is too old to speak of now, is ``None`` here and a dash on the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from protocol.profile import Channel, Profile, Role
from protocol.reading import MachineState

__all__ = [
    "BUSY",
    "CHANNEL_STALE_MS",
    "Ages",
    "Circuit",
    "Last",
    "Measure",
    "Standing",
    "Trouble",
    "age_text",
    "circuits",
    "label",
    "measures",
    "number",
    "stand",
    "state_name",
    "unit_text",
]

CHANNEL_STALE_MS = 120_000  # a channel this far behind its machine's newest sample is not 'now': its sensor stopped, the others did not

COOLING = frozenset({MachineState.READY, MachineState.PRE_COOL, MachineState.INFUSION, MachineState.POST_COOL})
PUMPING = frozenset({MachineState.PRE_COOL, MachineState.INFUSION, MachineState.POST_COOL})
BUSY = PUMPING | {MachineState.WARM_UP, MachineState.PAUSED}
SETTLED = frozenset({MachineState.INFUSION, MachineState.POST_COOL})
LIMITS_APPLY: Mapping[Role, frozenset[MachineState]] = {
    Role.COOLANT_TEMP: COOLING,
    Role.CAP_TEMP: SETTLED,
    Role.FLOW: PUMPING,
}
"""A warm tank is normal in a machine that is off: these roles' service limits hold only in these states; all others always."""

UNIT_TEXT = {"degC": "°C", "l/min": "L/min", "1": ""}
ROLE_TEXT = {
    Role.COOLANT_TEMP: "Coolant",
    Role.CAP_TEMP: "Cap",
    Role.FLOW: "Flow",
    Role.PRESSURE: "Pressure",
    Role.PUMP_CURRENT: "Pump current",
    Role.TANK_LEVEL: "Tank level",
    Role.AMBIENT_TEMP: "Ambient",
    Role.CONDENSER_TEMP: "Condenser",
    Role.MAINS_VOLTAGE: "Mains",
    Role.SET_POINT: "Set-point",
    Role.STATE: "State",
    Role.LIFETIME: "Running time",
}
STATE_TEXT = {
    MachineState.OFF: "Off",
    MachineState.COOLING_DOWN: "Cooling down",
    MachineState.READY: "Ready",
    MachineState.PRE_COOL: "Pre-cool",
    MachineState.INFUSION: "Infusion",
    MachineState.POST_COOL: "Post-cool",
    MachineState.WARM_UP: "Warm-up",
    MachineState.PAUSED: "Paused",
    MachineState.FAULT: "Fault",
}


class Standing(IntEnum):
    """How a machine stands, worst first; the number is the sort order."""

    FAULT = 0
    """The machine itself reports a fault."""
    SILENT = 1
    """It has reported before and has not for a long time."""
    LIMIT = 2
    """A value is outside the model's service limits."""
    LATE = 3
    """Data are late or the gateway is offline."""
    NEVER = 4
    """Registered, and nothing has ever come."""
    FINE = 5
    """Data are fresh and inside the limits."""

    @property
    def text(self) -> str:
        """The word on the page."""
        return ("Fault", "Silent", "Check", "Late", "No data yet", "Normal")[self.value]

    @property
    def tone(self) -> str:
        """The colour family: bad, warn, mute or good. Never the only sign: the word stands beside it."""
        return ("bad", "bad", "warn", "warn", "mute", "good")[self.value]


@dataclass(frozen=True, slots=True)
class Last:
    """The newest valid value of one channel: thousandths of its unit, and the sample's wall time."""

    ts_ms: int
    value_milli: int


@dataclass(frozen=True, slots=True)
class Ages:
    """When data count as late and as silent, in milliseconds of the machines' clock."""

    late_ms: int
    silent_ms: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason why a machine does not stand well, in words for a person."""

    standing: Standing
    text: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One channel ready for a page. ``milli`` is ``None`` when unknown; ``out`` tells that a service limit that applies now is crossed."""

    channel: Channel
    label: str
    milli: int | None
    ts_ms: int | None
    out: bool = False

    @property
    def text(self) -> str:
        """The number with at most two decimals, or a dash."""
        return number(self.milli, min(self.channel.decimals, 2))

    @property
    def unit(self) -> str:
        """The unit as people write it."""
        return unit_text(self.channel.unit)


@dataclass(frozen=True, slots=True)
class Circuit:
    """One of a machine's circuits; number 0 is what belongs to the whole machine."""

    number: int
    state: MachineState | None
    measures: tuple[Measure, ...]

    @property
    def is_busy(self) -> bool:
        """Whether somebody is being treated with it."""
        return self.state in BUSY

    @property
    def is_faulty(self) -> bool:
        """Whether the machine reports a fault of it."""
        return self.state is MachineState.FAULT

    def first(self, role: str) -> Measure | None:
        """Return the first measure of a role (by its value, for templates), or ``None``."""
        return next((one for one in self.measures if one.channel.role == role), None)

    def all(self, role: str) -> tuple[Measure, ...]:
        """Return every measure of a role."""
        return tuple(one for one in self.measures if one.channel.role == role)


def number(milli: int | None, decimals: int) -> str:
    """Return thousandths as decimal text with a true minus sign, or an en dash for unknown; rounds half to even as ``format`` does."""
    if milli is None:
        return "–"
    text = f"{milli / 1000:.{decimals}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text.replace("-", "−")


def unit_text(unit: str) -> str:
    """Return a profile's unit as people write it."""
    return UNIT_TEXT.get(unit, unit)


def state_name(state: MachineState | None) -> str:
    """Return the word for a state, or ``Unknown``."""
    return "Unknown" if state is None else STATE_TEXT[state]


def age_text(age_ms: int | None) -> str:
    """Return an age in its two largest useful units: ``8 s``, ``4 min``, ``3 h 05 min``, ``2 d 4 h``."""
    if age_ms is None:
        return "never"
    seconds = max(age_ms, 0) // 1000
    if seconds < 90:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def label(profile: Profile, channel: Channel) -> str:
    """Return a channel's name for people: its role, with a letter where a circuit has several."""
    siblings = profile.by_role(channel.role, channel.circuit)
    text = ROLE_TEXT[channel.role]
    return text if len(siblings) < 2 else f"{text} {chr(ord('A') + siblings.index(channel))}"


def measures(profile: Profile, last: Mapping[str, Last]) -> tuple[Measure, ...]:
    """Return every channel of the profile with its newest value, where that is as new as the machine's newest."""
    newest_ms = max((one.ts_ms for one in last.values()), default=0)
    states = {one.circuit: _state(last.get(one.name), newest_ms) for one in profile.by_role(Role.STATE)}
    rows = []
    for channel in profile.channels:
        known = last.get(channel.name)
        current = known if known is not None and newest_ms - known.ts_ms <= CHANNEL_STALE_MS else None
        milli = current.value_milli if current else None
        out = _is_out(channel, milli) and _limits_hold(channel.role, states.get(channel.circuit))
        rows.append(Measure(channel, label(profile, channel), milli, known.ts_ms if known else None, out))
    return tuple(rows)


def circuits(profile: Profile, rows: Sequence[Measure]) -> tuple[Circuit, ...]:
    """Return the machine's part (0) and its circuits with their state and measures."""
    parts = []
    for index in range(profile.circuits + 1):
        own = tuple(row for row in rows if row.channel.circuit == index)
        state_row = next((row for row in own if row.channel.role == Role.STATE), None)
        state = _as_state(state_row.milli) if state_row else None
        parts.append(Circuit(index, state, tuple(row for row in own if row.channel.role != Role.STATE)))
    return tuple(parts)


def stand(parts: Sequence[Circuit], *, age_ms: int | None, online: bool | None, ages: Ages) -> tuple[Trouble, ...]:
    """Return every trouble of a machine, worst first; none means fine. ``online`` is the gateway's, ``None`` when unknown.

    Values of a silent machine say nothing about now, so only its silence counts.
    """
    if age_ms is None:
        return (Trouble(Standing.NEVER, "Nothing received yet"),)
    if age_ms >= ages.silent_ms:
        return (Trouble(Standing.SILENT, f"Silent for {age_text(age_ms)}"),)
    found = [Trouble(Standing.FAULT, f"Circuit {part.number}: fault reported by the machine") for part in parts if part.is_faulty]
    found += [Trouble(Standing.LIMIT, _limit_text(part, row)) for part in parts for row in part.measures if row.out]
    if age_ms >= ages.late_ms:
        found.append(Trouble(Standing.LATE, f"Data {age_text(age_ms)} old"))
    if online is False:
        found.append(Trouble(Standing.LATE, "Gateway offline"))
    return tuple(sorted(found, key=lambda one: one.standing))


def _limit_text(part: Circuit, row: Measure) -> str:
    channel = row.channel
    low = channel.alarm_lo is not None and row.milli is not None and row.milli < channel.alarm_lo * 1000
    limit = channel.alarm_lo if low else channel.alarm_hi
    what = f"circuit {part.number}: {row.label.lower()}" if part.number else row.label
    bound = number(round((limit or 0) * 1000), 1)
    return f"{what[0].upper()}{what[1:]} {row.text} {row.unit}, {'below' if low else 'above'} {bound}"


def _is_out(channel: Channel, milli: int | None) -> bool:
    if milli is None:
        return False
    low = channel.alarm_lo is not None and milli < channel.alarm_lo * 1000
    return low or (channel.alarm_hi is not None and milli > channel.alarm_hi * 1000)


def _limits_hold(role: Role, state: MachineState | None) -> bool:
    return role not in LIMITS_APPLY or state in LIMITS_APPLY[role]


def _state(known: Last | None, newest_ms: int) -> MachineState | None:
    if known is None or newest_ms - known.ts_ms > CHANNEL_STALE_MS:
        return None
    return _as_state(known.value_milli)


def _as_state(milli: int | None) -> MachineState | None:
    """A code that we do not know is unknown, not Off."""
    if milli is None or milli % 1000 or milli // 1000 not in MachineState._value2member_map_:
        return None
    return MachineState(milli // 1000)
