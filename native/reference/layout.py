"""Numbers of the block layout that writer and reader of the twin share."""

from __future__ import annotations

__all__ = [
    "BLOCK_BYTES_MIN",
    "BOUND_LIMIT",
    "CHANNEL_SCALES",
    "CLOCK_CHANNEL",
    "CLOCK_GAPS",
    "CLOCK_REGULAR",
    "DEPENDENT",
    "FLAG_CLASSES",
    "FLAG_FRESH",
    "FLAG_GAP",
    "FLAG_MASK",
    "FLAG_MASKS",
    "FLAG_PERIOD",
    "FLAG_REASONS",
    "FLAG_SECONDS",
    "KEY",
    "LAPLACE",
    "MAGIC",
    "STANDALONE",
    "TWO_STATES_FROM",
    "WIDE_SCALE_MAX",
    "unzigzag",
    "zigzag",
]

MAGIC = 0xD0  # high half of the first byte; the low half is the kind
STANDALONE, KEY, DEPENDENT = range(3)
CLOCK_REGULAR, CLOCK_GAPS, CLOCK_CHANNEL = range(3)
TWO_STATES_FROM = 1200  # cells; below it a second state costs more than its speed is worth
BLOCK_BYTES_MIN = 11
CHANNEL_SCALES = 109
WIDE_SCALE_MAX = 198  # three scales a bit: 66 bits hold any difference of two int64
BOUND_LIMIT = 1 << 28
LAPLACE = 2  # the shape of corrections in a list of levels

# Frequencies, of 4096, of a flag that is clear.
FLAG_MASKS = 3900
FLAG_REASONS = 4000
FLAG_SECONDS = 1100
FLAG_PERIOD = 3700
FLAG_CLASSES = 2900
FLAG_MASK = 2048
FLAG_FRESH = 3900
FLAG_GAP = 3500


def zigzag(value: int) -> int:
    """Signed to unsigned: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """The way back."""
    return -(value + 1) // 2 if value & 1 else value // 2
