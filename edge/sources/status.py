"""Status of a source as health shows it. Not a log, and nothing decides by its text.

Invariant: ``ok`` is false whenever readings may not be coming and a person could do something about it; ``why`` then says what.
"""

from dataclasses import dataclass, field

__all__ = ["SourceStatus"]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A picture of one source.

    ``has_succeeded`` arms the watchdog: a source that never worked must not restart the process for ever. ``counts`` are totals since the
    process started, ``unknown_serials`` how often each cooler that nobody provisioned was heard.
    """

    name: str
    kind: str
    ok: bool
    why: str
    has_succeeded: bool
    silent_s: float | None
    """Real seconds since the source last did what it is there for; ``None`` before the first time."""
    counts: dict[str, int] = field(default_factory=dict)
    unknown_serials: dict[str, int] = field(default_factory=dict)
