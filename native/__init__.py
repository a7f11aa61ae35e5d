"""The kernels: block codec, conditioner, line protocol, checksum. Compiled where possible, the Python twins otherwise.

Not a place for policy: nothing here knows a cooler, a topic or a clock, and nothing of ours is imported.
Invariant: both back ends give the same bytes and the same bits; only the speed differs.

``ICECAP_REFERENCE=1`` chooses the twins; ``ICECAP_REQUIRE_NATIVE=1`` refuses to run on them.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Final, Literal

from native.shared import (
    CELLS_MAX,
    CHANNELS_MAX,
    COASTED,
    MISSING,
    OK,
    RANGE,
    RATE,
    ROWS_MAX,
    SENTINEL,
    SPIKE,
    STALE,
    Block,
    DecodeError,
    FullBlock,
)

__all__ = [
    "BACKEND",
    "CELLS_MAX",
    "CHANNELS_MAX",
    "COASTED",
    "KERNELS",
    "MISSING",
    "OK",
    "RANGE",
    "RATE",
    "ROWS_MAX",
    "SENTINEL",
    "SPIKE",
    "STALE",
    "WHY_REFERENCE",
    "Block",
    "DecodeError",
    "FullBlock",
    "crc32c",
    "deltapack",
    "hampel",
    "lineproto",
    "smooth",
]

KERNELS: Final = ("crc32c", "deltapack", "hampel", "lineproto", "smooth")


def _why_reference() -> str:
    """Why the twins run, or an empty text when the compiled kernels do."""
    if os.environ.get("ICECAP_REFERENCE") == "1":
        return "ICECAP_REFERENCE=1 is set"
    for kernel in KERNELS:
        try:
            importlib.import_module(f"native.{kernel}")
        except ImportError as error:
            return f"native.{kernel} is not compiled ({error}); run: python setup.py build_ext --inplace"
    return ""


WHY_REFERENCE: Final[str] = _why_reference()
BACKEND: Final[Literal["compiled", "reference"]] = "reference" if WHY_REFERENCE else "compiled"

if WHY_REFERENCE:
    if os.environ.get("ICECAP_REQUIRE_NATIVE") == "1":
        raise ImportError(f"ICECAP_REQUIRE_NATIVE=1, but the kernels would run in pure Python: {WHY_REFERENCE}")
    for _kernel in KERNELS:
        # The alias makes ``import native.deltapack`` and ``from native.deltapack import encode`` reach the twin as well.
        sys.modules[f"native.{_kernel}"] = globals()[_kernel] = importlib.import_module(f"native.reference.{_kernel}")

if TYPE_CHECKING or not WHY_REFERENCE:
    from native import crc32c, deltapack, hampel, lineproto, smooth
