"""Charts: which channels share a picture, and what the browser must know to draw it. No data and no drawing.

Invariant: curves share a chart only when they share a unit, so every axis has one unit, taken from the profile.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.console.present import BUSY, label, state_name, unit_text
from protocol.profile import Channel, Profile, Role
from protocol.reading import MachineState

__all__ = ["Group", "groups", "plan_json"]

_TOGETHER: tuple[tuple[str, str, tuple[Role, ...]], ...] = (
    ("temperature", "How cold are coolant and cap?", (Role.COOLANT_TEMP, Role.CAP_TEMP, Role.SET_POINT)),
    ("flow", "Does the coolant flow?", (Role.FLOW,)),
    ("pressure", "Is a hose kinked or leaking?", (Role.PRESSURE,)),
    ("current", "Does the pump work hard?", (Role.PUMP_CURRENT,)),
    ("heat", "Does the machine get rid of its heat?", (Role.CONDENSER_TEMP, Role.AMBIENT_TEMP)),
    ("level", "Is the tank full?", (Role.TANK_LEVEL,)),
    ("mains", "Is the mains steady?", (Role.MAINS_VOLTAGE,)),
)
"""A chart answers one question; its title is that question. State is not drawn as a number, lifetime only ever rises."""

_INK = {Role.COOLANT_TEMP: 1, Role.CAP_TEMP: 2, Role.SET_POINT: 0, Role.AMBIENT_TEMP: 3}
"""Which ink of the style sheet a role is drawn with; siblings take the following ones. The set-point is drawn quietly."""


@dataclass(frozen=True, slots=True)
class Group:
    """One chart. ``circuit`` 0 is the whole machine."""

    key: str
    title: str
    circuit: int
    unit: str
    channels: tuple[tuple[Channel, str, int], ...]
    """Channel, its label, its ink."""
    state: str = ""
    """The circuit's state channel, whose phases are written above the large chart."""

    @property
    def id(self) -> str:
        """The element's id."""
        return f"chart-{self.key}-{self.circuit}"

    @property
    def is_large(self) -> bool:
        """Whether this is one of the charts that people come for."""
        return self.key == "temperature"


def groups(profile: Profile) -> tuple[Group, ...]:
    """Return the charts of a profile: circuit by circuit, the machine's own last."""
    found = []
    for circuit in (*range(1, profile.circuits + 1), 0):
        for key, title, roles in _TOGETHER:
            members = [channel for channel in profile.channels if channel.role in roles and channel.circuit == circuit]
            units = sorted({channel.unit for channel in members})
            for unit in units:
                same = [channel for channel in members if channel.unit == unit]
                states = profile.by_role(Role.STATE, circuit) if key == "temperature" and circuit else ()
                state = states[0].name if states else ""
                found.append(Group(key, title, circuit, unit_text(unit), _inked(profile, same), state))
    return tuple(found)


def _inked(profile: Profile, channels: Sequence[Channel]) -> tuple[tuple[Channel, str, int], ...]:
    inked = []
    for channel in channels:
        siblings = profile.by_role(channel.role, channel.circuit)
        first = _INK.get(channel.role, 1)
        inked.append((channel, label(profile, channel), first + siblings.index(channel) if first else 0))
    return tuple(inked)


def plan_json(all_groups: Sequence[Group]) -> str:
    """Return what the browser needs to draw the charts."""
    return json.dumps(
        [
            {
                "id": group.id,
                "unit": group.unit,
                "large": group.is_large,
                "state": group.state,
                "phases": {state.value: state_name(state) for state in MachineState} if group.state else {},
                "busy": sorted(BUSY) if group.state else [],
                "curves": [
                    {
                        "name": channel.name,
                        "label": text,
                        "ink": ink,
                        "stepped": channel.discrete,
                        "decimals": min(channel.decimals, 2),
                        "lo": channel.alarm_lo,
                        "hi": channel.alarm_hi,
                    }
                    for channel, text, ink in group.channels
                ],
            }
            for group in all_groups
        ]
    )
