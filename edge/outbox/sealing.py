"""Sealing: staged rows into numbered blocks. Decides when a cohort is due and cuts it; the codec is ``protocol.block``.

Invariant: rows leave staging in the transaction that stores their block, in the order in which they came.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.outbox.lanes import Lanes
from edge.outbox.model import Limits
from edge.outbox.staging import STAGED_ROWS_MAX, Cohort, StagedRow, Staging, body_of, stamp_of
from protocol.frame import FRAME_BYTES_MAX, FrameHead, Identity, Kind
from protocol.reading import Stamp
from protocol.units import GatewayId

__all__ = ["COHORTS_IN_COMMIT", "Sealed", "due", "seal"]

COHORTS_IN_COMMIT = 32  # one sync for a clinic's coolers instead of one each; bounds what a fact may have to wait for

_UNNUMBERED = Identity(GatewayId("gw-x"), 0, 0)  # ``Lanes.add_block`` puts the real one in its place


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one sealing made: blocks, the rows in them, and rows that failed their checksum."""

    blocks: int = 0
    rows: int = 0
    corrupt: int = 0


def due(staging: Staging, limits: Limits, *, boot: int, now_ms: int) -> list[int]:
    """Return the cohorts that are full, old, or left by an earlier process (whose clock means nothing now)."""
    if staging.total > STAGED_ROWS_MAX:
        return list(staging.waiting)
    found = []
    for cohort_id, staged in staging.waiting.items():
        age_max_ms = limits.seal_age_ms_session if staged.in_session else limits.seal_age_ms_idle
        full = staged.rows >= limits.seal_rows
        if full or staging.cohorts[cohort_id].boot != boot or now_ms - staged.oldest_ms >= age_max_ms:
            found.append(cohort_id)
    return found


def seal(staging: Staging, lanes: Lanes, cohort_ids: Sequence[int], *, limits: Limits, now: Stamp) -> Sealed:
    """Seal the oldest ``seal_rows`` rows of each cohort; inside a transaction. ``now`` dates what is set aside."""
    blocks = count = corrupt = 0
    for cohort_id in cohort_ids:
        if cohort_id not in staging.waiting:
            continue
        found = list(staging.rows(cohort_id, limits.seal_rows))
        rows = [row for _, row in found if isinstance(row, StagedRow)]
        for row_id, data in found:
            if isinstance(data, bytes):
                lanes.set_aside(0, row_id, "corrupt_staged", wall_ms=now.wall_ms, data=data)
                corrupt += 1
        if rows:
            blocks += _seal_rows(lanes, staging.cohorts[cohort_id], rows, limits.frame_bytes_max)
        count += len(rows)
        staging.remove(cohort_id, found[-1][0])
    return Sealed(blocks, count, corrupt)


def _seal_rows(lanes: Lanes, cohort: Cohort, rows: list[StagedRow], frame_bytes_max: int) -> int:
    """Store rows as one block, or as two halves while that is too large for a frame; returns how many blocks."""
    head = FrameHead(
        identity=_UNNUMBERED,
        kind=Kind.BLOCK,
        stamp=stamp_of(cohort, rows[0]),
        device=cohort.device,
        profile=cohort.profile,
        profile_version=cohort.profile_version,
    )
    # A single row goes as it is: a broker that takes not even that is answered with a tombstone when it says so.
    limit = frame_bytes_max if len(rows) > 1 else FRAME_BYTES_MAX
    if lanes.add_block(head, body_of(cohort, rows), len(rows), frame_bytes_max=limit) is not None:
        return 1
    half = len(rows) // 2
    return _seal_rows(lanes, cohort, rows[:half], frame_bytes_max) + _seal_rows(lanes, cohort, rows[half:], frame_bytes_max)
