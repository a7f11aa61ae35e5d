"""One channel of the twin: its choices, its filter, its lattice. Plain integers throughout."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from native.reference.rans import Source, Symbols
from native.reference.tables import CALM, LEVEL_GAIN, MEAN, SLOPE_GAIN, TABLES, Table
from native.shared import DecodeError

__all__ = [
    "AFFINE",
    "BOUNDED",
    "CODE_LIMIT",
    "CONSTANT",
    "DIVISOR",
    "FRACTION",
    "LEVELS",
    "PLAIN",
    "REMAINDER",
    "SCALES",
    "WARM_UP",
    "WIDE",
    "Channel",
    "nearest_steps",
    "quarters",
    "signed",
    "whole",
]

PLAIN, DIVISOR, AFFINE, CONSTANT, LEVELS, REMAINDER, WIDE, BOUNDED = range(8)
FRACTION = 12  # bits after the point of a prediction
CODE_LIMIT = 1 << 30
SCALES = 19
WARM_UP = 64


def signed(value: int) -> int:
    """Wrap into a signed 64-bit number, as the machine does."""
    return (value + 2**63) % 2**64 - 2**63


def quarters(mean: int, low: int) -> int:
    """A prediction in quarters of ``2**low`` steps, rounded."""
    return (mean + (1 << FRACTION - 1) - (1 << FRACTION - 1 + low) + (1 << FRACTION - 3 + low)) >> (FRACTION - 2 + low)


def whole(mean: int) -> int:
    """A prediction rounded to a step."""
    return (mean + (1 << FRACTION - 1)) >> FRACTION


def nearest_steps(distance: int, step: int) -> int:
    """``distance / step`` rounded, halves away from zero."""
    steps = (abs(distance) + step // 2) // step
    return -steps if distance < 0 else steps


@dataclass(slots=True)
class Channel:
    """Choices first, then what changes from row to row."""

    mode: int = PLAIN
    predictor: int = 0
    shape: int = 0
    scales: tuple[int, ...] = (0,)  # one, or one for each class of recent residuals
    middle: int = 0
    masked: bool = False
    drop: int = 48
    back: int = 48
    unit: int = 10
    zero: int = 0
    first: int = 0
    step: int = 1
    offset: int = 0
    origin: int = 0
    levels: list[int] = field(default_factory=list)
    level: int = 0
    slope: int = 0
    recent: tuple[int, int, int] = (0, 0, 0)
    last: int = 0
    before: int = 0
    settled: bool = False
    waiting: bool = True
    present: bool = True

    @property
    def silent(self) -> bool:
        """Whether the rows say nothing about it."""
        return self.mode == CONSTANT and not self.masked

    def start(self) -> None:
        """Begin with this block."""
        self.level = self.slope = 0
        self.recent = (MEAN[self.middle],) * 3 if self.mode != WIDE else (0, 0, 0)
        self.last = self.before = self.first
        self.settled, self.waiting, self.present = False, True, True

    def carry_on(self) -> None:
        """Go on from the block before."""
        self.settled, self.waiting, self.present = True, False, True

    def copied(self) -> Channel:
        """An independent copy."""
        return copy.copy(self)

    def scale_now(self) -> int:
        """The scale index that the recent residuals call for."""
        return self.scales[self.class_for_statistics() if len(self.scales) > 1 else 0]

    def class_for_statistics(self) -> int:
        """The class of recent residuals, whether or not it chooses a scale."""
        recent = 2 * self.recent[0] + self.recent[1] + self.recent[2]
        return (recent >= MEAN[self.middle] * 12 // 5) + (recent > MEAN[self.middle] * 6)

    def remember(self, error: int) -> None:
        """Keep the magnitudes of the last three residuals."""
        self.recent = (abs(error), self.recent[0], self.recent[1])

    def follow(self, mean: int, error: int, row: int) -> None:
        """Correct level and slope."""
        at = WARM_UP if self.settled else min(row, WARM_UP)
        self.level = mean + (error * LEVEL_GAIN[self.predictor][at] >> 16)
        self.slope += error * SLOPE_GAIN[self.predictor][at] >> 16

    def table(self, scale: int, phase: int) -> tuple[Table, int]:
        """Table and low bits of a scale index."""
        q, low = (scale, 0) if scale < SCALES else (16 + (scale - 16) % 3, (scale - 16) // 3)
        return TABLES[self.shape][q][phase], low

    def wide_prediction(self) -> int:
        """Order 0, 1 or 2."""
        return (self.first, self.last, 2 * self.last - self.before)[self.predictor]

    # -- one cell out
    def encode(self, symbols: Symbols, y: int, value: int, row: int) -> None:
        """Code one valid cell that is not the channel's first."""
        if self.mode == CONSTANT:
            return
        if self.mode == WIDE:
            table, low = self.table(self.middle, 0)
            residual = signed(value - self.wide_prediction())
            symbols.residual(table, residual >> low)
            symbols.raw(residual, low)
            self.before, self.last = self.last, value
            return
        mean = self.level + self.slope
        if self.mode == BOUNDED:
            steps = nearest_steps(y - whole(mean), self.step)
            symbols.residual(self.table(self.middle, 0)[0], steps)
            self.follow(mean, steps * self.step << FRACTION, row)
            return
        scale = self.scale_now()
        low = self.table(scale, 0)[1]
        quarter = quarters(mean, low)
        symbols.residual(self.table(scale, quarter & 3)[0], (y >> low) - (quarter >> 2))
        symbols.raw(y, low)
        error = (y << FRACTION) - mean
        self.remember(error)
        self.follow(mean, error, row)
        if self.mode == REMAINDER:
            rest = value % self.unit
            symbols.flag(rest != 0, CALM[self.zero])
            if rest:
                symbols.raw(rest - 1, (self.unit - 2).bit_length())

    # -- one cell back
    def decode(self, source: Source, row: int) -> int:
        """The value of one valid cell."""
        if self.waiting:
            self.waiting = False
            return self.value_of(0) if self.mode in {AFFINE, LEVELS} else self.first
        if self.mode == CONSTANT:
            return self.first
        if self.mode == WIDE:
            table, low = self.table(self.middle, 0)
            residual = source.residual(table) << low
            value = signed(self.wide_prediction() + (residual | source.raw(low)))
            self.before, self.last = self.last, value
            return value
        mean = self.level + self.slope
        if self.mode == BOUNDED:
            steps = source.residual(self.table(self.middle, 0)[0])
            y = whole(mean) + steps * self.step
            if not (-CODE_LIMIT <= steps < CODE_LIMIT and -CODE_LIMIT <= y < CODE_LIMIT):
                raise DecodeError("bad_value", "code outside its range")
            self.follow(mean, steps * self.step << FRACTION, row)
            return signed(y + self.first)
        scale = self.scale_now()
        low = self.table(scale, 0)[1]
        quarter = quarters(mean, low)
        y = (quarter >> 2) + source.residual(self.table(scale, quarter & 3)[0])
        if not -(CODE_LIMIT >> low) <= y < CODE_LIMIT >> low:
            raise DecodeError("bad_value", "code outside its range")
        y = y << low | source.raw(low)
        error = (y << FRACTION) - mean
        self.remember(error)
        self.follow(mean, error, row)
        if self.mode != REMAINDER:
            return self.value_of(y)
        rest = source.raw((self.unit - 2).bit_length()) + 1 if source.flag(CALM[self.zero]) else 0
        return signed((y + self.origin) * self.unit + rest)

    def value_of(self, y: int) -> int:
        """What a code stands for."""
        if self.mode == DIVISOR:
            return signed(self.first + y * self.step)
        if self.mode == AFFINE:
            return signed(self.first + (signed((y + self.origin) * self.step + self.offset) >> 16))
        if self.mode == LEVELS:
            if not 0 <= y + self.origin < len(self.levels):
                raise DecodeError("bad_value", "level outside the list")
            return self.levels[y + self.origin]
        return signed(y + self.first)
