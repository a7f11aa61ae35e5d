"""The block codec's fixed tables for the twin, read from the file that ``scripts/make_tables.py`` made. Part of the format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate

__all__ = [
    "BORDER",
    "CALM",
    "HEAD",
    "LEVEL_GAIN",
    "MEAN",
    "PRICE",
    "SLOPE_GAIN",
    "TABLES",
    "Table",
]

_MADE = json.loads(files("native.reference").joinpath("tables.json").read_text())


@dataclass(frozen=True, slots=True)
class Table:
    """Frequencies of the residuals -radius..radius and of the escape behind them."""

    radius: int
    frequency: tuple[int, ...]
    start: tuple[int, ...]
    price: tuple[int, ...]


PRICE: tuple[int, ...] = tuple(_MADE["price"])
TABLES: tuple[tuple[tuple[Table, ...], ...], ...] = tuple(
    tuple(
        tuple(
            Table(
                radius=_MADE["radius"][q],
                frequency=tuple(phase),
                start=(0, *accumulate(phase)),
                price=tuple(PRICE[count] for count in phase),
            )
            for phase in phases
        )
        for q, phases in enumerate(shape)
    )
    for shape in _MADE["frequencies"]
)
LEVEL_GAIN: tuple[tuple[int, ...], ...] = tuple(map(tuple, _MADE["level_gain"]))
SLOPE_GAIN: tuple[tuple[int, ...], ...] = tuple(map(tuple, _MADE["slope_gain"]))
MEAN: tuple[int, ...] = tuple(_MADE["mean"])
BORDER: tuple[int, ...] = tuple(_MADE["border"])
CALM: tuple[int, ...] = tuple(_MADE["calm"])
# Priors of header fields, cumulative.
HEAD: dict[str, tuple[int, ...]] = {
    name: tuple(_MADE[name]) for name in ("mode", "predictor", "shape", "scale", "length", "clock", "bound", "bounded_scale")
}
