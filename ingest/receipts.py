"""Receipts: what the cloud tells a gateway after a commit. Not the wire format (``protocol.receipt``) and not the sending.

Invariant: a receipt is made from the same rows, in the same transaction, that stored what it speaks of; it is sent after the commit.
"""

from dataclasses import dataclass

from ingest.intake import Stream, StreamKey
from protocol.receipt import GAPS_MAX, Receipt
from protocol.units import GatewayId

__all__ = ["Addressed", "addressed"]


@dataclass(frozen=True, slots=True)
class Addressed:
    """A receipt and the gateway that it is for."""

    gateway: GatewayId
    receipt: Receipt


def addressed(key: StreamKey, stream: Stream, *, now_ms: int) -> Addressed:
    """The receipt of one stream as it stands.

    The first ``GAPS_MAX`` gaps are named. With more of them ``seen`` ends before the first that is not: a gateway that took it for the top
    would think the numbers of an unnamed gap committed and never send them again.
    """
    gaps = stream.position.gaps
    seen = gaps[GAPS_MAX].first - 1 if len(gaps) > GAPS_MAX else stream.position.top
    receipt = Receipt(key[1], stream.position.up_to, tuple(gaps[:GAPS_MAX]), stream.head, now_ms, seen=seen)
    return Addressed(GatewayId(key[0]), receipt)
