"""Fleet: which machine needs somebody, over all sites. The first page of a service engineer and of a fleet manager."""

from collections.abc import Sequence

from dashboards.boards.common import FLEET_UID, frame, machine_uid, of_role, the_one
from dashboards.grafana import Dashboard, Link, Panel, Property
from dashboards.influxql import chosen, select, tag_values
from dashboards.panels import (
    GRAFANA_UNITS,
    STATES,
    Ask,
    bars,
    by_name,
    chart,
    choice,
    limits,
    merged,
    ordered,
    stat,
    table,
)
from protocol.profile import Channel, Profile, Role
from protocol.reading import MachineState
from protocol.series import COOLER, smooth_field

__all__ = ["board"]

MINE = chosen("site", "model")
PUMP_RUNS_A = 0.3  # a standing pump's driver draws a few hundredths
NOW = "15m"  # a machine in a session is heard every minute, an idle one every five: three missed blocks are a silence


def board(profiles: Sequence[Profile]) -> Dashboard:
    """The fleet's board over all known models."""
    choices = (
        choice("site", tag_values(COOLER, "site"), label="Site"),
        choice("model", tag_values(COOLER, "model"), label="Model"),
    )
    panels = (*_now(profiles), *_who(profiles), *_over_time(profiles), *_limits(profiles))
    description = "Which machine needs somebody. Service information, not patient monitoring; the cooler's own display governs."
    return frame(FLEET_UID, "Icecap: fleet", description, choices=choices, panels=panels, since="now-6h")


def _now(profiles: Sequence[Profile]) -> list[Panel]:
    pulse = the_one(profiles, Role.STATE).name
    reporting = stat(
        Ask(
            "How many machines reported in the last 15 minutes?",
            "Machines with a sample.",
            (select('count("state")', _newest(pulse, "state")),),
            "none",
            6,
            5,
            time_from=NOW,
            no_value="none",
        )
    )
    arriving = stat(
        Ask(
            "How many samples a minute arrive?",
            "Rows of all machines, whole minutes.",
            (select(f'count("{pulse}")', COOLER, MINE, every="1m"),),
            "none",
            6,
            5,
            time_from="1h",
            no_value="none",
        ),
        graph=True,
    )
    treating = f'"state" >= {int(MachineState.PRE_COOL)} AND "state" <= {int(MachineState.POST_COOL)}'
    faulty = f'"state" = {int(MachineState.FAULT)}'
    return [
        reporting,
        _in_state(
            profiles, "How many circuits are in a treatment?", "Pre-cooling, infusion or post-cooling, as they say themselves.", treating
        ),
        _in_state(profiles, "How many circuits report a fault?", "The machine's own fault state.", faulty),
        arriving,
    ]


def _in_state(profiles: Sequence[Profile], title: str, description: str, condition: str) -> Panel:
    """How many machines' newest state meets the condition, for each circuit."""
    queries = tuple(
        select(f'count("state") AS "circuit {state.circuit}"', _newest(state.name, "state"), condition)
        for state in of_role(profiles, Role.STATE)
    )
    return stat(Ask(title, description, queries, "none", 6, 5, alias="$col", time_from=NOW, no_value="none"))


def _who(profiles: Sequence[Profile]) -> list[Panel]:
    states = of_role(profiles, Role.STATE)
    columns = [*states, *of_role(profiles, Role.COOLANT_TEMP), *of_role(profiles, Role.FLOW), *of_role(profiles, Role.TANK_LEVEL)]
    values = ", ".join(f'last("{channel.name}") AS "{channel.name}"' for channel in columns)
    open_machine = (
        Link(title="Open this machine", url=f"/d/{machine_uid(profiles[0])}?var-device=${{__data.fields.device}}&${{source:queryparam}}"),
    )
    overrides = [by_name(channel.name, *_column(channel)) for channel in columns]
    return [
        table(
            Ask(
                "What does each machine say now?",
                "The newest values of the last 15 minutes; red is outside the model's service limits.",
                (select(values, COOLER, MINE, by=["device", "site"]),),
                "none",
                16,
                10,
                time_from=NOW,
                links=open_machine,
                overrides=(
                    *overrides,
                    by_name("Time", Property(id="custom.hidden", value=True)),
                ),
            ),
            sort_by="device",
        ),
        table(
            Ask(
                "Which machine has been silent for the longest?",
                "When each machine's newest sample was taken.",
                (select(f'last("{states[0].name}") AS "state"', COOLER, MINE, by=["device"]),),
                "none",
                8,
                10,
                overrides=(
                    by_name("Time", Property(id="unit", value="dateTimeFromNow"), Property(id="displayName", value="newest sample")),
                    by_name("state", Property(id="custom.hidden", value=True)),
                ),
                transformations=(merged(), ordered("Time")),
            ),
            sort_by="newest sample",
        ),
    ]


