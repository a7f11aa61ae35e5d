"""MQTT topics of the gateway-to-cloud leg: build and parse, one grammar. Not the clinic's own topics (those are configuration).

    icecap/v1/{partition}/{gateway}/{leaf}      leaf: t m a s (up) · ack cmd (down)

Invariant: ``parse(build(x)) == x``, and nothing but ``[a-z0-9-]`` ever reaches a level that came from a name.
"""

from dataclasses import dataclass
from enum import StrEnum

from native import crc32c
from protocol.units import GatewayId, is_gateway_id

__all__ = ["PARTITIONS", "ROOT", "Lane", "Leaf", "Topic", "build", "is_partition", "parse", "partition_of", "subscription"]

ROOT = "icecap/v1"
PARTITIONS = 16
"""Fixed for the life of the format: a gateway's partition is part of its topic, so the number cannot grow without moving gateways."""


class Leaf(StrEnum):
    """The last level of a topic."""

    TELEMETRY = "t"
    METERING = "m"
    ALARM = "a"
    STATE = "s"
    RECEIPT = "ack"
    COMMAND = "cmd"


class Lane(StrEnum):
    """A durable lane of the outbox: each has its own stream and its own gap-free sequence."""

    METERING = "m"
    ALARM = "a"
    TELEMETRY = "t"

    @property
    def leaf(self) -> Leaf:
        """The topic level on which the lane travels."""
        return Leaf(self.value)


@dataclass(frozen=True, slots=True)
class Topic:
    """A parsed topic."""

    partition: str
    gateway: GatewayId
    leaf: Leaf


def partition_of(gateway: GatewayId) -> str:
    """Return the partition (``p00`` … ``p15``) of a gateway: a stable hash of its id, so one worker holds all its messages in order."""
    return f"p{crc32c.crc32c(gateway.encode('ascii')) % PARTITIONS:02d}"


def is_partition(text: str) -> bool:
    """Tell whether ``text`` names a partition of this version."""
    return len(text) == 3 and text[0] == "p" and text[1:].isascii() and text[1:].isdigit() and int(text[1:]) < PARTITIONS


def build(gateway: GatewayId, leaf: Leaf) -> str:
    """Return the topic on which ``gateway`` sends or receives ``leaf``."""
    return f"{ROOT}/{partition_of(gateway)}/{gateway}/{leaf}"


def subscription(partition: str) -> str:
    """Return the filter with which one ingest worker hears all gateways of a partition (and its own receipts, which it skips)."""
    return f"{ROOT}/{partition}/+/+"


def parse(text: str) -> Topic | None:
    """Return the parts of a topic, or ``None`` when it is not one of ours or the gateway is not in its own partition."""
    parts = text.split("/")
    if len(parts) != 5 or f"{parts[0]}/{parts[1]}" != ROOT:
        return None
    partition, gateway, leaf = parts[2:]
    if not is_gateway_id(gateway) or partition != partition_of(GatewayId(gateway)):
        return None
    if leaf not in Leaf._value2member_map_:
        return None
    return Topic(partition, GatewayId(gateway), Leaf(leaf))
