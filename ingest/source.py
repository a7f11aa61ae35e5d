"""Source: where messages come from, in three methods, so that a stream server can stand in for the broker. Not a queue of its own.

Invariant: what ``receive`` hands out stays with the sender until ``ack``; whoever takes it and dies has lost nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest.arrivals import Incoming
from ingest.receipts import Addressed

__all__ = ["Delivery", "Source"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message and how to acknowledge it: ``handle`` means something to its source alone."""

    message: Incoming
    handle: object


class Source(Protocol):
    """A sender of messages that keeps them until they are acknowledged."""

    def receive(self, timeout_s: float) -> Sequence[Delivery]:
        """Wait for messages and return a batch in order of receipt; empty after ``timeout_s`` seconds."""
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge in this order. Called from one thread, after the commit."""
        ...

    def receipt(self, addressed: Addressed) -> None:
        """Tell a gateway what is committed. May be lost: the gateway asks again by sending again."""
        ...
