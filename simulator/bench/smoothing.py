"""Streaming conditioners side by side: how far from the truth, how late, how many false alarms, how fast.

Two hours of a cooler at 1 Hz, with ~1.2 % of samples spoilt (spikes, pairs, the sensor's error codes), 0.5 % missing and three
gaps of ten seconds. In each run the coolant drifts up as when a compressor fails, and the flow stops for a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from native import hampel, smooth
from native.shared import Float64Array, Int64Array
from simulator.bench.optional import optional
from simulator.bench.report import Result, best_seconds
from simulator.bench.scenes import cooler_truth

__all__ = ["CHANNELS", "Faults", "measure", "run_with_faults"]

_ROWS = 7200
_SETTLE = 60  # rows before anything is judged
_LO, _HI, _SENTINELS = -6000, 6000, (8500, -12700)  # codes of 0.01: the sensors' range and their error codes
_RAMP_PER_S = 0.03  # a failing compressor


@dataclass(frozen=True, slots=True)
class Channel:
    """Physical units: one sigma of noise, the fastest true change a second."""

    sigma: float
    max_rate: float


CHANNELS = {"coolant": Channel(0.03, 0.10), "scalp1": Channel(0.05, 0.05), "flow": Channel(0.031, 1.1)}
Smooth = Callable[[Int64Array, Int64Array, "np.ndarray", Channel], Float64Array]


@dataclass(frozen=True, slots=True)
class Faults:
    """One run: truth, codes of 0.01 with gaps, where the ramp begins and where the flow stops."""

    truth: dict[str, Float64Array]
    codes: dict[str, Int64Array]
    valid: dict[str, np.ndarray]
    ramp_row: int
    stop_row: int


def run_with_faults(seed: int) -> Faults:
    """The scene described above."""
    rng = np.random.default_rng(seed)
    clean = cooler_truth(_ROWS, seed)
    seconds = np.arange(_ROWS)
    ramp = 4200 + int(rng.integers(0, 600))
    since = seconds - ramp - 240
    rise = _RAMP_PER_S * np.clip(seconds - ramp, 0, 240) * (since < 0) + 7.2 * np.exp(-np.clip(since, 0, None) / 60.0) * (since >= 0)
    stop = 3000 + int(rng.integers(0, 500))
    shut = np.clip((seconds - stop) / 3.0, 0, 1) - np.clip((seconds - stop - 60) / 3.0, 0, 1)
    truth = {"coolant": clean["coolant"] + rise, "scalp1": clean["scalp1"], "flow": clean["flow"] * (1 - 0.97 * shut)}
    codes, valid = {}, {}
    for name, channel in CHANNELS.items():
        seen = np.round(truth[name] + rng.normal(0, channel.sigma, _ROWS), 2)
        size = 0.3 if name == "flow" else 1.0
        chance = rng.random(_ROWS)
        spikes = np.flatnonzero(chance < 0.008)
        seen[spikes] += rng.choice([-1, 1], len(spikes)) * rng.uniform(1, 15, len(spikes)) * size
        stuck = np.flatnonzero((chance > 0.5) & (chance < 0.5015))
        seen[stuck] = rng.choice([0.0, 85.0, -127.0], len(stuck))
        for row in np.flatnonzero((chance > 0.6) & (chance < 0.601)):
            seen[row : row + 2] += rng.choice([-1, 1]) * rng.uniform(2, 6) * size
        good = ~((chance > 0.7) & (chance < 0.705))
        for row in rng.integers(100, _ROWS - 100, 3):
            good[row : row + 10] = False
        codes[name], valid[name] = np.rint(seen * 100).astype(np.int64), good
    return Faults(truth, codes, valid, ramp, stop)


def _tracker(alpha: float = 0.4375, beta: float = 0.0625) -> Smooth:
    def run(ts_ms: Int64Array, codes: Int64Array, valid: np.ndarray, channel: Channel) -> Float64Array:
        made = smooth.Smoother(
            lo=_LO, hi=_HI, sentinels=_SENTINELS, sigma=channel.sigma * 100, max_rate=channel.max_rate * 100, alpha=alpha, beta=beta
        )
        return made.batch(ts_ms, codes, valid)[0] / 100

    return run


def _window(kind: type[hampel.Hampel | hampel.Median], window: int) -> Smooth:
    def run(ts_ms: Int64Array, codes: Int64Array, valid: np.ndarray, channel: Channel) -> Float64Array:
        return kind(lo=_LO, hi=_HI, sentinels=_SENTINELS, sigma=channel.sigma * 100, window=window).batch(ts_ms, codes, valid)[0] / 100

    return run


def _held(codes: Int64Array, valid: np.ndarray) -> Float64Array:
    """What a peer that knows no gaps is given: the last value, held."""
    rows = np.maximum.accumulate(np.where(valid, np.arange(len(codes)), 0))
    return np.asarray(codes[rows] / 100.0, np.float64)


def _peers() -> dict[str, Smooth]:
    found: dict[str, Smooth] = {"raw, held": lambda _, codes, valid, __: _held(codes, valid)}
    if bottleneck := optional("bottleneck"):
        found["bottleneck causal median 7"] = lambda _, codes, valid, __: bottleneck.move_median(_held(codes, valid), 7, min_count=1)
    if signal := optional("scipy.signal"):

        def average(_: Int64Array, codes: Int64Array, valid: np.ndarray, __: Channel) -> Float64Array:
            held = _held(codes, valid)
            return np.asarray(signal.lfilter([0.2], [1, -0.8], held, zi=[0.8 * held[0]])[0])

        found["scipy EWMA 0.2"] = average

        def hampel_sg(_: Int64Array, codes: Int64Array, valid: np.ndarray, channel: Channel) -> Float64Array:
            cleaned = _plain_hampel(_held(codes, valid), channel.sigma)
            weights = signal.savgol_coeffs(11, 1, pos=10, use="dot")
            out = cleaned.copy()
            for row in range(10, len(out)):
                out[row] = weights @ cleaned[row - 10 : row + 1]
            return out

        found["causal Hampel 7 + end-point SG 11 (numpy, scipy)"] = hampel_sg
    return found


def _plain_hampel(values: Float64Array, sigma: float) -> Float64Array:
    out = values.copy()
    for row in range(len(values)):
        window = values[max(0, row - 6) : row + 1]
        middle = np.median(window)
        spread = 1.4826 * np.median(np.abs(window - middle))
        if abs(values[row] - middle) > 3.0 * max(spread, sigma):
            out[row] = middle
    return out


def measure(*, clock: Callable[[], float], runs: int = 8) -> list[Result]:
    """Quality of every conditioner over ``runs`` runs, then speed by call and by batch."""
    scenes = [run_with_faults(100 + run) for run in range(runs)]
    ours = {
        "icecap Smoother": _tracker(),
        "icecap Smoother, slow gains": _tracker(alpha=0.2775, beta=0.0225),
        "icecap Hampel 7": _window(hampel.Hampel, 7),
        "icecap Median 7": _window(hampel.Median, 7),
    }
    results = []
    for name, run in {**ours, **_peers()}.items():
        results += _judge(name, run, scenes)
    return results + _speeds(scenes[0], clock)


def _judge(name: str, run: Smooth, scenes: list[Faults]) -> list[Result]:
    errors: dict[str, list[float]] = {"coolant": [], "scalp1": []}
    lags, stops, false_alarms = [], [], 0
    ts_ms = np.arange(_ROWS, dtype=np.int64) * 1000
    for scene in scenes:
        smoothed = {key: run(ts_ms, scene.codes[key], scene.valid[key], channel) for key, channel in CHANNELS.items()}
        for key, squares in errors.items():
            squares.append(float(np.mean((smoothed[key] - scene.truth[key])[_SETTLE:] ** 2)))
        ramp = slice(scene.ramp_row + 40, scene.ramp_row + 230)
        lags.append(float(np.median(scene.truth["coolant"][ramp] - smoothed["coolant"][ramp])) / _RAMP_PER_S)
        false_alarms += _false_rises(smoothed["coolant"], scene)
        half = 0.5 * scene.truth["flow"][scene.stop_row - 60 : scene.stop_row].mean()
        truly = int(np.argmax(scene.truth["flow"][scene.stop_row :] < half))
        stops.append(int(np.argmax(smoothed["flow"][scene.stop_row :] < half)) - truly)
        false_alarms += _false_stops(smoothed["flow"], scene, half)
    where = f"{len(scenes)} runs of 2 h"
    return [
        Result(name, where, "RMSE coolant", float(np.sqrt(np.mean(errors["coolant"]))) / CHANNELS["coolant"].sigma, "sigma"),
        Result(name, where, "RMSE scalp", float(np.sqrt(np.mean(errors["scalp1"]))) / CHANNELS["scalp1"].sigma, "sigma"),
        Result(name, where, "flow stop seen", float(np.mean(stops)), "s late"),
        Result(name, where, "ramp lag", float(np.mean(lags)), "s"),
        Result(name, where, "false alarms", float(false_alarms), ""),
    ]


def _false_rises(smoothed: Float64Array, scene: Faults) -> int:
    limit = scene.truth["coolant"][scene.ramp_row - 30 : scene.ramp_row].mean() + 2.5
    far = scene.truth["coolant"] < limit - 1.0
    far[:120] = False
    far[scene.ramp_row + 200 : scene.ramp_row + 500] = False
    return int(np.sum(np.diff(((smoothed > limit) & far).astype(int)) == 1))


def _false_stops(smoothed: Float64Array, scene: Faults, half: float) -> int:
    far = scene.truth["flow"] > half + 0.3
    far[:120] = False
    far[scene.stop_row - 5 : scene.stop_row + 90] = False
    return int(np.sum(np.diff(((smoothed < half) & far).astype(int)) == 1))


def _speeds(scene: Faults, clock: Callable[[], float]) -> list[Result]:
    """Nanoseconds per sample with a window of 15, one sample a call and whole arrays."""
    codes, ts_ms = scene.codes["coolant"], np.arange(_ROWS, dtype=np.int64) * 1000
    pairs = list(zip(ts_ms.tolist(), codes.tolist(), strict=True))
    makers: dict[str, Callable[[], smooth.Smoother | hampel.Hampel]] = {
        "icecap Smoother": lambda: smooth.Smoother(lo=_LO, hi=_HI, sentinels=_SENTINELS, sigma=3.0, max_rate=10.0),
        "icecap Hampel 7": lambda: hampel.Hampel(lo=_LO, hi=_HI, sentinels=_SENTINELS, sigma=3.0, window=15),
    }
    results = []
    for name, make in makers.items():

        def by_call(make: Callable[[], smooth.Smoother | hampel.Hampel] = make) -> None:
            update = make().update
            for t_ms, code in pairs:
                update(t_ms, code)

        def by_batch(make: Callable[[], smooth.Smoother | hampel.Hampel] = make) -> None:
            make().batch(ts_ms, codes)

        results.append(Result(name, "window 15", "one call a sample", best_seconds(by_call, clock=clock) / _ROWS * 1e9, "ns"))
        results.append(Result(name, "window 15", "batch", best_seconds(by_batch, clock=clock) / _ROWS * 1e9, "ns"))
    return results + _peer_speeds(codes, clock)


def _peer_speeds(codes: Int64Array, clock: Callable[[], float]) -> list[Result]:
    values = codes / 100.0
    results = []
    if river := optional("river.stats"):

        def by_river() -> None:
            quantile = river.RollingQuantile(0.5, 15)
            for value in values.tolist():
                quantile.update(value)
                quantile.get()

        results.append(
            Result("river rolling median", "window 15", "one call a sample", best_seconds(by_river, clock=clock) / _ROWS * 1e9, "ns")
        )
    if bottleneck := optional("bottleneck"):
        seconds = best_seconds(lambda: bottleneck.move_median(values, 15), clock=clock)
        results.append(Result("bottleneck move_median", "window 15", "batch", seconds / _ROWS * 1e9, "ns"))
    if numba := optional("numba"):
        compiled = _numba_hampel(numba)
        compiled(values[:100])
        seconds = best_seconds(lambda: compiled(values), clock=clock)
        results.append(Result("numba causal Hampel", "window 15", "batch", seconds / _ROWS * 1e9, "ns"))
    return results


def _numba_hampel(numba: Any) -> Callable[[Float64Array], Float64Array]:
    @numba.njit  # type: ignore[untyped-decorator]
    def run(values: Float64Array) -> Float64Array:
        out = values.copy()
        for row in range(14, len(values)):
            window = values[row - 14 : row + 1]
            middle = np.median(window)
            if abs(values[row] - middle) > 3.0 * 1.4826 * np.median(np.abs(window - middle)):
                out[row] = middle
        return out

    return run  # type: ignore[no-any-return]
