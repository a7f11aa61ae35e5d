"""What the fuzzers start from: blocks of every kind, and a checksum put right after each mutation."""

from __future__ import annotations

import numpy as np

from native import crc32c, deltapack


def with_checksum(body: bytes) -> bytes:
    """A mutated block with a good checksum: otherwise the fuzzer would only ever test the checksum."""
    return body + crc32c.crc32c(body).to_bytes(4, "little")


def blocks() -> list[bytes]:
    """Blocks without their checksum, one for each mode, clock and size that the format has."""
    generator = np.random.default_rng(1)
    rows = 40
    ts_ms = np.arange(rows, dtype=np.int64) * 1000 + 1_760_000_000_000
    walk = np.cumsum(generator.integers(-3, 4, rows))
    columns = {
        "plain": walk,
        "divisor": walk * 625,
        "affine": (walk + 99) * 27031 >> 10,
        "constant": np.full(rows, 7),
        "levels": generator.choice([0, 100, 1000, 5], rows),
        "remainder": np.where(generator.random(rows) < 0.9, walk * 100, 7),
        "wide": generator.integers(-(2**63), 2**63 - 1, rows),
        "classes": np.where(np.arange(rows) // 10 % 2, walk * 40, 3),
    }
    every = np.stack(list(columns.values()), 1).astype(np.int64)
    mask = generator.random(every.shape) > 0.1
    made = [deltapack.encode(ts_ms, column[:, None].astype(np.int64)) for column in columns.values()]
    made.append(deltapack.encode(ts_ms, every, valid=mask, reasons=np.where(mask, 0, 4).astype(np.uint8)))
    made.append(deltapack.encode(ts_ms + generator.integers(0, 9, rows), every))
    made.append(deltapack.encode(np.cumsum(generator.choice([1000, 4000], rows)), every))
    made.append(deltapack.encode_bounded(ts_ms, every, [5] * every.shape[1]))
    made.append(deltapack.encode(np.arange(200, dtype=np.int64), generator.integers(0, 50, (200, 8))))
    return [block[:-4] for block in made]
