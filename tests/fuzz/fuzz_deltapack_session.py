"""Fuzz the session decoder: a good key block, then mutated dependent blocks; a refusal must not disturb the session."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from seeds import with_checksum

from native import DecodeError, deltapack

_ROWS = 30
_GENERATOR = np.random.default_rng(2)
_TS_MS = np.arange(3 * _ROWS, dtype=np.int64) * 1000
_COLUMNS = np.stack(
    [np.cumsum(_GENERATOR.integers(-3, 4, 3 * _ROWS)), _GENERATOR.choice([0, 7, 90], 3 * _ROWS), np.full(3 * _ROWS, 5)], 1
).astype(np.int64)
_ENCODER = deltapack.Encoder()
_KEY, _NEXT, _LAST = (
    _ENCODER.encode(_TS_MS[start : start + _ROWS], _COLUMNS[start : start + _ROWS]) for start in range(0, 3 * _ROWS, _ROWS)
)


def one_input(data: bytes) -> None:
    """A mutated second block between the real ones."""
    decoder = deltapack.Decoder()
    decoder.decode(_KEY)
    try:
        decoder.decode(with_checksum(data))
    except DecodeError:
        decoder.decode(_NEXT)
        if not np.array_equal(decoder.decode(_LAST).columns, _COLUMNS[2 * _ROWS :]):
            raise AssertionError("a refused block disturbed the session") from None


def main() -> None:
    """Write the seeds into the corpus folder and fuzz."""
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if corpus:
        (corpus / "next").write_bytes(_NEXT[:-4])
        (corpus / "key").write_bytes(_KEY[:-4])
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
