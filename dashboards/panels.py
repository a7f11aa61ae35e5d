"""Panels: each answers one question, which is its title, with the unit that the profile gives its channels. Not the boards themselves.

Invariant: every query is InfluxQL of the subset that InfluxDB 1.x, 2.x and 3 share (``PORTABLE``), and asks only for names that
``protocol.series`` and the profiles say are written.
"""

from collections.abc import Mapping as Names
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from dashboards.grafana import (
    Custom,
    DataSource,
    Defaults,
    FieldConfig,
    GridPos,
    Legend,
    Link,
    Mapping,
    Matcher,
    Options,
    Override,
    Panel,
    Property,
    ReduceOptions,
    Sort,
    SortField,
    SortOptions,
    Step,
    Target,
    Text,
    Thresholds,
    ThresholdsStyle,
    Tooltip,
    Transformation,
    Variable,
)
from protocol.profile import UNITS, Channel
from protocol.reading import MachineState

__all__ = [
    "GRAFANA_UNITS",
    "PORTABLE",
    "SOURCE",
    "STATES",
    "Ask",
    "bars",
    "by_name",
    "chart",
    "choice",
    "lay_out",
    "limits",
    "merged",
    "ordered",
    "source_choice",
    "stat",
    "table",
    "timeline",
]

SOURCE = DataSource(type="influxdb", uid="${source}")
COLUMNS = 24  # Grafana's grid

GRAFANA_UNITS: Names[str, str] = {
    "degC": "celsius",
    "l/min": "flowlpm",
    "kPa": "pressurekpa",
    "A": "amp",
    "%": "percent",
    "V": "volt",
    "s": "s",
    "1": "none",
}
"""Our units in Grafana's words; a profile's unit without one does not build."""
assert set(GRAFANA_UNITS) == set(UNITS)

PORTABLE = frozenset(
    {
        "mean",
        "min",
        "max",
        "sum",
        "count",
        "first",
        "last",
        "percentile",
        "median",
        "difference",
        "derivative",
        "non_negative_derivative",
        "non_negative_difference",
        "moving_average",
        "elapsed",
        "cumulative_sum",
        "time",
        "fill",
    }
)
"""Functions that all of InfluxDB 1.x, 2.x and 3 answer. Not ``integral``, not ``SHOW … CARDINALITY``, no aggregate of text or booleans."""

STATE_COLOURS: Names[MachineState, str] = {
    MachineState.OFF: "#8e9aa6",
    MachineState.COOLING_DOWN: "#7fb2d9",
    MachineState.READY: "#4caf7a",
    MachineState.PRE_COOL: "#3f8fc7",
    MachineState.INFUSION: "#1f5fa8",
    MachineState.POST_COOL: "#5a78c0",
    MachineState.WARM_UP: "#d9a441",
    MachineState.PAUSED: "#b58a2a",
    MachineState.FAULT: "#c8402f",
}

