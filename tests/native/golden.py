"""Golden blocks of the codec: made once, kept for ever. ``python -m tests.native.golden`` writes the ones that do not exist yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from native import deltapack
from tests.native.signals import cooler, kinds

__all__ = ["CASES", "decoded"]

_FOLDER = Path(__file__).parents[1] / "golden/deltapack"


def _lossless() -> list[bytes]:
    return [deltapack.encode(*cooler(60)), deltapack.encode(*cooler(200, seed=2))]


def _bounded() -> list[bytes]:
    return [deltapack.encode_bounded(*cooler(60), [5, 5, 5, 2, 4, 2, 5, 10])]


def _every_mode() -> list[bytes]:
    ts_ms = np.arange(50, dtype=np.int64) * 1000 - 12_345
    return [deltapack.encode(ts_ms, column[:, None]) for column in kinds().values()]


def _clocks() -> list[bytes]:
    stamps = ([0], [5, 5, 5], [3000, 2000, 1000], [0, 1000, 2000, 3000, 9000, 10_000, 11_000], [0, 1003, 1996, 3001], [-37, 0, 37])
    return [deltapack.encode(np.array(clock, np.int64), np.arange(len(clock), dtype=np.int64)[:, None]) for clock in stamps]


def _masked() -> list[bytes]:
    ts_ms, columns = cooler(40)
    valid = np.ones(columns.shape, bool)
    valid[5:9, 2], valid[0, 0], valid[:, 6] = False, False, False
    return [deltapack.encode(ts_ms, columns, valid=valid, reasons=np.where(valid, 0, 4).astype(np.uint8))]


def _session() -> list[bytes]:
    ts_ms, columns = cooler(180)
    encoder = deltapack.Encoder()
    return [encoder.encode(ts_ms[start : start + 60], columns[start : start + 60]) for start in (0, 60, 120)]


CASES: dict[str, Callable[[], list[bytes]]] = {
    "lossless": _lossless,
    "bounded": _bounded,
    "every_mode": _every_mode,
    "clocks": _clocks,
    "masked": _masked,
    "session": _session,
}


def decoded(blocks: list[bytes]) -> list[np.ndarray]:
    """Stamps and columns of every block, in order."""
    decoder = deltapack.Decoder()
    read = [decoder.decode(block) for block in blocks]
    return [part for block in read for part in (block.ts_ms, block.columns)]


def main() -> None:
    """Write the golden files that are missing; one that exists is never touched."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in CASES.items():
        if not (_FOLDER / f"{name}.hex").exists():
            blocks = make()
            (_FOLDER / f"{name}.hex").write_text("\n".join(block.hex() for block in blocks) + "\n")
            np.savez_compressed(_FOLDER / f"{name}.npz", *decoded(blocks))


if __name__ == "__main__":
    main()
