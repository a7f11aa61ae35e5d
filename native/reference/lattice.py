"""Lattices of the twin: which small integers stand for a channel's values. Every fit is exact or refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from native.reference.channel import AFFINE, CODE_LIMIT, CONSTANT, DIVISOR, LEVELS, PLAIN, REMAINDER, WIDE, Channel
from native.reference.rans import PROBABILITY
from native.reference.tables import CALM
from native.shared import DICTIONARY_MAX

__all__ = ["chance", "fit_affine", "fit_basic", "fit_levels", "fit_remainder"]

_LEVEL_STEP_MAX = 1 << 30
_AFFINE_TRIES = 96


def chance(events: int, trials: int, least: int) -> int:
    """The index of the smallest chance that is not below ``events / trials``."""
    index = 48
    while index > least and (PROBABILITY - CALM[index]) * trials < events * PROBABILITY:
        index -= 1
    return index


def fit_basic(values: Sequence[int], channel: Channel) -> list[int]:
    """Constant, common divisor, plain or wide."""
    first = values[0]
    divisor = math.gcd(*(value - first for value in values))
    span = max(values) - min(values)
    channel.first, channel.step = first, 1
    if span == 0:
        channel.mode = CONSTANT
        return [0] * len(values)
    if span // divisor >= CODE_LIMIT:
        channel.mode = WIDE
        return [0] * len(values)
    channel.mode = PLAIN if divisor == 1 else DIVISOR
    channel.step = divisor
    return [(value - first) // divisor for value in values]


def fit_affine(y: Sequence[int], channel: Channel) -> list[int] | None:
    """Evenly spaced by a spacing that is not a whole number."""
    gaps = [abs(b - a) for a, b in itertools.pairwise(y) if a != b]
    if min(gaps, default=CODE_LIMIT) < 3:
        return None
    levels = sorted(set(y))
    nearest = min((b - a for a, b in itertools.pairwise(levels)), default=CODE_LIMIT)
    if len(levels) < 3 or nearest < 3 or (len(levels) * 4 > len(y) and nearest < 8):
        return None
    bounds = _spacing(levels, float(nearest - 1), float(nearest + 1))
    if bounds is None:
        return None
    low, high = bounds
    for attempt in range(_AFFINE_TRIES):
        spacing = low + (high - low) * (attempt + 0.5) / _AFFINE_TRIES
        codes = _affine_codes(y, levels, spacing, channel)
        if codes is not None:
            channel.mode = AFFINE
            channel.origin = codes[0]
            channel.first += levels[0]
            return [code - codes[0] for code in codes]
    return None


def _spacing(levels: Sequence[int], low: float, high: float) -> tuple[float, float] | None:
    for level in levels[1:]:
        value = float(level - levels[0])
        steps = float(math.floor(value / ((low + high) / 2) + 0.5))
        if steps < 1:
            return None
        low, high = max(low, (value - 1) / steps), min(high, (value + 1) / steps)
        if low >= high:
            return None
    return low, high


def _affine_codes(y: Sequence[int], levels: Sequence[int], spacing: float, channel: Channel) -> list[int] | None:
    step = math.floor(spacing * 65536 + 0.5)
    rests = []
    for level in levels:
        value = float(level - levels[0])
        rests.append(value - float(math.floor(value / spacing + 0.5)) * float(step) / 65536.0)
    least, most = min(rests), max(rests)
    if most - least > 0.9985:
        return None
    offset = math.floor(((least + most) / 2 + 0.5) * 65536)
    codes = [math.floor(float(value - levels[0]) / spacing + 0.5) for value in y]
    if any((code * step + offset) >> 16 != value - levels[0] for code, value in zip(codes, y, strict=True)):
        return None
    channel.step, channel.offset = step, offset
    return codes


def fit_levels(y: Sequence[int], channel: Channel) -> list[int] | None:
    """Few, sparse levels: the rank stands for the value."""
    levels = sorted(set(y))
    span = levels[-1] - levels[0] + 1
    too_many = len(levels) > DICTIONARY_MAX or len(levels) * 4 > len(y) * 3
    if channel.step > _LEVEL_STEP_MAX or too_many or len(levels) < 3 or span <= 2 * len(levels):
        return None
    rank = {level: index for index, level in enumerate(levels)}
    channel.levels = [channel.first + level * channel.step for level in levels]
    channel.mode, channel.step, channel.origin = LEVELS, 1, rank[y[0]]
    return [rank[value] - channel.origin for value in y]


def fit_remainder(values: Sequence[int], channel: Channel) -> list[int] | None:
    """Mostly round numbers: the quotient is coded, the rest is sent beside it."""
    for unit in (10_000, 1000, 100, 10):
        uneven = sum(value % unit != 0 for value in values)
        if uneven * 4 > len(values):
            continue
        channel.mode, channel.unit, channel.zero = REMAINDER, unit, chance(uneven, len(values), 1)
        channel.origin = channel.first // unit
        return [value // unit - channel.origin for value in values]
    return None
