"""Pipeline: is the data on its way, gateway by gateway. For whoever has to know whether a silent chart is a silent machine."""

from collections.abc import Sequence

from dashboards.boards.common import PIPELINE_UID, frame, the_one
from dashboards.grafana import Dashboard, Panel, Property, Step, Thresholds
from dashboards.influxql import chosen, select, tag_values
from dashboards.panels import Ask, bars, by_name, chart, choice, merged, ordered, stat, table
from protocol.profile import Profile, Role
from protocol.series import COOLER, GATEWAY

__all__ = ["board"]

MINE = chosen("site", "gateway")
LATE_MS = 600_000.0  # an idle machine's block is sealed after five minutes; twice that is late
SOME_MISSING = Thresholds(mode="absolute", steps=(Step(color="green", value=None), Step(color="red", value=1.0)))
LATE = Thresholds(mode="absolute", steps=(Step(color="green", value=None), Step(color="red", value=LATE_MS)))


def board(profiles: Sequence[Profile]) -> Dashboard:
    """The pipeline's board."""
    choices = (
        choice("site", tag_values(GATEWAY, "site"), label="Site"),
        choice("gateway", tag_values(GATEWAY, "gateway"), label="Gateway"),
    )
    panels = (*_now(), *_over_time(), *_who(the_one(profiles, Role.STATE).name))
    description = "Whether data is on its way: a silent chart with a healthy pipeline is a silent machine."
    return frame(PIPELINE_UID, "Icecap: pipeline", description, choices=choices, panels=panels, since="now-6h")


def _now() -> list[Panel]:
    inner = select('sum("blocks") AS "blocks"', GATEWAY, MINE, by=["gateway"])
    sending = select('count("blocks")', f"({inner})", '"blocks" > 0')
    oldest, missing = select('max("value")', _newest("lag_ms")), select('sum("value")', _newest("gaps"))
    per_minute = select('sum("rows")', GATEWAY, MINE, every="1m")
    return [
        _number("How many gateways send?", "Gateways with a block in the last 15 minutes.", sending),
        _number("How old is the newest sample of the worst gateway?", "The largest lag now.", oldest, unit="ms", thresholds=LATE),
        _number(
            "How many numbers are missing?",
            "Sequence numbers that later ones have overtaken; the gateways send them again.",
            missing,
            thresholds=SOME_MISSING,
        ),
        stat(
            Ask("How many rows arrive a minute?", "All chosen gateways.", (per_minute,), "none", 6, 5, time_from="1h", no_value="none"),
            graph=True,
        ),
    ]


def _over_time() -> list[Panel]:
    return [
        _per_gateway("How late is each gateway's data?", "Age of the newest sample.", "max", "lag_ms", unit="ms", thresholds=LATE),
        _per_gateway("Which gateway has gaps?", "Missing numbers.", "max", "gaps", unit="none", thresholds=SOME_MISSING),
        _per_gateway("How many rows does each gateway send?", "Rows a minute.", "sum", "rows", unit="none"),
        _per_gateway("How many blocks does each gateway send?", "Blocks a minute.", "sum", "blocks", unit="none"),
        _per_gateway(
            "How many facts does each gateway send?", "Facts a minute: sessions, alarms, counters, audit.", "sum", "facts", unit="none"
        ),
    ]


def _who(pulse: str) -> list[Panel]:
    """``gateway`` is a tag of the coolers' series too; ``site`` there is the machine's own, so it is not asked for."""
    machines = select(f'last("{pulse}") AS "seen"', COOLER, chosen("gateway"), by=["gateway", "device"])
    return [
        bars(
            Ask(
                "How many machines stand behind each gateway?",
                "Machines with a sample in the chosen time.",
                (select('count("seen")', f"({machines})", by=["gateway"]),),
                "none",
                12,
                8,
                alias="$tag_gateway",
                low=0.0,
            )
        ),
        table(
            Ask(
                "Which gateway was heard last?",
                "When the newest block of each gateway was counted.",
                (select('last("blocks") AS "blocks"', GATEWAY, f'{MINE} AND "blocks" > 0', by=["gateway", "site"]),),
                "none",
                24,
                8,
                overrides=(
                    by_name("Time", Property(id="unit", value="dateTimeFromNow"), Property(id="displayName", value="newest block")),
                    by_name("blocks", Property(id="custom.hidden", value=True)),
                ),
                transformations=(merged(), ordered("Time")),
            ),
            sort_by="newest block",
        ),
    ]


def _number(title: str, description: str, query: str, *, unit: str = "none", thresholds: Thresholds | None = None) -> Panel:
    no_value = "none" if unit == "none" and thresholds is None else "unknown"
    return stat(Ask(title, description, (query,), unit, 6, 5, time_from="15m", thresholds=thresholds, no_value=no_value))


def _newest(name: str) -> str:
    inner = select(f'last("{name}") AS "value"', GATEWAY, MINE, by=["gateway"])
    return f"({inner})"


def _per_gateway(title: str, description: str, how: str, name: str, *, unit: str, thresholds: Thresholds | None = None) -> Panel:
    query = select(f'{how}("{name}")', GATEWAY, MINE, by=["gateway"], every="1m")
    return chart(Ask(title, description, (query,), unit, 12, alias="$tag_gateway", thresholds=thresholds, low=0.0))