def _over_time(profiles: Sequence[Profile]) -> list[Panel]:
    mains, pulse = the_one(profiles, Role.MAINS_VOLTAGE), the_one(profiles, Role.STATE).name
    volts = f'min("{mains.name}") AS "lowest", max("{mains.name}") AS "highest"'
    return [
        _by_device("How cold is the coolant?", "Smoothed coolant temperature of each circuit.", of_role(profiles, Role.COOLANT_TEMP)),
        _flow(profiles),
        chart(
            Ask(
                "Is the mains steady?",
                "Lowest and highest voltage at each site.",
                (select(volts, COOLER, MINE, by=["site"], every="$__interval", fill="null"),),
                GRAFANA_UNITS[mains.unit],
                12,
                alias="$tag_site $col",
                thresholds=limits(mains),
            )
        ),
        chart(
            Ask(
                "How many samples does each site send?",
                "Rows a minute.",
                (select(f'count("{pulse}") AS "rows"', COOLER, MINE, by=["site"], every="1m"),),
                "none",
                12,
                alias="$tag_site",
                low=0.0,
            ),
            style="bars",
        ),
    ]


def _flow(profiles: Sequence[Profile]) -> Panel:
    """A still pump has no flow and is no fault, so each flow is asked for together with its own pump's current."""
    pairs = {
        (flow.name, pump.name): flow
        for profile in profiles
        for flow in profile.by_role(Role.FLOW)
        for pump in profile.by_role(Role.PUMP_CURRENT, flow.circuit)
    }
    channel = next(iter(pairs.values()))
    queries = tuple(
        select(
            f'min("{flow}") AS "{flow}"',
            COOLER,
            f'{MINE} AND "{pump}" > {PUMP_RUNS_A}',
            by=["device"],
            every="$__interval",
            fill="null",
        )
        for flow, pump in sorted(pairs)
    )
    description = f"The lowest flow while the pump of the same circuit draws more than {PUMP_RUNS_A} A."
    unit, within = GRAFANA_UNITS[channel.unit], limits(channel)
    return chart(
        Ask("Does coolant flow where a pump runs?", description, queries, unit, 12, alias="$tag_device $col", thresholds=within, low=0.0)
    )


def _limits(profiles: Sequence[Profile]) -> list[Panel]:
    condenser, tank = the_one(profiles, Role.CONDENSER_TEMP), the_one(profiles, Role.TANK_LEVEL)
    pulse = the_one(profiles, Role.STATE).name
    silences = select(f'elapsed("{pulse}", 1s) AS "gap"', COOLER, MINE, by=["device"])
    return [
        bars(
            Ask(
                "Which condensers run hot?",
                "The highest smoothed temperature in the chosen time.",
                (select(f'max("{smooth_field(condenser.name)}")', COOLER, MINE, by=["device"]),),
                GRAFANA_UNITS[condenser.unit],
                8,
                9,
                alias="$tag_device",
                thresholds=limits(condenser),
                low=0.0,
                high=90.0,
            )
        ),
        bars(
            Ask(
                "Which tanks need filling?",
                "The newest smoothed level.",
                (select(f'last("{smooth_field(tank.name)}")', COOLER, MINE, by=["device"]),),
                GRAFANA_UNITS[tank.unit],
                8,
                9,
                alias="$tag_device",
                thresholds=limits(tank),
                low=tank.lo,
                high=tank.hi,
            )
        ),
        bars(
            Ask(
                "How long was each machine's longest silence?",
                "The longest time between two samples, in the chosen time.",
                (select('max("gap")', f"({silences})", by=["device"]),),
                "s",
                8,
                9,
                alias="$tag_device",
                low=0.0,
            )
        ),
    ]


def _by_device(title: str, description: str, channels: Sequence[Channel]) -> Panel:
    values = ", ".join(f'mean("{smooth_field(channel.name)}") AS "circuit {channel.circuit}"' for channel in channels)
    query = select(values, COOLER, MINE, by=["device"], every="$__interval", fill="null")
    unit = GRAFANA_UNITS[channels[0].unit]
    return chart(Ask(title, description, (query,), unit, 12, alias="$tag_device $col", thresholds=limits(channels[0])))


def _newest(field: str, name: str) -> str:
    """The newest value of a field of each machine, as a source for another question."""
    inner = select(f'last("{field}") AS "{name}"', COOLER, MINE, by=["device"])
    return f"({inner})"


def _column(channel: Channel) -> list[Property]:
    """How a column of the table of newest values is shown."""
    if channel.role is Role.STATE:
        return [Property(id="mappings", value=(STATES,)), Property(id="custom.cellOptions.type", value="color-text")]
    shown = [Property(id="unit", value=GRAFANA_UNITS[channel.unit]), Property(id="decimals", value=1)]
    within = limits(channel)
    return (
        shown
        if within is None
        else [*shown, Property(id="thresholds", value=within), Property(id="custom.cellOptions.type", value="color-text")]
    )
