"""Whether a channel can go on from the block before, for the twin's session blocks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    WIDE,
    Channel,
    nearest_steps,
    quarters,
    whole,
)
from native.reference.choose import residual_price

__all__ = ["PRICE_FRESH", "Session", "carried_codes", "carried_price"]

PRICE_FRESH = 256 * 36  # what a new description of a channel costs, about
_BOUNDED_LIMIT = 1 << 62


@dataclass(slots=True)
class Session:
    """What both ends remember between blocks."""

    channels: list[Channel] = field(default_factory=list)
    chain: int = 0
    last_ms: int = 0
    period_ms: int = 1000
    crc: int = 0


def carried_codes(channel: Channel, values: Sequence[int], bound: int) -> list[int] | None:
    """The values in the terms of the block before, or None."""
    codes = []
    for value in values:
        code = _carried_code(channel, value, bound)
        if code is None:
            return None
        codes.append(code)
    return codes


def _carried_code(channel: Channel, value: int, bound: int) -> int | None:  # noqa: PLR0911 - one case a mode
    code = value - channel.first
    if channel.mode == CONSTANT:
        return None if code else 0
    if channel.mode == PLAIN:
        return code if abs(code) < CODE_LIMIT else None
    if channel.mode == DIVISOR:
        return code // channel.step if code % channel.step == 0 and abs(code) // channel.step < CODE_LIMIT else None
    if channel.mode == AFFINE:
        if abs(code) >= CODE_LIMIT:
            return None
        index = ((code << 16) + channel.step // 2 - channel.offset + 32768) // channel.step
        back = (index * channel.step + channel.offset) >> 16
        if back != code:
            index += 1 if back < code else -1
            back = (index * channel.step + channel.offset) >> 16
        return index - channel.origin if back == code and abs(index) < CODE_LIMIT // 2 else None
    if channel.mode == LEVELS:
        rank = min(bisect_left(channel.levels, value), len(channel.levels) - 1)
        return rank - channel.origin if channel.levels[rank] == value else None
    if channel.mode == REMAINDER:
        return value // channel.unit - channel.origin if abs(code) < CODE_LIMIT else None
    if channel.mode == BOUNDED:
        fits = channel.step == 2 * bound + 1 and abs(code) < CODE_LIMIT // 2 and abs(value) <= _BOUNDED_LIMIT
        return code if fits else None
    return 0


def carried_price(channel: Channel, codes: Sequence[int]) -> int:
    """What going on with the old choices costs."""
    if channel.mode in {CONSTANT, WIDE}:
        return 0
    walk = channel.copied()
    walk.carry_on()
    price = 0
    for y in codes:
        mean = walk.level + walk.slope
        if walk.mode == BOUNDED:
            steps = nearest_steps(y - whole(mean), walk.step)
            price += residual_price(walk.table(walk.middle, 0)[0], steps)
            error = steps * walk.step << FRACTION
        else:
            scale = walk.scale_now()
            low = walk.table(scale, 0)[1]
            quarter = quarters(mean, low)
            price += residual_price(walk.table(scale, quarter & 3)[0], (y >> low) - (quarter >> 2)) + 256 * low
            error = (y << FRACTION) - mean
            walk.remember(error)
        walk.follow(mean, error, 0)
    return price
