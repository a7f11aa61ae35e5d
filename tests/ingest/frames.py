"""Frames as a gateway would send them, for tests of the cloud: real codecs, chosen content."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from ingest.arrivals import Incoming
from protocol import block, facts, frame, tombstone, topics
from protocol.clock import ClockQuality
from protocol.facts import CHAIN_START, CounterRead, Fact, FactRecord
from protocol.frame import FrameHead, Identity, Kind
from protocol.profile import builtin
from protocol.reading import Quality, Stamp
from protocol.tombstone import Cause, Tombstone
from protocol.topics import Lane, Leaf
from protocol.units import DeviceId, GatewayId

GATEWAY = "gw-test-1"
PROFILE = builtin("icecap-cooler")
START_MS = 1_767_225_600_000


def rows_of(first: int, count: int, *, device: int = 1, start_ms: int = START_MS) -> block.Rows:
    """One row a second; codes are a function of (row, channel, device), every 17th cell is missing."""
    numbers = np.arange(first, first + count)
    channels = len(PROFILE.channels)
    codes = (numbers[:, None] * 7 + np.arange(channels)[None, :] * 13 + device) % 997
    quality = np.where((numbers[:, None] + np.arange(channels)[None, :]) % 17 == 0, Quality.MISSING, Quality.OK).astype(np.uint8)
    codes = np.where(quality == Quality.OK, codes, 0).astype(np.int64)
    return block.Rows(
        ts_ms=(start_ms + 1000 * numbers).astype(np.int64),
        codes=codes,
        quality=quality,
        counters=numbers.astype(np.int64),
        source_boot=7,
        rejected={},
    )


@dataclass(slots=True)
class Gateway:
    """Makes numbered frames for each lane; ``sent`` keeps them in order."""

    name: str = GATEWAY
    boot: int = 2**64 - 5
    streams: dict[Lane, int] = field(default_factory=lambda: {Lane.TELEMETRY: 11, Lane.METERING: 12, Lane.ALARM: 2**63 - 1})
    seqs: dict[Lane, int] = field(default_factory=dict)
    chains: dict[Lane, bytes] = field(default_factory=dict)

    def topic(self, lane: Lane) -> str:
        return topics.build(GatewayId(self.name), lane.leaf)

    def incoming(self, lane: Lane, data: bytes, *, received_ms: int = START_MS + 3_600_000) -> Incoming:
        return Incoming(self.topic(lane), data, received_ms)

    def head(self, lane: Lane, kind: Kind, *, seq: int | None = None, device: str | None = None, session: bytes = b"") -> FrameHead:
        if seq is None:
            seq = self.seqs.get(lane, 0) + 1
            self.seqs[lane] = seq
        stamp = Stamp(self.boot, 1000 * seq, START_MS + 1000 * seq, ClockQuality.SYNCED)
        identity = Identity(GatewayId(self.name), self.streams[lane], seq)
        named = DeviceId(device) if device else None
        profile = PROFILE.id if kind is Kind.BLOCK else ""
        return FrameHead(identity, kind, stamp, named, profile, PROFILE.version if profile else 0, session)

    def block_frame(self, *, rows: block.Rows | None = None, device: str = "cooler-0001", seq: int | None = None) -> bytes:
        head = self.head(Lane.TELEMETRY, Kind.BLOCK, seq=seq, device=device)
        body = block.encode(rows or rows_of(60 * head.identity.seq, 60))
        return frame.encode(head, body)

    def fact_frame(self, fact: Fact, *, lane: Lane = Lane.METERING, previous: bytes | None = None, seq: int | None = None) -> bytes:
        before = self.chains.get(lane, CHAIN_START) if previous is None else previous
        body = facts.encode(FactRecord(fact, before))
        self.chains[lane] = facts.fact_hash(body)
        return frame.encode(self.head(lane, Kind.FACT, seq=seq), body)

    def tombstone_frame(self, first: int, last: int, *, lane: Lane = Lane.TELEMETRY, cause: Cause = Cause.EVICTED) -> bytes:
        self.seqs[lane] = max(self.seqs.get(lane, 0), last)
        body = tombstone.encode(Tombstone(first, last, cause, 60 * (last - first + 1)))
        return frame.encode(self.head(lane, Kind.TOMBSTONE, seq=first), body)

    def block(self, **given) -> Incoming:
        return self.incoming(Lane.TELEMETRY, self.block_frame(**given))

    def fact(self, fact: Fact | None = None, *, lane: Lane = Lane.METERING, **given) -> Incoming:
        chosen = fact or CounterRead("cooler-0001", "lifetime_s", self.seqs.get(lane, 0))
        return self.incoming(lane, self.fact_frame(chosen, lane=lane, **given))

    def tombstone(self, first: int, last: int, *, lane: Lane = Lane.TELEMETRY, cause: Cause = Cause.EVICTED) -> Incoming:
        return self.incoming(lane, self.tombstone_frame(first, last, lane=lane, cause=cause))

    def state(self, data: bytes, *, received_ms: int = START_MS + 3_600_000) -> Incoming:
        return Incoming(topics.build(GatewayId(self.name), Leaf.STATE), data, received_ms)


def flipped(message: Incoming, bit: int) -> Incoming:
    """The message with one bit of its payload turned over."""
    data = bytearray(message.payload)
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    return Incoming(message.topic, bytes(data), message.received_ms)


def with_version(message: Incoming, version: int) -> Incoming:
    """The message as a newer gateway would write it: another version, a right checksum."""
    from native import crc32c

    data = bytearray(message.payload)
    data[4] = version
    data[-4:] = crc32c.crc32c(bytes(data[:-4])).to_bytes(4, "little")
    return Incoming(message.topic, bytes(data), message.received_ms)


def sha256(message: Incoming) -> bytes:
    return hashlib.sha256(message.payload).digest()
