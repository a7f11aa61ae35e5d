"""Intake: what a batch of arrivals changes, worked out in memory. Not the database: ``apply`` loads an intake and writes it.

Invariant: the rows that an intake asks for do not depend on the order in which frames of different content arrive, nor on how often each
comes; only ``arrival``, ``received_ms`` and the counters of duplicates do.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from ingest import lastvalues
from ingest.arrivals import (
    Arrival,
    BlockArrival,
    FactArrival,
    Incoming,
    LiveArrival,
    PresenceArrival,
    Record,
    Refused,
    TombstoneArrival,
    Unreadable,
)
from ingest.lastvalues import Newest
from ingest.positions import Position
from ingest.profiles import Profiles
from protocol.facts import CHAIN_START
from protocol.frame import FrameHead, Identity
from protocol.receipt import Gap
from protocol.refusal import Reason, Refusal
from protocol.state import Presence
from protocol.topics import Lane
from protocol.units import is_device_id

__all__ = ["FACT_LANES", "Cell", "Dead", "Happening", "Heard", "Intake", "Outcome", "Seen", "Stream", "StreamKey"]

DAY_MS = 86_400_000
SESSION_BYTES = 16  # as in the frame's head
FACT_LANES = frozenset({Lane.METERING, Lane.ALARM})

Cell = int | str | bytes | bool | None
RowOut = dict[str, Cell]
StreamKey = tuple[str, int]
"""(gateway, stream)."""


class Outcome(StrEnum):
    """What became of a message; the names are labels of the counter ``icecap_ingest_messages_total``."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    TOMBSTONE = "tombstone"
    PARKED = "parked"
    REFUSED = "refused"
    STATE = "state"
    ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Stream:
    """One stream as the batch sees it. ``known`` are hashes of stored records by number, ``links`` (chain, previous) of facts."""

    lane: Lane
    position: Position
    first_ms: int
    last_ms: int
    records: int = 0
    duplicates: int = 0
    head: str = ""
    known: dict[int, bytes] = field(default_factory=dict)
    links: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    touched: bool = False
    stored_up_to: int = 0
    stored_gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Dead:
    """A refused message for the dead-letter table; ``kept``: its bytes lie in ``parked``."""

    message: Incoming
    gateway: str
    refusal: Refusal
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a person should hear of, once for each ``key``."""

    key: str
    kind: str
    severity: str
    gateway: str
    at_ms: int
    device: str = ""
    detail: str = ""


@dataclass(slots=True)
class Seen:
    """What a batch says of one cooler: the newest sample decides who its gateway is."""

    gateway: str
    profile: str
    profile_version: int
    first_ms: int
    last_ms: int
    blocks: int = 0
    rows: int = 0


@dataclass(slots=True)
class Heard:
    """The last word of one gateway in the batch; ``head`` is ``None`` when only presence came."""

    last_ms: int
    head: FrameHead | None = None
    presence: list[tuple[int, Presence]] = field(default_factory=list)


@dataclass(slots=True)
class Intake:
    """The changes of one batch. ``streams`` and ``next_arrival`` are loaded before the first ``enter``."""

    profiles: Profiles
    next_arrival: int
    streams: dict[StreamKey, Stream]
    blocks: list[RowOut] = field(default_factory=list)
    facts: list[RowOut] = field(default_factory=list)
    tombstones: list[RowOut] = field(default_factory=list)
    conflicts: list[RowOut] = field(default_factory=list)
    parked: list[RowOut] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    happenings: dict[str, Happening] = field(default_factory=dict)
    newest: dict[lastvalues.Key, Newest] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)

    def enter(self, message: Incoming, arrival: Arrival) -> Outcome:
        """Take one message in. Never raises for what a sender wrote."""
        match arrival:
            case Refused():
                return self._refuse(message, arrival.gateway, arrival.refusal)
            case PresenceArrival():
                self._hear(arrival.gateway, message.received_ms).presence.append((message.received_ms, arrival.presence))
                return Outcome.STATE
            case LiveArrival():
                return self._enter_live(message, arrival)
            case BlockArrival() | FactArrival() | TombstoneArrival() | Unreadable():
                return self._enter_record(message, arrival)
            case _:
                return Outcome.ELSEWHERE

    def park(self, message: Incoming, arrival: Unreadable) -> Outcome:
        """Account for a frame that cannot be read here and keep its bytes."""
        identity = arrival.identity
        self.parked.append(
            {
                **_identity(identity),
                "sha256": arrival.sha256,
                "lane": arrival.lane.value,
                "version": arrival.version,
                "reason": arrival.refusal.reason.value,
                "detail": arrival.refusal.detail[:200],
                "data": message.payload,
                "received_ms": message.received_ms,
            }
        )
        self.dead.append(Dead(message, identity.gateway, arrival.refusal, kept=True))
        return Outcome.PARKED

    def _enter_record(self, message: Incoming, arrival: Record) -> Outcome:
        identity = _identity_of(arrival)
        stream = self.streams[identity.gateway, identity.stream]
        if stream.lane is not arrival.lane:
            refusal = Refusal(Reason.WRONG_LANE, f"stream of lane {stream.lane} on {arrival.lane}")
            return self._refuse(message, identity.gateway, refusal)
        last = arrival.tombstone.last if isinstance(arrival, TombstoneArrival) else identity.seq
        if not stream.position.account(identity.seq, last):
            return self._refuse(message, identity.gateway, Refusal(Reason.BAD_VALUE, "more gaps than an outbox can leave"))
        stream.touched = True
        stream.last_ms = max(stream.last_ms, message.received_ms)
        stream.first_ms = min(stream.first_ms, message.received_ms)
        heard = self._hear(identity.gateway, message.received_ms)
        if isinstance(arrival, Unreadable):
            return self.park(message, arrival)
        heard.head = arrival.head
        if isinstance(arrival, TombstoneArrival):
            return self._bury(message, arrival)
        return self._store_or_compare(message, arrival, stream)

    def _store_or_compare(self, message: Incoming, arrival: BlockArrival | FactArrival, stream: Stream) -> Outcome:
        identity = arrival.head.identity
        stored = stream.known.get(identity.seq)
        if stored == arrival.sha256:
            stream.duplicates += 1
            return Outcome.DUPLICATE
        if stored is not None:
            self.conflicts.append(_conflict_row(message, arrival))
            key = f"conflict/{identity.gateway}/{identity.stream}/{identity.seq}/{arrival.sha256.hex()[:16]}"
            self._happen(Happening(key, "conflict", "critical", identity.gateway, message.received_ms))
            return Outcome.CONFLICT
        stream.known[identity.seq] = arrival.sha256
        stream.records += 1
        if isinstance(arrival, BlockArrival):
            self._store_block(message, arrival)
        else:
            self._store_fact(message, arrival, stream)
        self.next_arrival += 1
        return Outcome.STORED

    def _store_block(self, message: Incoming, arrival: BlockArrival) -> None:
        head, rows = arrival.head, arrival.rows
        device = head.device or ""
        first_ms, last_ms = int(rows.ts_ms.min()), int(rows.ts_ms.max())
        self.blocks.append(
            {
                "arrival": self.next_arrival,
                **_record(message, head, arrival.sha256),
                "device": device,
                "profile": head.profile,
                "profile_version": head.profile_version,
                "t0_ms": first_ms,
                "t1_ms": last_ms,
                "rows": len(rows.ts_ms),
                "source_boot": f"{rows.source_boot:016x}",
                "counter_first": None if rows.counters is None else int(rows.counters[0]),
                "counter_last": None if rows.counters is None else int(rows.counters[-1]),
            }
        )
        seen = self.seen.setdefault(device, Seen(head.identity.gateway, head.profile, head.profile_version, first_ms, last_ms))
        if (last_ms, head.identity.gateway) >= (seen.last_ms, seen.gateway):
            seen.gateway, seen.profile, seen.profile_version = head.identity.gateway, head.profile, head.profile_version
        seen.first_ms, seen.last_ms = min(seen.first_ms, first_ms), max(seen.last_ms, last_ms)
        seen.blocks, seen.rows = seen.blocks + 1, seen.rows + len(rows.ts_ms)
        profile = self.profiles.find(head.profile, head.profile_version)
        if profile is None or len(profile.channels) != rows.codes.shape[1]:
            # The block is whole and kept; only its channels have no names here yet. Projections park it until they do.
            key = f"unknown_profile/{head.profile}/{head.profile_version}"
            self._happen(Happening(key, "unknown_profile", "warning", head.identity.gateway, message.received_ms, device))
            return
        lastvalues.merge(self.newest, lastvalues.of_block(device, profile, rows, now_ms=message.received_ms))

    def _store_fact(self, message: Incoming, arrival: FactArrival, stream: Stream) -> None:
        head = arrival.head
        self.facts.append(
            {
                "arrival": self.next_arrival,
                **_record(message, head, arrival.sha256),
                "lane": arrival.lane.value,
                "kind": _kind(arrival),
                "device": _device(arrival),
                "session": _session(arrival),
                "chain": arrival.chain,
                "previous": arrival.record.previous,
            }
        )
        seq = head.identity.seq
        stream.links[seq] = (arrival.chain, arrival.record.previous)
        before = (CHAIN_START, b"") if seq == 1 else stream.links.get(seq - 1)
        if before is not None and before[0] != arrival.record.previous:
            self._fork(message, head.identity, seq)
        after = stream.links.get(seq + 1)
        if after is not None and after[1] != arrival.chain:
            self._fork(message, head.identity, seq + 1)

    def _fork(self, message: Incoming, identity: Identity, seq: int) -> None:
        key = f"fork/{identity.gateway}/{identity.stream}/{seq}"
        detail = f"fact {seq} of stream {identity.stream} does not follow the one before it"
        self._happen(Happening(key, "fork", "critical", identity.gateway, message.received_ms, detail=detail))

    def _bury(self, message: Incoming, arrival: TombstoneArrival) -> Outcome:
        identity, buried = arrival.head.identity, arrival.tombstone
        self.tombstones.append(
            {
                "gateway": identity.gateway,
                "stream": identity.stream,
                "first": buried.first,
                "last": buried.last,
                "cause": buried.cause.value,
                "rows": buried.rows,
                "lane": arrival.lane.value,
                "wall_ms": arrival.head.stamp.wall_ms,
                "received_ms": message.received_ms,
            }
        )
        if arrival.lane in FACT_LANES:  # facts are never evicted: the gateway's disk destroyed them, or it lies
            key = f"facts_lost/{identity.gateway}/{identity.stream}/{buried.first}/{buried.last}"
            detail = f"facts {buried.first} to {buried.last} of stream {identity.stream}: {buried.cause.name.lower()}"
            self._happen(Happening(key, "facts_lost", "critical", identity.gateway, message.received_ms, detail=detail))
        return Outcome.TOMBSTONE

    def _enter_live(self, message: Incoming, arrival: LiveArrival) -> Outcome:
        live = arrival.live
        named = self.profiles.latest(live.profile)
        values = lastvalues.of_live(live, named, now_ms=message.received_ms) if named else None
        if values is None:
            return self._refuse(message, arrival.gateway, Refusal(Reason.BAD_VALUE, "live values of no profile that we have"))
        lastvalues.merge(self.newest, values)
        self._hear(arrival.gateway, message.received_ms)
        return Outcome.STATE

    def _refuse(self, message: Incoming, gateway: str, refusal: Refusal) -> Outcome:
        self.dead.append(Dead(message, gateway, refusal))
        if refusal.reason in {Reason.FOREIGN_GATEWAY, Reason.REVOKED_GATEWAY, Reason.UNKNOWN_GATEWAY}:
            day = message.received_ms // DAY_MS
            happening = Happening(f"{refusal.reason}/{gateway}/{day}", refusal.reason.value, "critical", gateway, message.received_ms)
            self._happen(happening)
        return Outcome.REFUSED

    def _hear(self, gateway: str, at_ms: int) -> Heard:
        heard = self.heard.setdefault(gateway, Heard(at_ms))
        heard.last_ms = max(heard.last_ms, at_ms)
        return heard

    def _happen(self, happening: Happening) -> None:
        self.happenings.setdefault(happening.key, happening)


def _identity_of(arrival: Record) -> Identity:
    return arrival.identity if isinstance(arrival, Unreadable) else arrival.head.identity


def _identity(identity: Identity) -> RowOut:
    return {"gateway": identity.gateway, "stream": identity.stream, "seq": identity.seq}


def _kind(arrival: BlockArrival | FactArrival) -> str:
    return "block" if isinstance(arrival, BlockArrival) else str(type(arrival.record.fact).__struct_config__.tag)


def _device(arrival: BlockArrival | FactArrival) -> str:
    """The head's cooler, else the fact's own when it is a name at all: a fact's text is the sender's."""
    if arrival.head.device is not None or isinstance(arrival, BlockArrival):
        return arrival.head.device or ""
    named: str = getattr(arrival.record.fact, "device", "")
    return named if is_device_id(named) else ""


def _session(arrival: BlockArrival | FactArrival) -> bytes:
    """The head's session, else the fact's own."""
    if arrival.head.session or isinstance(arrival, BlockArrival):
        return arrival.head.session
    named: bytes = getattr(arrival.record.fact, "session", b"")
    return named if len(named) == SESSION_BYTES else b""


def _record(message: Incoming, head: FrameHead, sha256: bytes) -> RowOut:
    """What blocks, facts and conflicts have in common."""
    return {
        **_identity(head.identity),
        "session": head.session,
        "boot": f"{head.stamp.boot:016x}",
        "monotonic_ms": head.stamp.monotonic_ms,
        "wall_ms": head.stamp.wall_ms,
        "clock_quality": head.stamp.quality.value,
        "sha256": sha256,
        "data": message.payload,
        "received_ms": message.received_ms,
    }


def _conflict_row(message: Incoming, arrival: BlockArrival | FactArrival) -> RowOut:
    return {
        **_record(message, arrival.head, arrival.sha256),
        "lane": arrival.lane.value,
        "kind": _kind(arrival),
        "device": _device(arrival),
        "session": _session(arrival),
    }
