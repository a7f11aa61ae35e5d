"""What the outbox takes and gives: limits, records, results and errors. No I/O.

Invariant: everything here is a plain value that may cross threads.
"""

import random
from dataclasses import dataclass, field

from edge.errors import EdgeError
from protocol.clock import Clock, Timer
from protocol.frame import FRAME_BYTES_MAX, Identity, Kind
from protocol.topics import Lane
from protocol.units import GatewayId

__all__ = [
    "AppendResult",
    "Counts",
    "Host",
    "LaneStats",
    "Limits",
    "OutboxBusyError",
    "OutboxError",
    "OutboxFaultError",
    "OutboxFullError",
    "OutboxLockedError",
    "OutboxStats",
    "ReceiptEffect",
    "Record",
]

MIB = 1 << 20


class OutboxError(EdgeError):
    """Base of what the store raises; on its own: the store cannot be used as it is, and a person must act."""


class OutboxLockedError(OutboxError):
    """Another process has the store open."""


class OutboxBusyError(OutboxError):
    """The queue to the disk is at its bound. Do not acknowledge the source; offer the same rows again later."""


class OutboxFaultError(OutboxError):
    """The disk failed and reopening did not help. Nothing was acknowledged; the next call tries again."""


class OutboxFullError(OutboxFaultError):
    """No room is left and nothing is left to evict."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and rhythm of one store.

    ``telemetry_bytes_max`` bounds the used pages of the file: above it the oldest telemetry goes. ``reserve_bytes`` is what facts may use
    beyond it, ``ballast_bytes`` a file that is given up when the partition is full. Ages are Clock milliseconds, ``commit_interval_ms`` is
    real time.
    """

    telemetry_bytes_max: int = 2_000_000_000  # 30 days of 8 coolers at 1 Hz
    reserve_bytes: int = 64 * MIB  # a year of facts is ~10 MB
    ballast_bytes: int = 8 * MIB  # four times the log: enough to write it home on a full disk
    seal_rows: int = 60
    seal_age_ms_session: int = 60_000
    seal_age_ms_idle: int = 300_000
    commit_interval_ms: int = 200  # at most 1,000: the most that a power cut may take from a source that keeps nothing
    frame_bytes_max: int = FRAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Host:
    """Whose store it is and where its time and chance come from; ``boot`` is the process's random 64-bit number."""

    gateway: GatewayId
    boot: int
    clock: Clock
    timer: Timer
    rng: random.Random


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Rows that are on disk now, and rows that were there before (a redelivery): both may be acknowledged."""

    accepted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Record:
    """A frame ready to be sent. ``id`` orders the records of a lane by age, in this process only."""

    id: int
    lane: Lane
    identity: Identity
    last: int
    kind: Kind
    data: bytes


@dataclass(frozen=True, slots=True)
class ReceiptEffect:
    """What a receipt did: ``lane`` is ``None`` for a stream that is not ours; ``forked``: it proved another life of this gateway."""

    lane: Lane | None
    deleted: int = 0
    forked: bool = False


@dataclass(slots=True)
class Counts:
    """What happened since the process started; only the writer thread changes it."""

    appended: int = 0
    duplicates: int = 0
    dedupe_forgotten: int = 0
    sealed_blocks: int = 0
    sealed_rows: int = 0
    facts: int = 0
    commits: int = 0
    commits_unknown: int = 0
    reopened: int = 0
    evicted_blocks: int = 0
    evicted_rows: int = 0
    receipted: int = 0
    receipts_foreign: int = 0
    forks: int = 0
    corrupt_rows: int = 0
    corrupt_staged: int = 0
    restored_facts: int = 0
    refused: int = 0
    quarantine_dropped: int = 0
    files_quarantined: int = 0
    mirror_faults: int = 0
    full: int = 0
    ballast_freed: int = 0
    scrubbed: int = 0


@dataclass(frozen=True, slots=True)
class LaneStats:
    """One lane: the open stream, its next number, what is receipted, how many records of all its streams wait, the newest one's id."""

    stream: int
    next_seq: int
    up_to: int
    records: int
    newest_id: int


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """A picture of the store for health and metrics; taking it does not touch the disk."""

    lanes: dict[Lane, LaneStats]
    staged: int
    quarantined: int
    used_bytes: int
    bytes_max: int
    ready: bool
    """False while the disk fails."""
    counts: Counts = field(default_factory=Counts)
