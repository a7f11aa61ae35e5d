"""Fuzz ``deltapack.decode_full``: whatever the bytes, a block or a DecodeError; and what decodes encodes and decodes again."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from seeds import blocks, with_checksum

from native import DecodeError, deltapack


def one_input(data: bytes) -> None:
    """Decode mutated bytes as they are and with a good checksum."""
    for block in (data, with_checksum(data)):
        try:
            got = deltapack.decode_full(block)
        except DecodeError:
            continue
        if got.columns.size > 4096:
            continue  # a large constant block is legal; encoding it again only costs time
        again = deltapack.decode_full(deltapack.encode(got.ts_ms, got.columns, valid=got.valid, reasons=got.reasons))
        if not (np.array_equal(again.ts_ms, got.ts_ms) and np.array_equal(again.columns, got.columns)):
            raise AssertionError("what decoded does not survive another round trip")


def main() -> None:
    """Write the seeds into the corpus folder and fuzz."""
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    for index, block in enumerate(blocks()):
        if corpus:
            (corpus / f"seed{index}").write_bytes(block)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
