"""Drawing: the two little pictures that the server makes itself, as SVG coordinates. Charts with axes are uPlot's business.

Invariant: every number is computed here and only digits reach the markup, so nothing that a device sent can become markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dashboards.console.present import Measure

__all__ = ["GAUGE_WIDTH", "SPARK_HEIGHT", "SPARK_MINUTES", "SPARK_WIDTH", "Gauge", "Spark", "SparkCache", "gauge", "spark"]

SPARK_WIDTH = 120
SPARK_HEIGHT = 28
SPARK_MINUTES = 60
_SPARK_FLOOR_MILLI = 6000  # a thermostat's saw tooth of one kelvin must look calm: never zoom in on less than six units
GAUGE_WIDTH = 200

MinuteMeans = Sequence[tuple[int, int]]
"""(minute since the range began, mean in thousandths), ascending."""


@dataclass(frozen=True, slots=True)
class Spark:
    """One polyline for each run of minutes without a gap, per line; the dot marks the newest point."""

    lines: tuple[tuple[str, ...], ...]
    dots: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Gauge:
    """Where a value lies on its scale: the permitted band, the value, the set-point. ``None``: nothing to draw."""

    band_x: str
    band_width: str
    value_x: str | None
    set_x: str | None


@dataclass(slots=True)
class SparkCache:
    """The fleet's sparklines, drawn once a minute of the machines' time: they are most of the work of a page and change no faster.

    ``who`` is what was asked for (a site, ``None`` for all). Only the newest minute is kept, so it is bounded by the number of sites.
    """

    _minute: int = 0
    _drawn: dict[str | None, dict[str, Spark | None]] = field(default_factory=dict)

    def get(self, who: str | None, minute: int) -> dict[str, Spark | None] | None:
        """Return what was drawn in this minute, or ``None``."""
        return self._drawn.get(who) if self._minute == minute else None

    def put(self, who: str | None, minute: int, drawn: dict[str, Spark | None]) -> None:
        """Keep what was drawn; threads that draw the same at the same time overwrite each other with equals."""
        if self._minute != minute:
            self._minute, self._drawn = minute, {}
        self._drawn[who] = drawn


def spark(series: Sequence[MinuteMeans]) -> Spark | None:
    """Return the lines of a sparkline on one common scale, or ``None`` when there is nothing to draw."""
    values = [milli for line in series for _, milli in line]
    if not values:
        return None
    lo, hi = min(values), max(values)
    spare = max(_SPARK_FLOOR_MILLI - (hi - lo), 0) / 2
    lo_y, span = lo - spare, max(hi - lo, _SPARK_FLOOR_MILLI)

    def point(minute: int, milli: int) -> str:
        x = 2 + (SPARK_WIDTH - 6) * minute / (SPARK_MINUTES - 1)
        y = 3 + (SPARK_HEIGHT - 6) * (1 - (milli - lo_y) / span)
        return f"{x:.1f},{y:.1f}"

    lines, dots = [], []
    for line in series:
        lines.append(tuple(" ".join(point(*one) for one in run) for run in _runs(line)))
        if line:
            x, y = point(*line[-1]).split(",")
            dots.append((x, y))
    return Spark(tuple(lines), tuple(dots))


def _runs(line: MinuteMeans) -> list[list[tuple[int, int]]]:
    """Split where a minute is missing: a gap is drawn as a gap."""
    runs: list[list[tuple[int, int]]] = []
    for one in line:
        if not runs or one[0] - runs[-1][-1][0] > 1:
            runs.append([])
        runs[-1].append(one)
    # A lone minute has no length; two points give it a visible dash.
    return [run if len(run) > 1 else [run[0], (run[0][0] + 1, run[0][1])] for run in runs]


def gauge(measure: Measure, set_milli: int | None = None) -> Gauge | None:
    """Return the scale of a channel that has a service limit, reaching past both limits, else ``None``."""
    channel = measure.channel
    if channel.alarm_lo is None and channel.alarm_hi is None:
        return None
    lo = channel.alarm_lo if channel.alarm_lo is not None else max(channel.lo, 0.0)
    hi = channel.alarm_hi if channel.alarm_hi is not None else min(channel.hi, 4 * lo)
    spare = (hi - lo) * 0.35
    start, width = lo - spare, (hi - lo) + 2 * spare

    def place(value: float) -> str:
        return f"{min(max((value - start) / width, 0.01), 0.99) * GAUGE_WIDTH:.1f}"

    return Gauge(
        band_x=place(lo),
        band_width=f"{(hi - lo) / width * GAUGE_WIDTH:.1f}",
        value_x=None if measure.milli is None else place(measure.milli / 1000),
        set_x=None if set_milli is None else place(set_milli / 1000),
    )
