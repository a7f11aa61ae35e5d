"""Outbox: records on disk until the cloud has a receipt out for them. Not a log: receipted rows vanish.

    rows ── append ──▶ staging ── seal ──▶ block ─┐
                                                  ├─▶ record ── read ──▶ uplink ──▶ … ──▶ receipt ──▶ deleted
    fact ── append ───────────────────────────────┘                └─ evicted (telemetry only) ──▶ tombstone

Invariant: every number of a stream is a record, a tombstone or receipted; a result that was returned survives a power cut.
"""

from edge.outbox.facade import Outbox
from edge.outbox.model import (
    AppendResult,
    Counts,
    Host,
    LaneStats,
    Limits,
    OutboxBusyError,
    OutboxError,
    OutboxFaultError,
    OutboxFullError,
    OutboxLockedError,
    OutboxStats,
    ReceiptEffect,
    Record,
)

__all__ = [
    "AppendResult",
    "Counts",
    "Host",
    "LaneStats",
    "Limits",
    "Outbox",
    "OutboxBusyError",
    "OutboxError",
    "OutboxFaultError",
    "OutboxFullError",
    "OutboxLockedError",
    "OutboxStats",
    "ReceiptEffect",
    "Record",
]
