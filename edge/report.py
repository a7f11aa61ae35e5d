"""Report: from the snapshot to what health says, part by part. Pure. Not the server.

Invariant: a part is ``ok`` unless a person or the service manager should do something; what merely waits says so and stays ``ok``.
"""

from collections.abc import Iterator, Mapping, Sequence

from edge.health import Part, Report
from edge.metrics import Snapshot
from edge.sources.status import SourceStatus
from protocol.clock import ClockQuality
from protocol.reading import Stamp

__all__ = ["make_report"]


def make_report(
    snapshot: Snapshot,
    *,
    stamp: Stamp,
    gateway: str,
    version: str,
    last_words: Mapping[str, str],
    complaints: Sequence[str],
    store_fault: str,
) -> Report:
    """Return the report; ``last_words`` are of sources that died and have not been started again yet."""
    parts = {
        "agent": Part(not complaints, "; ".join(complaints), {"loop_lag_s": round(snapshot.lag_s, 3)}),
        "clock": _clock(stamp, snapshot.clock_steps),
        "outbox": _outbox(snapshot, store_fault),
        "uplink": _uplink(snapshot),
        **dict(_sources(snapshot, last_words)),
    }
    return Report(
        ok=all(part.ok for part in parts.values()),
        gateway=gateway,
        version=version,
        boot=stamp.boot,
        wall_ms=stamp.wall_ms,
        clock=stamp.quality.letter,
        uptime_s=round(snapshot.uptime_s, 1),
        parts=parts,
    )


def _clock(stamp: Stamp, steps: int) -> Part:
    why = "" if stamp.quality in {ClockQuality.SYNCED, ClockQuality.RELATIVE} else "no time service keeps this clock"
    return Part(stamp.quality != ClockQuality.UNSYNCED, why, {"steps": steps})


def _outbox(snapshot: Snapshot, fault: str) -> Part:
    outbox = snapshot.outbox
    numbers = {f"waiting_{lane.name.lower()}": float(one.records) for lane, one in outbox.lanes.items()}
    numbers |= {
        "staged": outbox.staged,
        "used_bytes": outbox.used_bytes,
        "bytes_max": outbox.bytes_max,
        "quarantined": outbox.quarantined,
        "evicted_rows": outbox.counts.evicted_rows,
        "commit_s": round(snapshot.commit_s, 4),
    }
    return Part(outbox.ready and not fault, fault or ("" if outbox.ready else "the disk fails"), numbers)


def _uplink(snapshot: Snapshot) -> Part:
    uplink = snapshot.uplink
    numbers = {
        "in_flight": float(uplink.in_flight),
        "unreceipted": float(uplink.unreceipted),
        "taken_over": float(uplink.counts.taken_over),
    }
    if uplink.receipt_age_s is not None:
        numbers["receipt_age_s"] = round(uplink.receipt_age_s, 1)
    why = "" if uplink.is_connected and uplink.is_delivering else uplink.why
    return Part(uplink.is_connected and uplink.is_delivering, why, numbers)


def _sources(snapshot: Snapshot, last_words: Mapping[str, str]) -> Iterator[tuple[str, Part]]:
    for source in snapshot.sources:
        dead = last_words.get(source.name)
        yield f"source {source.name}", Part(source.ok and not dead, f"died: {dead}" if dead else source.why, _numbers(source, snapshot))


def _numbers(source: SourceStatus, snapshot: Snapshot) -> dict[str, float]:
    numbers = {name: float(times) for name, times in sorted(source.counts.items())}
    numbers["unknown_serials"] = float(sum(source.unknown_serials.values()))
    numbers["deaths"] = float(snapshot.source_deaths.get(source.name, 0))
    return numbers
