"""Make the fixed tables of the block codec: ``native/src/tables.h`` for the kernel, ``native/reference/tables.json`` for its twin.

Not run by the build: the tables are part of the format, so they are files in the repository, and a test checks that this
program still makes them. Invariant: the frequencies of one table sum to 4096 and none is 0.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

PROBABILITY = 4096  # 12 bits
SCALES = 19  # residual scales 0.08 * 2**(q/3): third-octaves from "nearly always exact" to a spread of five steps
PHASES = 4  # quarter steps of the prediction's fraction
SHAPES = ("logistic", "gaussian", "laplace")
WARM_UP = 64  # rows until the start-up gains have settled
WIDE_SCALES = 109  # scale indices of a channel: 16 + 3 * 30 + 2, so that at most 30 low bits are sent raw

# (level gain, slope gain) of the steady filter: last value, line, moving averages, local lines, damped ones.
LINES = (0.6, 0.4, 0.25, 0.15, 0.08, 0.05)
AVERAGES = (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625)
GAINS = (
    [(1.0, 0.0), (1.0, 1.0)]
    + [(gain, 0.0) for gain in AVERAGES]
    + [(1 - (1 - pull) ** 2, pull**2) for pull in LINES]
    + [(0.75, 0.0), (1.0, 0.3)]
)


def scale(index: float) -> float:
    """Logistic scale of a scale index, in steps."""
    return float(0.08 * 2 ** (index / 3))


def radius(q: int) -> int:
    """Residuals beyond this are escaped."""
    return max(2, math.ceil(7.0 * scale(q)) + 1)


def below(shape: str, spread: float, x: float) -> float:
    """Distribution function, every shape with the same mean |residual| (1.386 spreads)."""
    if shape == "logistic":
        return 1 / (1 + math.exp(-x / spread)) if abs(x / spread) < 700 else float(x > 0)
    if shape == "gaussian":
        return 0.5 * math.erfc(-x / (1.737 * spread * math.sqrt(2)))
    mean = 1.386 * spread
    return 0.5 * math.exp(x / mean) if x < 0 else 1 - 0.5 * math.exp(-x / mean)


def frequencies(shape: str, q: int, phase: int) -> list[int]:
    """Twelve-bit frequencies of residuals -radius..radius and of the escape."""
    reach, spread, fraction = radius(q), scale(q), phase / PHASES
    masses = []
    for residual in range(-reach, reach + 1):
        low, high = residual - 0.5 - fraction, residual + 0.5 - fraction
        if low > 0:
            low, high = -high, -low  # the lower tail is where floats are accurate
        body = below(shape, spread, high) - below(shape, spread, low)
        # A thin tail that no shape predicts: a knock, a door, a valve.
        masses.append(body * 0.997 + 0.003 * 0.25 / (1 + abs(residual - fraction)) ** 1.5)
    masses.append(max(1e-4, 1 - sum(masses)))
    return share(masses)


def share(weights: list[float]) -> list[int]:
    """Scale weights to frequencies that sum to 4096, each at least 1."""
    room = PROBABILITY - len(weights)
    total = sum(weights)
    counts = [max(1, round(weight / total * room)) for weight in weights]
    counts[counts.index(max(counts))] += PROBABILITY - sum(counts)
    if min(counts) < 1:
        raise ValueError("a table has an impossible symbol")
    return counts


def gains(index: int) -> tuple[list[int], list[int]]:
    """Level and slope gains in 1/65536 for rows 0..WARM_UP: high at first, then the steady ones."""
    level, slope = GAINS[index]
    levels, slopes = [65536], [0]
    for row in range(1, WARM_UP + 1):
        if slope == 0:
            now, turn = (1.0 if level == 1 else max(level, 1 / (row + 1))), 0.0
        elif slope == 1:
            now, turn = 1.0, 1.0
        else:
            now = max(level, min(1.0, 2 * (2 * row + 1) / ((row + 1) * (row + 2))))
            turn = max(slope, min(0.5, 6 / ((row + 1) * (row + 2)))) if row > 1 else 0.0
        levels.append(round(now * 65536))
        slopes.append(round(turn * 65536))
    return levels, slopes


def tables() -> dict[str, object]:
    """Everything that is part of the format, as plain lists."""
    both = [gains(index) for index in range(len(GAINS))]
    return {
        "radius": [radius(q) for q in range(SCALES)],
        "frequencies": [[[frequencies(shape, q, phase) for phase in range(PHASES)] for q in range(SCALES)] for shape in SHAPES],
        "level_gain": [levels for levels, _ in both],
        "slope_gain": [slopes for _, slopes in both],
        # Mean |residual| in 1/4096 step at a scale index, and the border to the next one: where a search starts.
        "mean": [round(1.386 * scale(index) * 4096) for index in range(WIDE_SCALES)],
        "border": [round(1.386 * scale(index + 0.5) * 4096) for index in range(WIDE_SCALES - 1)],
        # 256 * -log2(frequency / 4096), the price of a symbol; index 0 is unused.
        "price": [0] + [round(256 * (12 - math.log2(frequency))) for frequency in range(1, PROBABILITY + 1)],
        # Frequency of "nothing happened" when something happens once in 2**(index/4).
        "calm": [min(PROBABILITY - 1, max(1, PROBABILITY - round(PROBABILITY * 2 ** (-index / 4)))) for index in range(49)],
        # Priors of header fields, cumulative. Modes: plain, common divisor, affine, constant, levels, remainder, wide, bounded.
        "mode": cumulative([1500, 300, 150, 400, 120, 100, 76, 1450]),
        "predictor": cumulative([5, 2, 3, 4, 5, 5, 4, 3, 3, 4, 4, 4, 4, 3, 3, 3]),
        "shape": cumulative([4, 5, 3]),
        "scale": cumulative([1 / (1 + ((index - 11) / 5) ** 2) + 0.004 for index in range(WIDE_SCALES)]),
        "length": cumulative([1 / (1 + ((length - 10) / 3) ** 2) + 0.004 + (0.25 if length == 0 else 0) for length in range(65)]),
        # Bounded channels: the bound's bit length, and a scale of their own: most residuals are 0.
        "bound": cumulative([1 / (1 + ((length - 5) / 4) ** 2) + 0.01 for length in range(30)]),
        "bounded_scale": cumulative([1 / (1 + ((index - 2) / 5) ** 2) + 0.01 for index in range(SCALES)]),
        "clock": cumulative([1500, 2200, 396]),
    }


def cumulative(weights: list[float]) -> list[int]:
    """Running sums of frequencies, from 0 to 4096."""
    sums = [0]
    for count in share(list(map(float, weights))):
        sums.append(sums[-1] + count)
    return sums


def c_array(kind: str, name: str, values: list[int]) -> str:
    """One C array, wrapped."""
    lines, line = [], "   "
    for value in values:
        text = f" {value},"
        if len(line) + len(text) > 140:
            lines.append(line)
            line = "   "
        line += text
    return f"static const {kind} {name}[{len(values)}] = {{\n" + "\n".join([*lines, line]) + "\n};\n"


def header(made: dict[str, object]) -> str:
    """The tables as a C header; frequencies of one table follow each other without padding."""
    flat = [count for shape in made["frequencies"] for q in shape for phase in q for count in phase]  # type: ignore[attr-defined]
    text = "/* Generated by scripts/make_tables.py; the same numbers as native/reference/tables.json. Part of the format: never edit. */\n"
    text += "#ifndef ICECAP_TABLES_H\n#define ICECAP_TABLES_H\n#include <stdint.h>\n"
    text += f"enum {{ SHAPES = {len(SHAPES)}, SCALES = {SCALES}, PREDICTORS = {len(GAINS)}, WARM_UP = {WARM_UP} }};\n"
    text += f"enum {{ CHANNEL_SCALES = {WIDE_SCALES} }};\n"
    text += f"enum {{ SYMBOLS_MAX = {2 * radius(SCALES - 1) + 2}, CALM_CHOICES = 49 }};\n"
    text += c_array("uint8_t", "TABLE_RADIUS", made["radius"])  # type: ignore[arg-type]
    text += c_array("uint16_t", "TABLE_FREQUENCY", flat)
    for name, key, kind in (("LEVEL_GAIN", "level_gain", "int32_t"), ("SLOPE_GAIN", "slope_gain", "int32_t")):
        rows = made[key]
        text += c_array(kind, name, [value for row in rows for value in row])  # type: ignore[attr-defined]
    wide = {"SCALE_MEAN": "mean", "SCALE_BORDER": "border"}
    narrow = {"PRICE": "price", "CALM": "calm"}
    heads = ("mode", "predictor", "shape", "scale", "length", "clock", "bound", "bounded_scale")
    for name, key in {**wide, **narrow, **{f"HEAD_{head.upper()}": head for head in heads}}.items():
        text += c_array("int64_t" if name in wide else "uint16_t", name, made[key])  # type: ignore[arg-type]
    return text + "#endif\n"


def powers() -> str:
    """Powers of ten for ``shortest.h``: 10**k for k from -292 to 324 as 128-bit numbers with the top bit set, rounded up."""
    text = "/* Generated by scripts/make_tables.py: 10**k, k from -292 to 324, scaled to 128 bits and rounded up; high and low halves. */\n"
    text += "#ifndef ICECAP_POWERS_H\n#define ICECAP_POWERS_H\n#include <stdint.h>\n"
    text += "enum { POWER_MIN = -292, POWER_MAX = 324 };\nstatic const uint64_t POWERS[POWER_MAX - POWER_MIN + 1][2] = {\n"
    for k in range(-292, 325):
        # 10**k = power * 2**(floor_log2 - 127)
        shift = (k * 1741647 >> 19) - 127
        over, under = (10**k, 1) if k >= 0 else (1, 10**-k)
        over, under = (over << -shift, under) if shift < 0 else (over, under << shift)
        power = -(-over // under)
        text += f"    {{{power >> 64:#018x}u, {power & 2**64 - 1:#018x}u}},\n"
    return text + "};\n#endif\n"


def main() -> None:
    """Write the files below the folder given as the first argument, or the repository."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    made = tables()
    (root / "native/src/tables.h").write_text(header(made))
    (root / "native/src/powers.h").write_text(powers())
    (root / "native/reference/tables.json").write_text(json.dumps(made, separators=(",", ":")).replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    main()
