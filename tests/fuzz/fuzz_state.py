"""Fuzz ``Smoother.restore`` and what a restored smoother does next."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

from seeds import with_checksum

from native import DecodeError, smooth


def one_input(data: bytes) -> None:
    """Restore mutated state, go on with it, save it."""
    try:
        smoother = smooth.Smoother.restore(with_checksum(data))
    except DecodeError:
        return
    for t_ms in (0, 1000, 5000, 10**12):
        smoother.update(t_ms, t_ms % 977)
        smoother.update(t_ms, None)
    smooth.Smoother.restore(smoother.state())


def main() -> None:
    """Write the seeds into the corpus folder and fuzz."""
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if corpus:
        fresh = smooth.Smoother(lo=-5000, hi=5000, sentinels=(8500,), sigma=3.0, max_rate=5.0)
        (corpus / "fresh").write_bytes(fresh.state()[:-4])
        for t_ms in range(0, 40_000, 1000):
            fresh.update(t_ms, t_ms // 100)
        (corpus / "warm").write_bytes(fresh.state()[:-4])
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
