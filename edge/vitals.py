"""Vitals: is the agent well enough to feed its watchdog? Pure judgement over measured numbers. Not health for people (``edge.health``).

Invariant: a fault of the world that a restart cannot mend (a broker that was never there) does not restart the process; a part of ours
that stopped moving does.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from edge.sources.status import SourceStatus

__all__ = ["COMMIT_STUCK_S", "LAG_S_MAX", "SOURCE_SILENT_S_MAX", "Vitals", "complaints"]

LAG_S_MAX = 5.0  # a loop that was held for longer misses keep-alives; twenty times the worst seen on a busy two-core machine
COMMIT_STUCK_S = 60.0  # an SD card at its worst takes seconds; after a minute reopening the store is the better chance
SOURCE_SILENT_S_MAX = 900.0  # a clinic's broker that is away for a quarter of an hour: once, a fresh process may help


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is looked at: seconds are real."""

    lag_s: float
    waits_s: float
    """How long the oldest rows have been waiting for the disk."""
    sources: tuple[SourceStatus, ...]


def complaints(vitals: Vitals) -> list[str]:
    """Return why the watchdog must not be fed; empty when all is well."""
    found = []
    if vitals.lag_s > LAG_S_MAX:
        found.append(f"the event loop was held for {vitals.lag_s:.1f} s")
    if vitals.waits_s > COMMIT_STUCK_S:
        found.append(f"rows have been waiting {vitals.waits_s:.0f} s for the disk")
    found.extend(_silent(vitals.sources))
    return found


def _silent(sources: Iterable[SourceStatus]) -> Iterable[str]:
    """Sources that worked and have not for too long; one that never worked is a matter for people, not for a restart."""
    for source in sources:
        if source.has_succeeded and source.silent_s is not None and source.silent_s > SOURCE_SILENT_S_MAX:
            yield f"source {source.name} has been away for {source.silent_s:.0f} s"
