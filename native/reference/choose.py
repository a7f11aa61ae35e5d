"""Choices of the twin's encoder: predictor, shape, scales, lattice. Prices are in 1/256 bit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from native.reference.channel import (
    AFFINE,
    BOUNDED,
    CODE_LIMIT,
    CONSTANT,
    DIVISOR,
    FRACTION,
    LEVELS,
    PLAIN,
    REMAINDER,
    SCALES,
    WARM_UP,
    WIDE,
    Channel,
    nearest_steps,
    quarters,
    signed,
    whole,
)
from native.reference.lattice import fit_affine, fit_basic, fit_levels, fit_remainder
from native.reference.rans import PROBABILITY
from native.reference.tables import BORDER, CALM, LEVEL_GAIN, PRICE, SLOPE_GAIN, TABLES, Table

__all__ = ["NO_PRICE", "PLAN_BYTES", "plan_of", "prepare", "prepare_planned", "residual_price"]

NO_PRICE = 2**63 - 1
PLAN_BYTES = 8
_REACH = 39
_ESCAPE_BITS = 7
_PRICE_CLASSES = 18 * 256
_WIDE_SCALE_MAX = 198
_BOUNDED_LIMIT = 1 << 62
_START_SAMPLES = 8
_GAINS = tuple(np.array(gains, np.float32).T / np.float32(65536) for gains in (LEVEL_GAIN, SLOPE_GAIN))
_NEAREST = np.float32(12582912.0)  # adding and taking away 1.5 * 2**23 rounds to an integer


@dataclass(slots=True)
class _Histogram:
    phases: int
    bins: list[list[int]] = field(default_factory=lambda: [[0] * (2 * _REACH + 1) for _ in range(4)])
    count: int = 0
    widest: int = 0

    def add(self, phase: int, residual: int) -> None:
        self.widest = max(self.widest, abs(residual))
        self.bins[phase][max(-_REACH, min(_REACH, residual)) + _REACH] += 1
        self.count += 1

    def price(self, shape: int, q: int) -> int:
        span = min(self.widest, _REACH)
        total = 0
        for phase in range(self.phases):
            table = TABLES[shape][q][phase]
            total += sum(
                self.bins[phase][r + _REACH] * residual_price(table, r) for r in range(-span, span + 1) if self.bins[phase][r + _REACH]
            )
        return total

    def best_table(self, start: int) -> tuple[int, int, int]:
        """(price, shape, scale index), climbing from the scale ``start``."""
        low = 0 if start < SCALES else (start - 16) // 3
        q = start if start < SCALES else 16 + (start - 16) % 3
        first = 16 if low else 0
        best, q = self._climb(0, first, self.price(0, q), q)
        shape = 0
        for candidate in range(1, len(TABLES)):
            price = self.price(candidate, q)
            if price < best:
                best, q = self._climb(candidate, first, price, q)
                shape = candidate
        return best + 256 * low * self.count, shape, 16 + 3 * low + q - 16 if low else q

    def _climb(self, shape: int, first: int, price: int, q: int) -> tuple[int, int]:
        for way in (-1, 1):
            while first <= q + way < SCALES:
                following = self.price(shape, q + way)
                if following >= price:
                    break
                price, q = following, q + way
        return price, q


def residual_price(table: Table, residual: int) -> int:
    """What one residual costs."""
    size = abs(residual)
    if size <= table.radius:
        return table.price[residual + table.radius]
    return table.price[-1] + 256 * (_ESCAPE_BITS + (size - table.radius).bit_length() - 1)


def _scores(y: Sequence[int], step: int) -> tuple[list[float], list[int]]:
    """Mean |residual| and sum of its logarithms for each predictor, in single precision."""
    levels, slopes = _GAINS
    codes = np.array(y, np.int32).astype(np.float32)
    codes = codes - codes[0]
    size = np.float32(step)
    inverse = np.float32(1) / size if step else np.float32(0)
    level = np.zeros(16, np.float32)
    slope = np.zeros(16, np.float32)
    total = np.zeros(16, np.float32)
    logs = np.zeros(16, np.int64)
    for row in range(1, len(y)):
        gain = min(row, WARM_UP)
        mean = level + slope
        if step:
            steps = ((codes[row] - ((mean + _NEAREST) - _NEAREST)) * inverse + _NEAREST) - _NEAREST
            seen, error = np.abs(steps), steps * size
        else:
            error = codes[row] - mean
            seen = np.abs(error)
        level = mean + levels[gain] * error
        slope = slope + slopes[gain] * error
        total += seen
        logs += (seen + np.float32(0.3)).view(np.int32) >> 12
    return [float(value) for value in total / np.float32(len(y) - 1)], [int(value) for value in logs]


def _usual(mean: float, logs: int, count: int) -> int:
    typical = float(np.uint32((logs << 12) // (count - 1) & 0xFFFFFFFF).view(np.float32))
    most = typical * 6.0
    return int((min(most, mean)) * 4096.0)


def _price_predictor(y: Sequence[int], predictor: int, usual: int) -> tuple[int, Channel]:
    guess = bisect_right(BORDER, usual)
    walk = Channel(predictor=predictor, middle=guess, scales=(guess,))
    walk.start()
    low = walk.table(guess, 0)[1]
    seen = _Histogram(4)
    sums, counts = [0, 0, 0], [0, 0, 0]
    for row in range(1, len(y)):
        mean = walk.level + walk.slope
        error = (y[row] << FRACTION) - mean
        quarter = quarters(mean, low)
        group = walk.class_for_statistics()
        seen.add(quarter & 3, (y[row] >> low) - (quarter >> 2))
        walk.remember(error)
        sums[group] += abs(error)
        counts[group] += 1
        walk.follow(mean, error, row)
    best, shape, scale = seen.best_table(guess)
    choice = Channel(predictor=predictor, shape=shape, scales=(scale,), middle=scale)
    overall = sum(sums) // (len(y) - 1)
    means = [total // count if count > 3 else overall for total, count in zip(sums, counts, strict=True)]
    spread = [mean for mean, count in zip(means, counts, strict=True) if count > 3]
    if spread and max(spread) * 20 > min(spread) * 27:
        price, classes = _price_classes(y, predictor, guess, means)
        if price * 500 < best * 499:
            return price, classes
    return best, choice


def _price_classes(y: Sequence[int], predictor: int, guess: int, means: Sequence[int]) -> tuple[int, Channel]:
    """One scale for each class of recent residuals."""
    walk = Channel(predictor=predictor, middle=guess)
    walk.start()
    guesses = [bisect_right(BORDER, mean) for mean in means]
    lows = [walk.table(scale, 0)[1] for scale in guesses]
    seen = [_Histogram(4) for _ in range(3)]
    for row in range(1, len(y)):
        mean = walk.level + walk.slope
        error = (y[row] << FRACTION) - mean
        group = walk.class_for_statistics()
        quarter = quarters(mean, lows[group])
        seen[group].add(quarter & 3, (y[row] >> lows[group]) - (quarter >> 2))
        walk.remember(error)
        walk.follow(mean, error, row)
    found = [histogram.best_table(scale) for histogram, scale in zip(seen, guesses, strict=True)]
    counts = [histogram.count for histogram in seen]
    busiest = (1 if counts[1] >= counts[2] else 2) if counts[1] >= counts[0] else 0 if counts[0] >= counts[2] else 2
    shape = found[busiest][1]
    price = _PRICE_CLASSES
    for histogram, (_, _, scale) in zip(seen, found, strict=True):
        q, low = (scale, 0) if scale < SCALES else (16 + (scale - 16) % 3, (scale - 16) // 3)
        price += histogram.price(shape, q) + 256 * low * histogram.count
    return price, Channel(predictor=predictor, shape=shape, scales=tuple(scale for _, _, scale in found), middle=guess)


def _price_bounded(y: Sequence[int], predictor: int, step: int) -> tuple[int, Channel]:
    walk = Channel(predictor=predictor)
    walk.start()
    seen = _Histogram(1)
    for row in range(1, len(y)):
        mean = walk.level + walk.slope
        steps = nearest_steps(y[row] - whole(mean), step)
        seen.add(0, steps)
        walk.follow(mean, steps * step << FRACTION, row)
    price, shape, scale = seen.best_table(6)
    return price, Channel(predictor=predictor, shape=shape, scales=(scale,), middle=scale)


def _take(channel: Channel, choice: Channel) -> None:
    channel.predictor, channel.shape = choice.predictor, choice.shape
    channel.scales, channel.middle = choice.scales, choice.middle


def _choose(channel: Channel, y: Sequence[int], step: int) -> int:
    """Predictor, shape and scales; ``step`` above 0 for the bounded loop. Returns the price."""
    if len(y) < 2:
        if step:
            price, choice = _price_bounded(y, 0, step)
            _take(channel, choice)
            return price
        _take(channel, Channel())
        return 0
    means, logs = _scores(y, step)
    by_logs, by_mean = logs.index(min(logs)), means.index(min(means))
    priced = []
    for predictor in (by_mean, by_logs) if by_logs != by_mean else (by_mean,):
        if step:
            priced.append(_price_bounded(y, predictor, step))
        else:
            priced.append(_price_predictor(y, predictor, _usual(means[predictor], logs[predictor], len(y))))
    price, choice = min(priced, key=lambda pair: pair[0])
    _take(channel, choice)
    return price


def _wide_price(residuals: Sequence[int], scale: int) -> int:
    table, low = Channel().table(scale, 0)
    return 256 * low * len(residuals) + sum(residual_price(table, residual >> low) for residual in residuals)


def _choose_wide(channel: Channel, values: Sequence[int]) -> None:
    found = []
    for order in range(3):
        channel.predictor = order
        channel.last = channel.before = values[0]
        residuals = []
        for value in values[1:]:
            residuals.append(signed(value - channel.wide_prediction()))
            channel.before, channel.last = channel.last, value
        lengths = sum((2 * r if r >= 0 else -2 * r - 1).bit_length() for r in residuals)
        found.append((lengths, order, residuals))
    lengths, channel.predictor, residuals = min(found, key=lambda item: item[:2])
    scale = min(_WIDE_SCALE_MAX, 3 * lengths // max(1, len(values) - 1))
    price = _wide_price(residuals, scale)
    for way in (-1, 1):
        while 0 <= scale + way <= _WIDE_SCALE_MAX and (following := _wide_price(residuals, scale + way)) < price:
            price, scale = following, scale + way
    channel.shape, channel.scales, channel.middle = 0, (scale,), scale


def _lossless(values: Sequence[int], *, plain_too: bool) -> tuple[int, Channel, list[int]]:
    channel = Channel()
    y = fit_basic(values, channel)
    if channel.mode == CONSTANT:
        return 0, channel, y
    if channel.mode == WIDE:
        _choose_wide(channel, values)
        return NO_PRICE, channel, y
    if channel.mode == PLAIN:
        y = fit_affine(y, channel) or y
    price = _choose(channel, y, 0) if plain_too or channel.mode != PLAIN else NO_PRICE
    if channel.mode == AFFINE:
        return price, channel, y
    was_plain = channel.mode == PLAIN
    best = price, channel, y
    other = channel.copied()
    codes = fit_levels(y, other)
    if codes is not None:
        found = _choose(other, codes, 0) + 256 * (40 + 3 * len(other.levels))
        if found < best[0]:
            best = found, other, codes
    if not was_plain or best[1].mode != PLAIN or not plain_too:
        return best
    other = channel.copied()
    codes = fit_remainder(values, other)
    if codes is not None:
        each = 256 * (other.unit - 2).bit_length()
        calm = CALM[other.zero]
        rest = sum(PRICE[calm] if value % other.unit == 0 else PRICE[PROBABILITY - calm] + each for value in values[1:])
        found = _choose(other, codes, 0) + rest
        if found < best[0]:
            best = found, other, codes
    return best


def _bounded_fits(values: Sequence[int], bound: int) -> bool:
    low, high = min(values), max(values)
    return bound > 0 and low >= -_BOUNDED_LIMIT and high <= _BOUNDED_LIMIT and high - low < CODE_LIMIT // 2


def _bounded_codes(channel: Channel, values: Sequence[int], bound: int) -> list[int]:
    near = values[:_START_SAMPLES]
    middle = sum(value - values[0] for value in near) // len(near)
    channel.mode, channel.step = BOUNDED, 2 * bound + 1
    channel.first = values[0] + max(-bound, min(bound, middle))
    return [value - channel.first for value in values]


def prepare(values: Sequence[int], bound: int) -> tuple[int, Channel, list[int]]:
    """Price, choices and codes of a channel, from scratch."""
    if not _bounded_fits(values, bound):
        return _lossless(values, plain_too=True)
    best = _lossless(values, plain_too=False)
    if best[1].mode == CONSTANT:
        return best
    channel = Channel()
    codes = _bounded_codes(channel, values, bound)
    price = _choose(channel, codes, channel.step)
    return (price, channel, codes) if price < best[0] else best


def prepare_planned(values: Sequence[int], bound: int, plan: bytes) -> tuple[Channel, list[int]]:
    """The same with the choices of a plan, as far as it fits."""
    channel = Channel()
    codes: list[int] | None = fit_basic(values, channel)
    if channel.mode == CONSTANT:
        return channel, codes or []
    mode = plan[0]
    basic = channel.mode
    if mode == BOUNDED and _bounded_fits(values, bound):
        codes = _bounded_codes(channel, values, bound)
    elif basic not in {PLAIN, DIVISOR}:
        codes = None
    elif mode not in {PLAIN, DIVISOR}:
        if mode == AFFINE and basic == PLAIN:
            codes = fit_affine(codes or [], channel)
        elif mode == LEVELS:
            codes = fit_levels(codes or [], channel)
        elif mode == REMAINDER and basic == PLAIN:
            codes = fit_remainder(values, channel)
        else:
            codes = None
    if codes is None:
        return prepare(values, bound)[1:]
    channel.predictor, channel.shape, channel.middle = plan[1], plan[2], plan[7]
    channel.scales = tuple(plan[4:7]) if plan[3] == 3 else (plan[4],)
    return channel, codes


def plan_of(channel: Channel) -> bytes:
    """A channel's choices as eight bytes."""
    if channel.mode in {CONSTANT, WIDE}:
        return bytes((WIDE, 0, 0, 1, 0, 0, 0, 0))
    scales = channel.scales if len(channel.scales) == 3 else channel.scales * 3
    return bytes((channel.mode, channel.predictor, channel.shape, len(channel.scales), *scales, channel.middle))
