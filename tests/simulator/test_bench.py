"""The bench: it measures what it has checked, and says no to a file without a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from simulator.bench import codecs, lines, scenes, smoothing
from simulator.bench.cli import app


def steady_clock() -> float:
    """Seconds that pass at every look: a bench that only counts calls."""
    steady_clock.now += 0.01  # type: ignore[attr-defined]
    return float(steady_clock.now)  # type: ignore[attr-defined]


steady_clock.now = 0.0  # type: ignore[attr-defined]


def table(path: Path) -> Path:
    walk = np.cumsum(np.random.default_rng(1).integers(-2, 3, 300))
    rows = [f"2026-01-01 00:{row // 60:02}:{row % 60:02};{20 + walk[row] * 0.25};{row % 3}" for row in range(300)]
    path.write_text("datetime;temperature;state\n" + "\n".join(rows) + "\n")
    return path


def test_a_csv_file_is_read_as_codes_with_the_decimals_it_prints(tmp_path: Path) -> None:
    run = scenes.read_csv(table(tmp_path / "rig.csv"))

    assert run is not None
    assert run.decimals == (2, 0)
    assert run.codes[:3, 1].tolist() == [0, 1, 2]
    assert set((run.codes[:, 0] % 25).tolist()) == {0}
    assert set(np.diff(run.ts_ms).tolist()) == {1000}


def test_codec_bench_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"

    result = CliRunner().invoke(app, ["codec", str(table(tmp_path / "rig.csv")), "--rows", "60", "--limit", "1", "--json", str(out)])

    assert result.exit_code == 0, result.output
    figures = {(entry["name"], entry["figure"]): entry["value"] for entry in json.loads(out.read_text())["results"]}
    assert 0 < figures["icecap", "size"] < figures["zlib 9", "size"]


def test_a_file_without_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prose.csv").write_text("not,a\ntable at all\n")

    result = CliRunner().invoke(app, ["codec", str(tmp_path / "prose.csv")])

    assert result.exit_code == 2
    assert "no table of numbers" in result.output


def test_every_peer_and_bounded_block_is_checked_before_it_is_reported() -> None:
    runs = scenes.cooler(runs=1, rows=2000)

    names = {result.name for result in codecs.measure("cooler", runs, 60, clock=steady_clock, limit=1)}
    bounded = {result.name for result in codecs.measure("cooler", runs, 60, clock=steady_clock, limit=1, bounded=True)}
    sessions = codecs.sizes_of_sessions("cooler", runs, 60)

    assert {"icecap", "icecap, planned", "zlib 9", "LZMA raw"} <= names
    assert "icecap" in bounded
    assert 0 < sessions[0].value < 0.45


def test_line_protocol_bench_reads_every_line_back() -> None:
    results = lines.measure(scenes.cooler(runs=1, rows=1800)[0], 50, clock=steady_clock)

    assert {"icecap, codec block", "icecap, codes", "icecap, float64", "Python % format"} <= {result.name for result in results}


def test_the_conditioner_keeps_its_promises_on_the_scene_with_faults() -> None:
    results = {(result.name, result.figure): result.value for result in smoothing.measure(clock=steady_clock, runs=1)}

    assert results["icecap Smoother", "RMSE coolant"] < 0.75
    assert results["icecap Smoother", "RMSE scalp"] < 0.58
    assert results["icecap Smoother", "flow stop seen"] <= 2
    assert abs(results["icecap Smoother", "ramp lag"]) < 0.1
    assert results["icecap Smoother", "false alarms"] == 0
    assert results["raw, held", "false alarms"] > 0
