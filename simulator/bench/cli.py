"""``icecap bench``: our kernels and whatever peers are installed, measured in one run."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Measure the kernels beside their peers (pip install -r requirements/bench.txt for the peers).", no_args_is_help=True
)

Json = Annotated[Path | None, typer.Option("--json", help="write the figures to this file")]
Plot = Annotated[Path | None, typer.Option("--plot", help="draw them into this file (needs matplotlib)")]
Rows = Annotated[str, typer.Option(help="block lengths, separated by commas")]
Limit = Annotated[int, typer.Option(min=1, help="blocks of each length, spread over the runs")]


@app.command()
def codec(
    files: Annotated[list[Path] | None, typer.Argument(help="CSV files; without any the generated scenes are used", exists=True)] = None,
    *,
    rows: Rows = "60,300,900,3600",
    limit: Limit = 24,
    bounded: Annotated[bool, typer.Option("--bounded", help="within an error bound instead of lossless")] = False,
    data: Annotated[Path | None, typer.Option(help="a folder of recordings to add, one sub-folder a scene")] = None,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Size and speed of the block codec."""
    from simulator.bench import codecs, report, scenes

    runs = {name: make() for name, make in scenes.SCENES.items()} if not files else {}
    for file in files or []:
        run = scenes.read_csv(file)
        if run is None:
            raise typer.BadParameter(f"{file} holds no table of numbers")
        runs[file.name] = [run]
    runs.update(scenes.recordings(data) if data and data.is_dir() else {})
    results = []
    for name, found in runs.items():
        for length in _lengths(rows):
            results += codecs.measure(name, found, length, clock=perf_counter, limit=limit, bounded=bounded)
            if length <= 300:
                results += codecs.sizes_of_sessions(name, found[:2], length, bounded=bounded)
    report.publish("Block codec" + (", bounded" if bounded else ", lossless"), results, json_file=json, plot_file=plot)


@app.command()
def smooth(*, runs: Annotated[int, typer.Option(min=1, help="runs of two hours")] = 8, json: Json = None, plot: Plot = None) -> None:
    """Quality and speed of the streaming conditioner."""
    from simulator.bench import report, smoothing

    report.publish("Conditioner", smoothing.measure(clock=perf_counter, runs=runs), json_file=json, plot_file=plot)


@app.command()
def lineproto(*, rows: Rows = "300,3600", json: Json = None, plot: Plot = None) -> None:
    """Speed of the line-protocol encoder."""
    from simulator.bench import lines, report, scenes

    run = scenes.cooler(runs=1, rows=4000)[0]
    results = [result for length in _lengths(rows) for result in lines.measure(run, length, clock=perf_counter)]
    report.publish("Line protocol", results, json_file=json, plot_file=plot)


def _lengths(rows: str) -> list[int]:
    lengths = [int(part) for part in rows.split(",") if part.strip().isdigit()]
    if not lengths or min(lengths) < 2:
        raise typer.BadParameter(f"{rows!r}: block lengths are whole numbers from 2, separated by commas")
    return lengths