STATES = Mapping(
    type="value",
    options={
        str(int(state)): Text(text=state.name.lower().replace("_", " "), color=STATE_COLOURS[state], index=int(state))
        for state in MachineState
    },
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a panel of any type says: the question, how to read the answer, and its size on the grid."""

    title: str
    description: str
    queries: tuple[str, ...]
    unit: str
    width: int
    height: int = 8
    alias: str = ""
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    thresholds: Thresholds | None = None
    mappings: tuple[Mapping, ...] = ()
    links: tuple[Link, ...] = ()
    overrides: tuple[Override, ...] = ()
    time_from: str | None = None
    no_value: str | None = None
    transformations: tuple[Transformation, ...] = field(default=())


def chart(ask: Ask, *, style: Literal["line", "bars", "points"] = "line", fill: int = 0) -> Panel:
    """How something went over time. Gaps stay gaps: what was not measured is not drawn."""
    custom = Custom(
        line_width=1 if style != "bars" else 0,
        fill_opacity=70 if style == "bars" else fill,
        span_nulls=False,
        show_points="auto",
        draw_style=style,
        thresholds_style=ThresholdsStyle(mode="dashed") if ask.thresholds else None,
    )
    options = Options(
        legend=Legend(display_mode="list", placement="bottom", show_legend=True, calcs=()), tooltip=Tooltip(mode="multi", sort="desc")
    )
    return _panel(ask, "timeseries", custom, options, interval="10s")


def stat(ask: Ask, *, reduce: str = "lastNotNull", graph: bool = False) -> Panel:
    """One number, large."""
    options = Options(
        reduce_options=ReduceOptions(calcs=(reduce,), fields="", values=False),
        color_mode="value",
        graph_mode="area" if graph else "none",
        text_mode="value_and_name" if len(ask.queries) > 1 else "value",
        orientation="auto",
    )
    return _panel(ask, "stat", Custom(), options)


def bars(ask: Ask) -> Panel:
    """One number a machine or gateway, side by side."""
    options = Options(
        reduce_options=ReduceOptions(calcs=("lastNotNull",), fields="", values=False), orientation="horizontal", display_mode="gradient"
    )
    return _panel(ask, "bargauge", Custom(), options)


def table(ask: Ask, *, sort_by: str, desc: bool = False) -> Panel:
    """Several values a machine, worst first."""
    options = Options(show_header=True, sort_by=(SortField(display_name=sort_by, desc=desc),))
    return _panel(ask, "table", Custom(filterable=True), options, result_format="table")


def timeline(ask: Ask) -> Panel:
    """Which state held when."""
    options = Options(
        show_value="auto",
        merge_values=True,
        legend=Legend(display_mode="list", placement="bottom", show_legend=True, calcs=()),
        tooltip=Tooltip(mode="single", sort="none"),
    )
    return _panel(ask, "state-timeline", Custom(fill_opacity=85, line_width=0), options, interval="10s")


def _panel(
    ask: Ask,
    kind: Literal["timeseries", "stat", "bargauge", "table", "state-timeline"],
    custom: Custom,
    options: Options,
    *,
    interval: str | None = None,
    result_format: Literal["time_series", "table"] = "time_series",
) -> Panel:
    """Without a place yet: ``lay_out`` gives it one, and its number."""
    targets = tuple(
        Target(ref_id=chr(ord("A") + place), datasource=SOURCE, query=query, raw_query=True, result_format=result_format, alias=ask.alias)
        for place, query in enumerate(ask.queries)
    )
    defaults = Defaults(
        unit=ask.unit,
        custom=custom,
        decimals=ask.decimals,
        min=ask.low,
        max=ask.high,
        no_value=ask.no_value,
        thresholds=ask.thresholds,
        mappings=ask.mappings,
        links=ask.links,
    )
    return Panel(
        id=0,
        type=kind,
        title=ask.title,
        description=ask.description,
        datasource=SOURCE,
        grid_pos=GridPos(h=ask.height, w=ask.width, x=0, y=0),
        targets=targets,
        field_config=FieldConfig(defaults=defaults, overrides=ask.overrides),
        options=options,
        interval=interval,
        time_from=ask.time_from,
        transformations=ask.transformations,
    )


def lay_out(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """Place panels from left to right, a new line where one does not fit, numbered from 1: the same list gives the same board."""
    placed: list[Panel] = []
    x = y = height = 0
    for number, one in enumerate(panels, 1):
        size = one.grid_pos
        if x + size.w > COLUMNS:
            x, y, height = 0, y + height, 0
        position = GridPos(h=size.h, w=size.w, x=x, y=y)
        placed.append(msgspec.structs.replace(one, id=number, grid_pos=position))
        x, height = x + size.w, max(height, size.h)
    return tuple(placed)


def limits(channel: Channel) -> Thresholds | None:
    """The profile's service limits as colours; ``None`` for a channel that has none."""
    if channel.alarm_lo is None and channel.alarm_hi is None:
        return None
    steps = [Step(color="red" if channel.alarm_lo is not None else "green", value=None)]
    if channel.alarm_lo is not None:
        steps.append(Step(color="green", value=channel.alarm_lo))
    if channel.alarm_hi is not None:
        steps.append(Step(color="red", value=channel.alarm_hi))
    return Thresholds(mode="absolute", steps=tuple(steps))


def source_choice() -> Variable:
    """Which InfluxDB."""
    return Variable(type="datasource", name="source", label="Data source", query="influxdb")


def choice(name: str, query: str, *, label: str, several: bool = True) -> Variable:
    """A choice among the values of a tag."""
    return Variable(
        type="query",
        name=name,
        label=label,
        query=query,
        datasource=SOURCE,
        multi=several,
        include_all=several,
        allow_custom_value=False,  # else a reader could type one
        refresh=2,  # at every change of the time range: machines come and go
        sort=1,
    )


def by_name(name: str, *properties: Property) -> Override:
    """Show one column in its own way."""
    return Override(matcher=Matcher(id="byName", options=name), properties=properties)


def ordered(column: str, *, desc: bool = False) -> Transformation:
    """Sort the rows of an answer."""
    return Transformation(id="sortBy", options=SortOptions(sort=(Sort(field=column, desc=desc),)))


def merged() -> Transformation:
    """Put the answers of several queries into one table."""
    return Transformation(id="merge", options=SortOptions())
