"""What is measured on: generated cooler runs, and recordings read from CSV files.

A scene is a list of runs; a run is time stamps in ms and integer codes, ``codes / 10**decimals`` is the printed value. Generated
scenes are a function of their seed alone.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from native.shared import Float64Array, Int64Array

__all__ = ["SCENES", "Run", "blocks_of", "cooler", "cooler_truth", "read_csv", "recordings"]

_DECIMALS_TRIED = 6  # a column with more is taken as six decimals: no sensor of ours prints more
_CSV_ROWS_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Run:
    """One recording: (rows,), (rows, channels), and for each channel its decimals, name and a sensible error bound in codes."""

    ts_ms: Int64Array
    codes: Int64Array
    decimals: tuple[int, ...]
    names: tuple[str, ...]
    bounds: tuple[int, ...]


# name, decimals, noise (1 sigma, physical), bound (physical)
_CHANNELS = (
    ("coolant", 2, 0.012, 0.05),
    ("scalp1", 2, 0.02, 0.05),
    ("scalp2", 2, 0.02, 0.05),
    ("flow", 2, 0.012, 0.02),
    ("pressure", 0, 1.4, 4.0),
    ("current", 2, 0.012, 0.02),
    ("level", 1, 0.06, 0.5),
    ("ambient", 2, 0.01, 0.1),
)


def cooler_truth(rows: int, seed: int) -> dict[str, Float64Array]:
    """A cooler's run without noise, at 1 Hz, in physical units: pre-cooling, a limit cycle about the set-point, patient on, patient off."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(rows, dtype=float)
    ambient = (
        22 + rng.normal(0, 1.2) + 0.4 * np.sin(2 * np.pi * seconds / 5400 + rng.uniform(0, 6)) + np.cumsum(rng.normal(0, 0.0008, rows))
    )
    set_point = float(rng.choice([-4.0, -2.0, 2.0, 4.0]))
    on_row, off_row = int(rng.uniform(900, 1500)), int(rows - rng.uniform(300, 900))
    worn = (seconds >= on_row) & (seconds < off_row)
    coolant, scalp1, scalp2 = np.empty(rows), np.empty(rows), np.empty(rows)
    tank, first, second, compressor = float(ambient[0]), 34.5 + rng.normal(0, 0.4), 34.2 + rng.normal(0, 0.4), True
    for i in range(rows):
        compressor = tank > set_point + 0.35 or (compressor and tank >= set_point - 0.35)
        tank += 0.010 * (ambient[i] - tank) / 25 + 0.012 * worn[i] - 0.030 * compressor * (1 + 0.02 * (ambient[i] - 22))
        target = tank + 17.5 * (1 + 0.15 * np.sin(i / 700.0)) if worn[i] else 33.8
        first += (target - first) / 420.0
        second += (target + 1.6 - second) / 510.0
        coolant[i], scalp1[i], scalp2[i] = tank, first, second
    duty = np.clip(0.62 + 0.05 * np.sin(seconds / 1300) + 0.08 * worn, 0, 1)
    viscosity = 1 + 0.012 * (20 - coolant)
    return {
        "coolant": coolant,
        "scalp1": scalp1,
        "scalp2": scalp2,
        "flow": 3.2 * duty / viscosity,
        "pressure": 420 * duty**2 * viscosity,
        "current": 0.85 + 1.9 * duty * np.sqrt(viscosity),
        "level": 96 - 0.00018 * seconds - 0.8 * (seconds > on_row),
        "ambient": ambient,
    }


def cooler(runs: int = 6, rows: int = 4 * 3600, *, jitter_ms: float = 0, drop: float = 0.004, seed: int = 10) -> list[Run]:
    """Eight channels at 1 Hz: sensor noise of one or two steps, a few seconds missing, optionally late stamps."""
    made = []
    for run in range(runs):
        rng = np.random.default_rng(seed * 1000 + run)
        truth = cooler_truth(rows, seed * 77 + run)
        columns = [np.rint((truth[name] + rng.normal(0, noise, rows)) * 10**decimals) for name, decimals, noise, _ in _CHANNELS]
        ts_ms = 1_760_000_000_000 + 1000 * np.arange(rows, dtype=np.int64)
        if jitter_ms:
            ts_ms = ts_ms + np.rint(np.abs(rng.normal(0, jitter_ms, rows))).astype(np.int64)
        keep = rng.random(rows) >= drop
        made.append(
            Run(
                ts_ms=ts_ms[keep],
                codes=np.ascontiguousarray(np.stack(columns, 1).astype(np.int64)[keep]),
                decimals=tuple(decimals for _, decimals, _, _ in _CHANNELS),
                names=tuple(name for name, *_ in _CHANNELS),
                bounds=tuple(int(bound * 10**decimals + 1e-9) for _, decimals, _, bound in _CHANNELS),
            )
        )
    return made


