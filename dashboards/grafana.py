"""Grafana's dashboard JSON as types: the part of its schema that our boards use. Not a builder (``panels``) and not a client (``push``).

Invariant: what these types cannot say is not in a board, so a slip of a key is an error here and not an empty panel in a clinic.
"""

from typing import Literal

import msgspec

__all__ = [
    "SCHEMA_VERSION",
    "Custom",
    "Dashboard",
    "DataSource",
    "Defaults",
    "FieldConfig",
    "GridPos",
    "Link",
    "Mapping",
    "Matcher",
    "Options",
    "Override",
    "Panel",
    "Property",
    "ReduceOptions",
    "Sort",
    "SortField",
    "SortOptions",
    "Step",
    "Target",
    "Templating",
    "Text",
    "Thresholds",
    "ThresholdsStyle",
    "TimeRange",
    "Transformation",
    "Variable",
]

SCHEMA_VERSION = 39
"""Of the dashboard JSON: Grafana 11; later servers migrate it when they load it."""

PanelType = Literal["timeseries", "stat", "bargauge", "table", "state-timeline"]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Base: camel case on the wire, nothing that was not said, nothing that is not known."""


class DataSource(Part, frozen=True):
    """Always the variable ``source``, so that a board works in every Grafana without an edit."""

    type: str
    uid: str


class Target(Part, frozen=True):
    """One InfluxQL query."""

    ref_id: str
    datasource: DataSource
    query: str
    raw_query: bool
    result_format: Literal["time_series", "table"]
    alias: str = ""


class GridPos(Part, frozen=True):
    """Where a panel lies on Grafana's grid of 24 columns."""

    h: int
    w: int
    x: int
    y: int


class Step(Part, frozen=True):
    """From ``value`` on (``None``: from the bottom), this colour."""

    color: str
    value: float | None


class Thresholds(Part, frozen=True):
    """Limits at which a colour changes."""

    mode: Literal["absolute", "percentage"]
    steps: tuple[Step, ...]


class Text(Part, frozen=True):
    """What is shown instead of a number."""

    text: str
    color: str = ""
    index: int = -1


class Mapping(Part, frozen=True):
    """Numbers that are names."""

    type: Literal["value"]
    options: dict[str, Text]


class Link(Part, frozen=True):
    """Where a click leads."""

    title: str
    url: str


class ThresholdsStyle(Part, frozen=True):
    """How limits are drawn in a chart."""

    mode: Literal["off", "line", "area", "dashed", "line+area"]


class Custom(Part, frozen=True):
    """How a panel draws a series. ``span_nulls`` false: a gap is a gap."""

    line_width: int | None = None
    fill_opacity: int | None = None
    span_nulls: bool | None = None
    show_points: Literal["auto", "never", "always"] | None = None
    draw_style: Literal["line", "bars", "points"] | None = None
    thresholds_style: ThresholdsStyle | None = None
    axis_label: str | None = None
    filterable: bool | None = None


class Defaults(Part, frozen=True):
    """How every field of a panel is shown."""

    unit: str
    custom: Custom
    decimals: int | None = None
    min: float | None = None
    max: float | None = None
    no_value: str | None = None
    thresholds: Thresholds | None = None
    mappings: tuple[Mapping, ...] = ()
    links: tuple[Link, ...] = ()
    display_name: str | None = None


class Matcher(Part, frozen=True):
    """Which fields an override is for."""

    id: Literal["byName", "byRegexp"]
    options: str


class Property(Part, frozen=True):
    """One thing that an override sets."""

    id: str
    value: str | int | float | bool | tuple[Mapping, ...] | Thresholds


class Override(Part, frozen=True):
    """Fields that are shown in another way."""

    matcher: Matcher
    properties: tuple[Property, ...]


class FieldConfig(Part, frozen=True):
    """Defaults and exceptions."""

    defaults: Defaults
    overrides: tuple[Override, ...]


class ReduceOptions(Part, frozen=True):
    """How a series becomes one number; Grafana wants ``values`` said."""

    calcs: tuple[str, ...]
    fields: str
    values: bool


class SortField(Part, frozen=True):
    """A table's order."""

    display_name: str
    desc: bool


class Legend(Part, frozen=True):
    """A chart's legend."""

    display_mode: Literal["list", "table"]
    placement: Literal["bottom", "right"]
    show_legend: bool
    calcs: tuple[str, ...]


class Tooltip(Part, frozen=True):
    """What hovering shows."""

    mode: Literal["single", "multi", "none"]
    sort: Literal["none", "asc", "desc"]


class Options(Part, frozen=True):
    """What depends on the panel's type."""

    reduce_options: ReduceOptions | None = None
    color_mode: Literal["value", "background", "none"] | None = None
    graph_mode: Literal["none", "area"] | None = None
    text_mode: Literal["auto", "value", "value_and_name"] | None = None
    orientation: Literal["auto", "horizontal", "vertical"] | None = None
    display_mode: Literal["basic", "gradient", "lcd"] | None = None
    legend: Legend | None = None
    tooltip: Tooltip | None = None
    show_header: bool | None = None
    sort_by: tuple[SortField, ...] | None = None
    show_value: Literal["auto", "always", "never"] | None = None
    merge_values: bool | None = None


class Sort(Part, frozen=True):
    """One column to sort by."""

    field: str
    desc: bool


class SortOptions(Part, frozen=True):
    """Parameters of the transformations that we use; each uses a part of them."""

    sort: tuple[Sort, ...] | None = None
    exclude_by_name: dict[str, bool] | None = None
    rename_by_name: dict[str, str] | None = None


class Transformation(Part, frozen=True):
    """A step between the answer and the screen."""

    id: Literal["sortBy", "organize", "merge"]
    options: SortOptions


class Panel(Part, frozen=True):
    """One question."""

    id: int
    type: PanelType
    title: str
    description: str
    datasource: DataSource
    grid_pos: GridPos
    targets: tuple[Target, ...]
    field_config: FieldConfig
    options: Options
    interval: str | None = None
    time_from: str | None = None
    transformations: tuple[Transformation, ...] = ()


class Variable(Part, frozen=True):
    """Something that the reader chooses; only from answers of queries, never free text."""

    type: Literal["datasource", "query"]
    name: str
    label: str
    query: str
    datasource: DataSource | None = None
    multi: bool | None = None
    include_all: bool | None = None
    allow_custom_value: bool | None = None
    refresh: int | None = None
    sort: int | None = None


class Templating(Part, frozen=True):
    """The reader's choices, in order."""

    list: tuple[Variable, ...]


class TimeRange(Part, frozen=True):
    """What is shown at first."""

    from_: str = msgspec.field(name="from")
    to: str


class BoardLink(Part, frozen=True):
    """A way to the other boards."""

    type: Literal["dashboards"]
    title: str
    icon: str
    tooltip: str
    url: str
    target_blank: bool
    tags: tuple[str, ...]
    as_dropdown: bool
    include_vars: bool
    keep_time: bool


class Dashboard(Part, frozen=True):
    """A board. It has no ``id`` and no ``version``: the server gives those, and the same board is the same bytes."""

    uid: str
    title: str
    description: str
    tags: tuple[str, ...]
    timezone: Literal["browser", "utc"]
    schema_version: int
    editable: bool
    graph_tooltip: int
    refresh: str
    time: TimeRange
    templating: Templating
    links: tuple[BoardLink, ...]
    panels: tuple[Panel, ...]
