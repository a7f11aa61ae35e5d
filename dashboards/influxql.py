"""InfluxQL for the boards: one place that quotes names and puts the reader's choices into a query. Not a general query builder.

Invariant: whatever a reader chooses reaches a query only as ``${name:regex}`` inside a regular expression of a tag, from a list that a
query gave: there is no free text, so there is nothing to inject.
"""

from collections.abc import Sequence

__all__ = ["chosen", "select", "tag_values"]


def chosen(*tags: str) -> str:
    """The condition that tags are among the reader's choices; each variable is named like its tag."""
    return " AND ".join(f'"{tag}" =~ /^${{{tag}:regex}}$/' for tag in tags)


def select(what: str, source: str, where: str = "", *, by: Sequence[str] = (), every: str = "", fill: str = "") -> str:
    """One statement over the chosen time. ``source`` is a measurement or a subquery in parentheses; ``every`` is a bucket's length."""
    table = source if source.startswith("(") else f'"{source}"'
    condition = f"$timeFilter AND {where}" if where else "$timeFilter"
    groups = [*([f"time({every})"] if every else []), *(f'"{tag}"' for tag in by)]
    grouping = f" GROUP BY {', '.join(groups)}" if groups else ""
    filling = f" fill({fill})" if fill else ""
    return " ".join(("SELECT", what, "FROM", table, "WHERE", condition)) + grouping + filling


def tag_values(measurement: str, tag: str, where: str = "") -> str:
    """The values among which a reader chooses."""
    return f'SHOW TAG VALUES FROM "{measurement}" WITH KEY = "{tag}"{f" WHERE {where}" if where else ""}'
