"""Signals for the kernel tests: small generated scenes, and hypothesis strategies for hostile columns."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

INT64 = np.iinfo(np.int64)


def cooler(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Eight channels of a cooler at 1 Hz, with noise and a few missing seconds."""
    g = np.random.default_rng(seed)
    t = np.arange(rows)
    coolant = -400 + 35 * np.sin(t / 40)
    scalp = 3300 - 1200 * (1 - np.exp(-t / 900))
    duty = 0.6 + 0.05 * np.sin(t / 130)
    clean = np.stack(
        [coolant, scalp, scalp + 40, 320 * duty, 420 * duty**2, 85 + 190 * duty, 960 - t / 600, 2200 + 30 * np.sin(t / 800)], 1
    )
    noise = g.normal(0, [1.2, 2, 2, 1.2, 1.4, 1.2, 0.6, 1.0], clean.shape)
    ts_ms = 1_760_000_000_000 + 1000 * np.cumsum(1 + (g.random(rows) < 0.004))
    return ts_ms.astype(np.int64), np.rint(clean + noise).astype(np.int64)


def kinds(rows: int = 50, seed: int = 3) -> dict[str, np.ndarray]:
    """One column for every way the codec has of looking at a channel, and the ends of int64."""
    g = np.random.default_rng(seed)
    walk = np.cumsum(g.integers(-3, 4, rows))
    return {
        name: np.asarray(column, np.int64)
        for name, column in {
            "plain": walk,
            "constant": np.full(rows, -7),
            "divisor": walk * 625 + 17,
            "affine": (walk + 200) * 27031 >> 10,
            "levels": g.choice([0, 100, 1000, 5], rows),
            "calibrated": np.array([round(1.01 * 62.5 * k + 2e-4 * k * k) for k in (walk + 400).tolist()]),
            "remainder": np.where(g.random(rows) < 0.9, walk * 100, 7),
            "on_off": np.where(np.arange(rows) // 10 % 2, walk * 40, 3),
            "wide_walk": np.cumsum(g.integers(-(10**12), 10**12, rows)),
            "ramp": np.arange(rows) * 2**57 - 2**62,
            "ends": np.where(np.arange(rows) % 2, INT64.max, INT64.min),
            "noise": g.integers(INT64.min, INT64.max, rows),
        }.items()
    }


_near_zero = st.integers(-50, 50)
_any_int = st.integers(INT64.min, INT64.max)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> list[int]:
    """A column that is a walk, a lattice, a few levels or anything at all."""
    kind = draw(st.sampled_from(["walk", "lattice", "levels", "anything", "constant"]))
    if kind == "anything":
        return draw(st.lists(_any_int, min_size=rows, max_size=rows))
    if kind == "constant":
        return [draw(_any_int)] * rows
    if kind == "levels":
        levels = draw(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=6))
        return draw(st.lists(st.sampled_from(levels), min_size=rows, max_size=rows))
    steps = draw(st.lists(_near_zero, min_size=rows, max_size=rows))
    factor = 1 if kind == "walk" else draw(st.integers(2, 10**6))
    start = draw(st.integers(-(10**9), 10**9))
    return [start + factor * value for value in np.cumsum(steps).tolist()]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time stamps, columns and a mask."""
    rows = draw(st.integers(1, 24))
    width = draw(st.integers(1, 3))
    clock = draw(st.sampled_from(["regular", "gaps", "jitter", "anything"]))
    if clock == "anything":
        stamps = draw(st.lists(_any_int, min_size=rows, max_size=rows))
    else:
        jitter = st.just(1000) if clock == "regular" else st.sampled_from([1000, 3000]) if clock == "gaps" else st.integers(-5, 1200)
        stamps = (draw(st.integers(-(10**13), 10**13)) + np.cumsum(draw(st.lists(jitter, min_size=rows, max_size=rows)))).tolist()
    cells = np.array([draw(columns(rows)) for _ in range(width)], np.int64).T
    mask = np.array(draw(st.lists(st.booleans(), min_size=rows * width, max_size=rows * width)), bool).reshape(rows, width)
    return np.array(stamps, np.int64), np.ascontiguousarray(cells), mask | draw(st.booleans())
