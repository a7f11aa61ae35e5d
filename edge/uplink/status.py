"""Status of the uplink as health and metrics show it. Nothing decides by its text.

Invariant: ``is_delivering`` is false whenever records wait and none has been receipted for too long, whatever the connection says.
"""

from dataclasses import dataclass, field

__all__ = ["NOT_DELIVERED_S", "UplinkCounts", "UplinkStatus"]

NOT_DELIVERED_S = 60.0  # of records that wait without a receipt: the alert's deadline


@dataclass(slots=True)
class UplinkCounts:
    """Totals since the process started."""

    connects: int = 0
    failures: int = 0
    published: int = 0
    acknowledged: int = 0
    resent: int = 0
    receipts: int = 0
    receipts_unreadable: int = 0
    confirmed: int = 0
    not_taken: int = 0
    refused: int = 0
    too_large: int = 0
    taken_over: int = 0
    half_open: int = 0
    live_sent: int = 0
    live_shed: int = 0
    store_faults: int = 0


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    """A picture of the uplink; seconds are real."""

    is_connected: bool
    is_delivering: bool
    why: str
    """Why the last connection ended, or why nothing is taken."""
    in_flight: int
    unreceipted: int
    receipt_age_s: float | None
    """Since the last receipt; ``None`` before the first."""
    cloud_wall_ms: int
    """The cloud's clock in the last receipt, 0 before the first: a lower bound for a gateway that booted in the past."""
    counts: UplinkCounts = field(default_factory=UplinkCounts)
