"""Results of a bench: a table on the screen, JSON, and a plot where matplotlib is installed."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import native

__all__ = ["Result", "best_seconds", "publish"]


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: who, on what, how large or how fast."""

    name: str
    scene: str
    figure: str
    value: float
    unit: str


def best_seconds(work: Callable[[], object], *, clock: Callable[[], float], repeats: int = 5, least_s: float = 0.02) -> float:
    """Shortest time of one call, over ``repeats`` batches that each last at least ``least_s`` seconds."""
    best = float("inf")
    for _ in range(repeats):
        calls, start = 0, clock()
        while (elapsed := clock() - start) < least_s or calls == 0:
            work()
            calls += 1
        best = min(best, elapsed / calls)
    return best


def publish(title: str, results: Sequence[Result], *, json_file: Path | None, plot_file: Path | None) -> None:
    """Print, and write what was asked for."""
    console = Console()
    console.print(f"{title} · native kernels: {native.BACKEND} · {platform.machine()}, Python {platform.python_version()}")
    for scene in dict.fromkeys(result.scene for result in results):
        console.print(_table(scene, [result for result in results if result.scene == scene]))
    if json_file:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "backend": native.BACKEND}
        json_file.write_text(json.dumps({"title": title, **machine, "results": [asdict(result) for result in results]}, indent=1) + "\n")
    if plot_file:
        _plot(title, results, plot_file)


def _table(scene: str, results: Sequence[Result]) -> Table:
    """One row for each contestant, one column for each figure."""
    table = Table(title=scene, title_justify="left")
    table.add_column("")
    figures = list(dict.fromkeys((result.figure, result.unit) for result in results))
    for figure, unit in figures:
        table.add_column(f"{figure}\n{unit}", justify="right")
    for name in dict.fromkeys(result.name for result in results):
        values = {(result.figure, result.unit): result.value for result in results if result.name == name}
        table.add_row(name, *(f"{values[key]:.4g}" if key in values else "" for key in figures))
    return table


def _plot(title: str, results: Sequence[Result], plot_file: Path) -> None:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only for whoever asks for a plot
    except ImportError:
        Console(stderr=True).print("no plot: matplotlib is not installed (pip install icecap[dev])")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figures = list(dict.fromkeys((result.scene, result.figure, result.unit) for result in results))
    shape, axes = plt.subplots(len(figures), 1, figsize=(9, 2.2 * len(figures) + 1), squeeze=False)
    for axis, (scene, figure, unit) in zip(axes[:, 0], figures, strict=True):
        rows = [result for result in results if (result.scene, result.figure, result.unit) == (scene, figure, unit)]
        colours = ["tab:blue" if result.name.startswith("icecap") else "tab:gray" for result in rows]
        axis.barh([result.name for result in rows], [result.value for result in rows], color=colours)
        axis.set_title(f"{scene}: {figure}", loc="left")
        axis.set_xlabel(unit)
        axis.invert_yaxis()
    shape.suptitle(title)
    shape.tight_layout()
    shape.savefig(plot_file)
    plt.close(shape)
