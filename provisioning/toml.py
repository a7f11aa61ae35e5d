"""TOML text from plain values: what a configuration that we generate is written with. Not a general encoder (no dates, no nested arrays).

Invariant: ``tomllib.loads`` of what is written gives the values back.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Scalar", "array_tables", "pairs", "table"]

Scalar = str | int | float | bool | Path


def pairs(values: Mapping[str, Scalar]) -> str:
    """Return ``key = value`` lines."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in values.items())


def table(name: str, values: Mapping[str, Scalar]) -> str:
    """Return a ``[name]`` table after a blank line."""
    return f"\n[{name}]\n{pairs(values)}"


def array_tables(name: str, rows: Sequence[Mapping[str, Scalar]]) -> str:
    """Return one ``[[name]]`` table for each row."""
    return "".join(f"\n[[{name}]]\n{pairs(row)}" for row in rows)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _text(key)


def _value(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return _text(str(value))


def _text(text: str) -> str:
    """JSON's escapes are TOML's, but for DEL, which JSON leaves as it is; surrogate pairs are not, so nothing else is escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