def calibrated(runs: int = 4, rows: int = 600, *, seed: int = 20) -> list[Run]:
    """Eighteen skin loggers at one sample a minute: 0.0625 degree steps, each bent by its own calibration and printed to 0.001."""
    made = []
    for run in range(runs):
        rng = np.random.default_rng(seed * 1000 + run)
        seconds = np.arange(rows)
        columns = []
        for _ in range(18):
            skin = 31 + rng.normal(0, 2) + np.cumsum(rng.normal(0, 0.12, rows)) - 3 * np.clip((seconds - rows / 5) / (rows / 5), 0, 1)
            raw = np.rint((skin + rng.normal(0, 0.03, rows)) / 0.0625) * 0.0625
            columns.append(np.rint((rng.normal(0, 2e-4) * raw**2 + (1 + rng.normal(0, 0.01)) * raw + rng.normal(0, 0.2)) * 1000))
        codes = np.ascontiguousarray(np.stack(columns, 1).astype(np.int64))
        names = tuple(f"skin{k}" for k in range(18))
        made.append(Run(1_527_067_428_000 + 60_000 * seconds.astype(np.int64), codes, (3,) * 18, names, (31,) * 18))
    return made


def cooler_jitter() -> list[Run]:
    """The cooler with stamps up to some 20 ms late."""
    return cooler(jitter_ms=8)


SCENES: dict[str, Callable[[], list[Run]]] = {"cooler": cooler, "cooler-jitter": cooler_jitter, "calibrated": calibrated}


def blocks_of(runs: list[Run], rows: int, limit: int) -> list[Run]:
    """Blocks that do not overlap, at most ``limit`` of them, spread over the runs."""
    found = list(_cut(runs, rows))
    if len(found) > limit:
        found = [found[index] for index in np.linspace(0, len(found) - 1, limit).astype(int)]
    return found


def _cut(runs: list[Run], rows: int) -> Iterator[Run]:
    for run in runs:
        for start in range(0, len(run.ts_ms) - rows + 1, rows):
            part = slice(start, start + rows)
            yield Run(run.ts_ms[part], np.ascontiguousarray(run.codes[part]), run.decimals, run.names, run.bounds)


def recordings(folder: Path) -> dict[str, list[Run]]:
    """Scenes by sub-folder of a folder of recordings; files that hold no table of numbers are left out."""
    scenes: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/*")):
        if path.suffix in {".csv", ".mos"} and (run := read_csv(path)) is not None:
            scenes.setdefault(f"{path.parent.name} ({len(run.names)} columns)", []).append(run)
    return scenes


def read_csv(path: Path) -> Run | None:
    """The numeric columns of a CSV file as codes; the first column that looks like time is the clock. None when there is no table.

    Separators ``,`` and ``;``, a header or none. The decimals of a column are the most it prints, at most six.
    """
    text = path.read_text(encoding="latin-1").splitlines()[:_CSV_ROWS_MAX]
    separator = ";" if sum(line.count(";") > 1 for line in text[:20]) > 10 else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(text, delimiter=separator)]
    width = _usual_width(rows)
    table = [row for row in rows if len(row) == width and _stamp(row[0]) is not None and all(_is_number(cell) for cell in row[1:])]
    if width < 2 or len(table) < 60 or len(table) * 2 < len(rows):
        return None
    decimals = tuple(min(_DECIMALS_TRIED, max(_printed_decimals(row[k]) for row in table)) for k in range(1, width))
    codes = np.array([[round(float(row[k]) * 10 ** decimals[k - 1]) for k in range(1, width)] for row in table], np.int64)
    stamps = np.array([_stamp(row[0]) for row in table], np.int64)
    spread = np.maximum(1, np.median(np.abs(np.diff(codes, axis=0)), 0) * 2).astype(int).tolist()
    return Run(stamps, codes, decimals, tuple(f"c{k}" for k in range(1, width)), tuple(spread))


def _usual_width(rows: list[list[str]]) -> int:
    widths = [len(row) for row in rows if row]
    return max(set(widths), key=widths.count, default=0)


def _stamp(cell: str) -> int | None:
    """Milliseconds of a date and time, or of a number of seconds."""
    try:
        return int(datetime.fromisoformat(cell).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return round(float(cell) * 1000) if _is_number(cell) else None


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) < 1e9  # also refuses NaN and the infinities
    except ValueError:
        return False


def _printed_decimals(cell: str) -> int:
    return len(cell.partition(".")[2]) if "e" not in cell.lower() else _DECIMALS_TRIED
