"""Tombstone: the gateway's statement that a closed range of its numbers will never come, and why. Not an excuse for facts.

Invariant: every number of a stream is accounted for in the cloud, by a record or by a tombstone. Only telemetry is ever evicted; a fact
lane has tombstones only for rows that the disk destroyed.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from protocol.refusal import Reason, Refusal

__all__ = ["Cause", "Tombstone", "decode", "encode"]

_BODY = struct.Struct("<QQBI")


class Cause(IntEnum):
    """Why the records are gone."""

    EVICTED = 1
    """The outbox was at its bound and this telemetry was the oldest."""
    CORRUPT = 2
    """The stored row failed its checksum and was moved to quarantine."""
    REFUSED = 3
    """The broker refused it for good (too large, not authorised); it lies in the gateway's quarantine."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """``first`` … ``last`` (both included) will not come; ``rows`` samples were in them (0 when unknown)."""

    first: int
    last: int
    cause: Cause
    rows: int


def encode(tombstone: Tombstone) -> bytes:
    """Return the body of a tombstone frame; the frame's own seq equals ``first``."""
    return _BODY.pack(tombstone.first, tombstone.last, tombstone.cause, tombstone.rows)


def decode(body: bytes) -> Tombstone | Refusal:
    """Return the tombstone in ``body`` or why it is none."""
    if len(body) != _BODY.size:
        return Refusal(Reason.BAD_LENGTH, f"tombstone of {len(body)} bytes")
    first, last, cause, rows = _BODY.unpack(body)
    if cause not in Cause._value2member_map_ or not 0 < first <= last < 2**63:
        return Refusal(Reason.BAD_VALUE, "tombstone")
    return Tombstone(first, last, Cause(cause), rows)
