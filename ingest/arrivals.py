"""Arrivals: what a message from the broker turned out to be. Pure: bytes and the registry's answer in, a value out. Writes nothing.

Invariant: ``read`` never raises for any bytes. What cannot be trusted at all is ``Refused``; what is whole, from the right gateway and
yet not readable by this version is ``Unreadable`` and keeps its number, so that the gateway need not send it for ever.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from protocol import block, facts, frame, state, tombstone, topics
from protocol.facts import FactRecord
from protocol.frame import FrameHead, Identity, Kind
from protocol.refusal import Reason, Refusal
from protocol.tombstone import Tombstone
from protocol.topics import Lane, Leaf, Topic
from protocol.units import GatewayId, is_device_id
from provisioning.registry import Gateway, Status

__all__ = [
    "Arrival",
    "BlockArrival",
    "Elsewhere",
    "FactArrival",
    "Incoming",
    "LiveArrival",
    "PresenceArrival",
    "Record",
    "Refused",
    "TombstoneArrival",
    "Unreadable",
    "gateway_in",
    "read",
]

BOOT_MAX = 2**64 - 1  # boot ids are unsigned 64-bit numbers
VERSION_CHARS_MAX = 64  # the column's width; ours are a dozen characters


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as the broker gave it; ``received_ms`` is this process's clock."""

    topic: str
    payload: bytes
    received_ms: int


@dataclass(frozen=True, slots=True)
class BlockArrival:
    """A readable block."""

    head: FrameHead
    lane: Lane
    sha256: bytes
    rows: block.Rows


@dataclass(frozen=True, slots=True)
class FactArrival:
    """A readable fact; ``chain`` is its hash, the next fact's ``previous``."""

    head: FrameHead
    lane: Lane
    sha256: bytes
    record: FactRecord
    chain: bytes


@dataclass(frozen=True, slots=True)
class TombstoneArrival:
    """A range that will not come."""

    head: FrameHead
    lane: Lane
    sha256: bytes
    tombstone: Tombstone


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An intact frame of a registered gateway that this version cannot read."""

    identity: Identity
    lane: Lane
    sha256: bytes
    version: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class PresenceArrival:
    """A gateway said that it is there, or its will that it is not."""

    gateway: GatewayId
    presence: state.Presence


@dataclass(frozen=True, slots=True)
class LiveArrival:
    """The newest smoothed values of one cooler."""

    gateway: GatewayId
    live: state.Live


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing of this message is believed. ``gateway`` is the topic's, empty when there is none."""

    gateway: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A message that is not for ingest: a receipt or a command on its way down."""


Record = BlockArrival | FactArrival | TombstoneArrival | Unreadable
"""What has a number in a stream."""

Arrival = Record | PresenceArrival | LiveArrival | Refused | Elsewhere

_LANES = {Leaf.TELEMETRY: Lane.TELEMETRY, Leaf.METERING: Lane.METERING, Leaf.ALARM: Lane.ALARM}
_BODIES = {Kind.BLOCK: {Lane.TELEMETRY}, Kind.FACT: {Lane.METERING, Lane.ALARM}, Kind.TOMBSTONE: set(Lane)}


def gateway_in(topic: str) -> str:
    """The gateway that a topic names, empty when it is none of ours: what to ask the registry for."""
    parsed = topics.parse(topic)
    return parsed.gateway if parsed else ""


def read(message: Incoming, gateways: Mapping[str, Gateway]) -> Arrival:
    """Return what the message is. ``gateways`` are the registered ones among those that the batch names.

    Cheap refusals come first: topic, registry, then size, checksum, head and body (``protocol.frame``).
    """
    topic = topics.parse(message.topic)
    if topic is None:
        return Refused("", Refusal(Reason.BAD_TOPIC))
    if topic.leaf in {Leaf.RECEIPT, Leaf.COMMAND}:
        return Elsewhere()
    known = gateways.get(topic.gateway)
    if known is None:
        return Refused(topic.gateway, Refusal(Reason.UNKNOWN_GATEWAY))
    if known.status is not Status.ACTIVE:
        return Refused(topic.gateway, Refusal(Reason.REVOKED_GATEWAY))
    if topic.leaf is Leaf.STATE:
        return _read_state(topic.gateway, message.payload)
    return _read_frame(topic, _LANES[topic.leaf], message.payload)


def _read_frame(topic: Topic, lane: Lane, data: bytes) -> Arrival:
    decoded = frame.decode(data)
    if isinstance(decoded, Refusal):
        return _not_decoded(topic.gateway, lane, data, decoded)
    head = decoded.head
    if head.identity.gateway != topic.gateway:
        return Refused(topic.gateway, Refusal(Reason.FOREIGN_GATEWAY, f"frame of {head.identity.gateway}"))
    if lane not in _BODIES[head.kind]:
        return Refused(topic.gateway, Refusal(Reason.WRONG_LANE, f"{head.kind.name.lower()} on {lane}"))
    if head.identity.seq < 1:
        return Refused(topic.gateway, Refusal(Reason.BAD_VALUE, "sequences start at 1"))
    arrival = _read_body(head, lane, decoded.body, hashlib.sha256(data).digest())
    if isinstance(arrival, Refusal):
        return Unreadable(head.identity, lane, hashlib.sha256(data).digest(), frame.VERSION, arrival)
    return arrival


def _not_decoded(gateway: GatewayId, lane: Lane, data: bytes, why: Refusal) -> Arrival:
    """A frame whose checksum holds has a number even when the rest is from the future; anything else is noise."""
    top = frame.peek(data)
    if isinstance(top, Refusal) or top.seq < 1:
        return Refused(gateway, why)
    return Unreadable(Identity(gateway, top.stream, top.seq), lane, hashlib.sha256(data).digest(), top.version, why)


def _read_body(head: FrameHead, lane: Lane, body: bytes, sha256: bytes) -> Record | Refusal:
    if head.kind is Kind.BLOCK:
        rows = block.decode(body)
        if isinstance(rows, Refusal):
            return rows
        if head.device is None or not head.profile:
            return Refusal(Reason.BAD_ID, "a block names its cooler and its profile")
        return BlockArrival(head, lane, sha256, rows)
    if head.kind is Kind.FACT:
        record = facts.decode(body)
        return record if isinstance(record, Refusal) else FactArrival(head, lane, sha256, record, facts.fact_hash(body))
    buried = tombstone.decode(body)
    if isinstance(buried, Refusal):
        return buried
    if buried.first != head.identity.seq:
        return Refusal(Reason.BAD_VALUE, "a tombstone's number is the first of its range")
    return TombstoneArrival(head, lane, sha256, buried)


def _read_state(gateway: GatewayId, data: bytes) -> Arrival:
    message = state.decode(data)
    if isinstance(message, Refusal):
        return Refused(gateway, message)
    if isinstance(message, state.Presence):
        named = len(message.version) <= VERSION_CHARS_MAX and message.version.isascii() and message.version.isprintable()
        if not 0 <= message.boot <= BOOT_MAX or not named:
            return Refused(gateway, Refusal(Reason.BAD_VALUE, "presence"))
        return PresenceArrival(gateway, message)
    if not is_device_id(message.device) or not is_device_id(message.profile):
        return Refused(gateway, Refusal(Reason.BAD_ID, "live"))
    return LiveArrival(gateway, message)
