"""Shape: a TOML table into frozen Structs, with every error collected. Not a schema language; ``msgspec`` judges each leaf.

A key holds a table (a Struct), a list of tables (``tuple[Struct, ...]``, not annotated) or a leaf (anything else).

Invariant: a table is read to its end whatever is wrong in it, so that a person mends a file once; an unknown key is an error with a name.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar, get_args, get_origin, get_type_hints

import msgspec

__all__ = ["Shaper"]

T = TypeVar("T", bound=msgspec.Struct)


class Shaper:
    """Fills Structs from tables; ``errors`` is in the order of the shape's keys.

    ``inspect`` sees every table that could be filled, with its dotted name, whether its neighbours could or not; what it returns is added
    to the errors.
    """

    def __init__(self, inspect: Callable[[msgspec.Struct, str], list[str]]) -> None:
        self.errors: list[str] = []
        self._inspect = inspect

    def fill(self, shape: type[T], table: object, where: str = "") -> T | None:
        """Return ``table`` as ``shape``; ``None`` when a required key is missing or wrong. A wrong optional key keeps its default."""
        if not isinstance(table, Mapping):
            self._add(where, f"expected a table, got {type(table).__name__}")
            return None
        hints = get_type_hints(shape, include_extras=True)
        known = {field.name: field for field in msgspec.structs.fields(shape)}
        self._name_unknown(table, list(known), where)
        values: dict[str, object] = {}
        whole = True
        for name, field in known.items():
            value = self._value(hints[name], table[name], _join(where, name)) if name in table else None
            if value is not None:
                values[name] = value
            elif field.required:
                whole = False
                if name not in table:
                    self._add(_join(where, name), "missing")
        if not whole:
            return None
        filled = shape(**values)
        for error in self._inspect(filled, where):
            self._add(where, error)
        return filled

    def _name_unknown(self, table: Mapping[object, object], known: list[str], where: str) -> None:
        for key in table:
            if key not in known:
                close = get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
                self._add(_join(where, str(key)), f"unknown key; {hint}")

    def _value(self, hint: object, value: object, where: str) -> object:
        """One value: a nested table, a list of tables, or a leaf; ``None`` when it was wrong."""
        element = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if isinstance(element, type) and issubclass(element, msgspec.Struct):
            if element is hint:
                return self.fill(element, value, where)
            if not isinstance(value, list):
                self._add(where, "expected a list of tables ([[...]])")
                return None
            filled = [self.fill(element, one, f"{where}[{index}]") for index, one in enumerate(value)]
            return tuple(one for one in filled if one is not None)
        try:
            return msgspec.convert(value, type=hint, dec_hook=_path)
        except msgspec.ValidationError as error:
            self._add(where, str(error).replace(" - at `$", " - at `"))
            return None

    def _add(self, where: str, what: str) -> None:
        self.errors.append(f"{where}: {what}" if where else what)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _path(kind: type, value: object) -> object:
    """Tell msgspec how to read a path; any other type is not in our shapes."""
    if kind is not Path or not isinstance(value, str) or not value:
        raise ValueError("expected the path of a file")
    return Path(value)
