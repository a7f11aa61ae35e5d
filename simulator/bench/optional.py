"""Peers are used where they are installed and left out where they are not."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["optional"]


def optional(name: str) -> Any:  # a peer's module: nothing is known about its types
    """The module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
