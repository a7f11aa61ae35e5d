"""Machine: one cooler, circuit by circuit: is it cooling, is the coolant moving, what will break. One board for each model."""

from dashboards.boards.common import frame, machine_uid
from dashboards.grafana import Dashboard, Panel
from dashboards.influxql import chosen, select, tag_values
from dashboards.panels import GRAFANA_UNITS, STATES, Ask, chart, choice, limits, stat, timeline
from protocol.profile import Channel, Profile, Role
from protocol.series import COOLER, smooth_field

__all__ = ["board"]

MINE = chosen("device")
BUCKET = "$__interval"


def board(profile: Profile) -> Dashboard:
    """The board of a model's machines."""
    of_model = f"\"model\" = '{profile.id}'"  # ids are a-z 0-9 - (the profile is checked), so nothing needs quoting
    choices = (choice("device", tag_values(COOLER, "device", of_model), label="Machine", several=False),)
    panels: list[Panel] = _now(profile)
    for circuit in range(1, profile.circuits + 1):
        panels += _circuit(profile, circuit)
    panels += _whole(profile)
    description = f"One {profile.model}, circuit by circuit. Service information, not patient monitoring; the cooler's own display governs."
    return frame(machine_uid(profile), f"Icecap: {profile.model}", description, choices=choices, panels=panels, since="now-3h")


def _now(profile: Profile) -> list[Panel]:
    states = profile.by_role(Role.STATE)
    asks = [
        stat(
            Ask(
                f"What is circuit {state.circuit} doing?",
                "The machine's own state.",
                (select(f'last("{state.name}")', COOLER, MINE),),
                "none",
                4,
                4,
                mappings=(STATES,),
                no_value="unknown",
            )
        )
        for state in states
    ]
    for channel in (*profile.by_role(Role.COOLANT_TEMP), *profile.by_role(Role.TANK_LEVEL)):
        where = f" of circuit {channel.circuit}" if channel.circuit else ""
        asks.append(stat(_value_now(f"What is the {_words(channel)}{where}?", channel)))
    for channel in profile.by_role(Role.LIFETIME):
        query = select(f'last("{channel.name}")', COOLER, MINE)
        asks.append(
            stat(Ask("How long has it run in its life?", "The machine's own counter.", (query,), "s", 4, 4, decimals=1, no_value="unknown"))
        )
    return asks


def _value_now(title: str, channel: Channel) -> Ask:
    return Ask(
        title,
        "The newest smoothed value.",
        (select(f'last("{smooth_field(channel.name)}")', COOLER, MINE),),
        GRAFANA_UNITS[channel.unit],
        4,
        4,
        decimals=1,
        thresholds=limits(channel),
        no_value="unknown",
    )


def _circuit(profile: Profile, circuit: int) -> list[Panel]:
    coolant, target = profile.by_role(Role.COOLANT_TEMP, circuit), profile.by_role(Role.SET_POINT, circuit)
    caps, state = profile.by_role(Role.CAP_TEMP, circuit), profile.by_role(Role.STATE, circuit)
    panels: list[Panel] = []
    if coolant:
        lines = (*_smooth_and_raw(coolant), *((one.name, "set point") for one in target))
        panels.append(_chart(f"Does circuit {circuit} hold its set point?", coolant[0], lines, width=12))
    if caps:
        lines = tuple((smooth_field(one.name), one.name) for one in caps)
        panels.append(_chart(f"How cold are the caps of circuit {circuit}?", caps[0], lines, width=12))
    for role, title in (
        (Role.FLOW, f"Does coolant flow in circuit {circuit}?"),
        (Role.PRESSURE, f"Is circuit {circuit} blocked?"),
        (Role.PUMP_CURRENT, f"Does the pump of circuit {circuit} work hard?"),
    ):
        channels = profile.by_role(role, circuit)
        if channels:
            panels.append(_chart(title, channels[0], _smooth_and_raw(channels), width=8, height=7))
    if state:
        query = select(f'last("{state[0].name}") AS "circuit {circuit}"', COOLER, MINE, every=BUCKET, fill="null")
        title = f"What was circuit {circuit} doing when?"
        panels.append(timeline(Ask(title, "The machine's own state.", (query,), "none", 24, 4, alias="$col", mappings=(STATES,))))
    return panels


def _whole(profile: Profile) -> list[Panel]:
    panels: list[Panel] = []
    for role, title in (
        (Role.TANK_LEVEL, "Does it lose coolant?"),
        (Role.CONDENSER_TEMP, "Does the condenser get rid of its heat?"),
        (Role.AMBIENT_TEMP, "Is the room too warm?"),
        (Role.MAINS_VOLTAGE, "Is its mains steady?"),
    ):
        channels = profile.by_role(role)
        if channels:
            panels.append(_chart(title, channels[0], _smooth_and_raw(channels), width=6))
    measured = [channel for channel in profile.channels if not channel.discrete]
    return [*panels, _noise(measured), _missing(profile, measured)]


def _noise(measured: list[Channel]) -> Panel:
    """A failing sensor is noisy before it is wrong; both fields stand on the same points, so they can be subtracted."""
    differences = ", ".join(f'max("{one.name}") - min("{one.name}") AS "{one.name}"' for one in measured if one.role is Role.CAP_TEMP)
    query = select(differences, COOLER, MINE, every="1m", fill="null")
    ask = Ask(
        "Which cap sensor is restless?", "Highest less lowest raw value of each minute.", (query,), "celsius", 12, alias="$col", low=0.0
    )
    return chart(ask)


def _missing(profile: Profile, measured: list[Channel]) -> Panel:
    """A state is in every row; a channel that has fewer values than the state has lost the difference."""
    pulse = profile.by_role(Role.STATE)[0].name
    lost = ", ".join(f'count("{pulse}") - count("{one.name}") AS "{one.name}"' for one in measured)
    query = select(lost, COOLER, MINE, every="1m")
    title, description = "Which sensor has no reading?", "Samples a minute that were missing or that the gate refused."
    return chart(Ask(title, description, (query,), "none", 12, alias="$col", low=0.0), style="bars")


def _smooth_and_raw(channels: tuple[Channel, ...]) -> tuple[tuple[str, str], ...]:
    """Both of each channel: what the sensor said stands beside what was made of it."""
    return tuple(pair for one in channels for pair in ((smooth_field(one.name), one.name), (one.name, f"{one.name} raw")))


def _chart(title: str, channel: Channel, lines: tuple[tuple[str, str], ...], *, width: int, height: int = 8) -> Panel:
    """``lines`` are pairs of a field and what it is called."""
    values = ", ".join(f'mean("{name}") AS "{shown}"' for name, shown in lines)
    query = select(values, COOLER, MINE, every=BUCKET, fill="null")
    within = limits(channel)
    description = f"Means of the interval, in {channel.unit}." + (" Dashed: this model's service limits." if within else "")
    return chart(Ask(title, description, (query,), GRAFANA_UNITS[channel.unit], width, height, alias="$col", thresholds=within))


def _words(channel: Channel) -> str:
    return {Role.COOLANT_TEMP: "coolant temperature", Role.TANK_LEVEL: "tank level"}[channel.role]
