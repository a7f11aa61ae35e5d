"""Report: what a run of the demonstration did, as one JSON document. Figures only; how they came about is in ``account``.

Invariant: a figure that was not measured is ``null``, never zero.
"""

from pathlib import Path

import msgspec

__all__ = ["Report", "write"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All counts are of rows unless the name says otherwise; times are real seconds and milliseconds."""

    seconds: float
    scale: int
    seed: str
    coolers: int
    gateways: int
    readings_sent: int
    """Rows that the coolers made."""
    readings_acknowledged: int
    """Rows that the clinic's broker took: what must be in the cloud."""
    publishes: int
    """Publishes in all, repeats included."""
    readings_kept: int
    """Still in the coolers' own memory at the end."""
    blocks_appended: int
    """Records that the gateways numbered, tombstones included."""
    blocks_received: int
    rows_received: int
    points_projected: int | None
    """Points in InfluxDB; ``null`` without one."""
    duplicates_dropped: int
    """Records that came to the cloud again and were not stored again."""
    lost: int
    """Acknowledged rows that are in no stored block."""
    twice: int
    """Rows that are in more than one place of the stored blocks."""
    unreadable_blocks: int
    latency_p50_ms: float
    latency_p99_ms: float
    rss_bytes: dict[str, int]
    restarts: dict[str, int]
    drained: bool
    """Whether everything acknowledged had arrived before the time for it was over."""


def write(report: Report, path: Path) -> None:
    """Write the report, indented for people."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
