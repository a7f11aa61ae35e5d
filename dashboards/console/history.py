"""History: one machine's past for a chart, from stored blocks (short ranges) or from the one-minute roll-up (long ones). Not a projection.

Invariant: at most ``POINTS_MAX`` points whatever was asked; thinning keeps each bucket's lowest and highest value, a gap in the data is a
gap in the answer, and every sample that the gate rejected is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from ingest.schema import block, rollup_1m
from protocol import block as block_codec
from protocol import frame
from protocol.block import Rows
from protocol.profile import Profile
from protocol.reading import Quality

__all__ = ["MARKS_MAX", "POINTS_MAX", "Curve", "Mark", "Range", "Series", "read"]

POINTS_MAX = 2000  # a chart is some 1,200 pixels wide; more points are drawn on top of one another
MARKS_MAX = 300  # rejected samples drawn one by one per channel; the count beside the chart always speaks of all
BLOCKS_MAX = 2000  # an hour at 1 Hz is 60 blocks of 60 rows; this bounds what one request can make the server decode
GAP_FACTOR = 4  # this many usual distances without a sample are a gap
GAP_MS_MIN = 5_000  # shorter silences are jitter
MINUTE_MS = 60_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Range(Enum):
    """How far back: its name in addresses, its length, and whether single samples are shown."""

    QUARTER = ("15m", 15 * MINUTE_MS, True)
    HOUR = ("1h", 60 * MINUTE_MS, True)
    DAY = ("24h", 24 * 60 * MINUTE_MS, False)
    WEEK = ("7d", 7 * 24 * 60 * MINUTE_MS, False)

    @property
    def key(self) -> str:
        """The name in addresses."""
        return self.value[0]

    @property
    def length_ms(self) -> int:
        """How long."""
        return self.value[1]

    @property
    def from_blocks(self) -> bool:
        """Whether stored blocks are decoded; else the one-minute roll-up answers."""
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Mark:
    """A rejected sample: when, its raw value in the unit where the block kept it, and why. From a roll-up: how many in that time."""

    t_ms: int
    value: float | None
    reason: str
    count: int = 1


@dataclass(slots=True)
class Curve:
    """One channel: mean, lowest and highest of each point, ``None`` where no sample was good."""

    name: str
    mean: list[float | None] = field(default_factory=list)
    lo: list[float | None] = field(default_factory=list)
    hi: list[float | None] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    rejected: int = 0


@dataclass(slots=True)
class Series:
    """The answer: one time axis for all channels. ``bucket_ms`` is 0 when every sample is a point of its own."""

    from_ms: int
    to_ms: int
    bucket_ms: int
    t_ms: list[int]
    curves: list[Curve]
    unreadable: int = 0
    """Blocks that could not be used: damaged, or of a profile version that is not installed."""


@dataclass(slots=True)
class _Samples:
    """Rows in time order: ``total`` and ``count`` per cell so that means of means are exact; ``lo`` and ``hi`` in codes."""

    t_ms: Ints
    total: Floats
    count: Ints
    lo: Floats
    hi: Floats


def read(connection: Connection, serial: str, profile: Profile, *, channels: Sequence[str], span: Range, to_ms: int) -> Series:
    """Return the channels of a machine over ``span`` up to ``to_ms``. Unknown channel names are a ``KeyError``."""
    indexes = [profile.index(name) for name in channels]
    from_ms = to_ms - span.length_ms
    curves = [Curve(name) for name in channels]
    unreadable = 0
    if span.from_blocks:
        samples, unreadable = _from_blocks(connection, serial, profile, indexes=indexes, window=(from_ms, to_ms), curves=curves)
    else:
        samples = _from_rollup(connection, serial, channels=channels, window=(from_ms, to_ms), curves=curves)
    t_ms, bucket_ms, thinned = _fit(samples, from_ms, span)
    for position, (curve, index) in enumerate(zip(curves, indexes, strict=True)):
        channel = profile.channels[index]
        factor, digits = channel.multiplier / 10**channel.decimals, channel.decimals + 1
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = thinned.total[:, position] / thinned.count[:, position]
        curve.mean = _plain(mean * factor, digits)
        curve.lo = _plain(thinned.lo[:, position] * factor, digits)
        curve.hi = _plain(thinned.hi[:, position] * factor, digits)
    return Series(from_ms, to_ms, bucket_ms, t_ms, curves, unreadable)


def _plain(values: Floats, digits: int) -> list[float | None]:
    return [None if value != value else value for value in np.round(values, digits).tolist()]  # noqa: PLR0124  only NaN differs from itself


def _from_blocks(
    connection: Connection, serial: str, profile: Profile, *, indexes: list[int], window: tuple[int, int], curves: list[Curve]
) -> tuple[_Samples, int]:
    """Decode the blocks that touch the window; rows that arrived twice in different blocks count once."""
    from_ms, to_ms = window
    query = (
        select(block.c.data)
        .where(block.c.device == serial, block.c.t1_ms >= from_ms, block.c.t0_ms <= to_ms)
        .order_by(block.c.t1_ms.desc())
        .limit(BLOCKS_MAX)
    )
    decoded = [_rows(data, profile) for (data,) in connection.execute(query)]
    usable = [rows for rows in decoded if rows is not None]
    unreadable = len(decoded) - len(usable)
    if not usable:
        return _nothing(len(indexes)), unreadable
    t_ms = np.concatenate([rows.ts_ms for rows in usable])
    inside = (t_ms >= from_ms) & (t_ms <= to_ms)
    order = np.flatnonzero(inside)[np.argsort(t_ms[inside], kind="stable")]
    order = order[np.concatenate(([True], np.diff(t_ms[order]) > 0))] if len(order) else order
    codes = np.concatenate([rows.codes for rows in usable])[order][:, indexes].astype(np.float64)
    quality = np.concatenate([rows.quality for rows in usable])[order][:, indexes]
    kept = _kept_codes(usable, len(profile.channels))
    for position, (curve, index) in enumerate(zip(curves, indexes, strict=True)):
        _mark(curve, profile, index, bad=order[quality[:, position] != Quality.OK], all_rows=(t_ms, usable, kept))
    good = quality == Quality.OK
    codes[~good] = np.nan
    return _Samples(t_ms[order], np.where(good, codes, 0.0), good.astype(np.int64), codes, codes), unreadable


def _rows(data: bytes, profile: Profile) -> Rows | None:
    opened = frame.decode(data)
    if not isinstance(opened, frame.Frame) or (opened.head.profile, opened.head.profile_version) != (profile.id, profile.version):
        return None
    rows = block_codec.decode(opened.body)
    return rows if isinstance(rows, Rows) and rows.codes.shape[1] == len(profile.channels) else None


def _kept_codes(usable: Sequence[Rows], width: int) -> Mapping[int, int]:
    """The kept codes of rejected cells, by their flat index over all rows."""
    kept: dict[int, int] = {}
    start = 0
    for rows in usable:
        kept.update({start + cell: code for cell, code in rows.rejected.items()})
        start += len(rows.ts_ms) * width
    return kept


def _mark(
    curve: Curve, profile: Profile, index: int, *, bad: npt.NDArray[np.int64], all_rows: tuple[Ints, Sequence[Rows], Mapping[int, int]]
) -> None:
    """List the newest rejected samples of one channel and count them all."""
    t_ms, usable, kept = all_rows
    curve.rejected = len(bad)
    if not len(bad):
        return
    reasons = np.concatenate([rows.quality[:, index] for rows in usable])
    channel, width = profile.channels[index], len(profile.channels)
    for row in bad[-MARKS_MAX:].tolist():
        code = kept.get(row * width + index)
        value = None if code is None else round(channel.scale.to_value(code), channel.decimals)
        curve.marks.append(Mark(int(t_ms[row]), value, Quality(int(reasons[row])).name.lower()))


def _from_rollup(connection: Connection, serial: str, *, channels: Sequence[str], window: tuple[int, int], curves: list[Curve]) -> _Samples:
    """Lay the minutes on a full grid, so that a missing minute is a gap."""
    first = window[0] // MINUTE_MS * MINUTE_MS + MINUTE_MS
    minutes = (window[1] - first) // MINUTE_MS + 1
    shape = (minutes, len(channels))
    total, count = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    lo, hi = np.full(shape, np.nan), np.full(shape, np.nan)
    position_of = {name: position for position, name in enumerate(channels)}
    rollup = rollup_1m.c
    query = select(rollup.channel, rollup.minute_ms, rollup.n, rollup.total, rollup.lo, rollup.hi, rollup.invalid).where(
        rollup.device == serial, rollup.channel.in_(channels), rollup.minute_ms >= first, rollup.minute_ms <= window[1]
    )
    for channel, minute_ms, number, sum_, low, high, invalid in connection.execute(query.order_by(rollup.minute_ms)):
        position = position_of[channel]
        if number:
            cell = ((minute_ms - first) // MINUTE_MS, position)
            total[cell], count[cell], lo[cell], hi[cell] = sum_, number, low, high
        if invalid:
            curve = curves[position]
            curve.rejected += invalid
            curve.marks.append(Mark(minute_ms, None, "rejected", invalid))
    for curve in curves:
        curve.marks = curve.marks[-MARKS_MAX:]
    return _Samples(first + np.arange(minutes, dtype=np.int64) * MINUTE_MS, total, count, lo, hi)


def _nothing(width: int) -> _Samples:
    empty = np.zeros((0, width))
    return _Samples(np.zeros(0, dtype=np.int64), empty, empty.astype(np.int64), empty, empty)


def _fit(samples: _Samples, from_ms: int, span: Range) -> tuple[list[int], int, _Samples]:
    """Thin until points and gap marks together are within the bound; the buckets double, so this ends after a few turns."""
    usual_ms = int(np.median(np.diff(samples.t_ms))) if len(samples.t_ms) > 1 else 1000
    bucket_ms = 0 if span.from_blocks else MINUTE_MS
    while True:
        thinned = samples if bucket_ms <= (0 if span.from_blocks else MINUTE_MS) else _thin(samples, from_ms, bucket_ms)
        gap_ms = max(GAP_FACTOR * usual_ms, 2 * bucket_ms + usual_ms, GAP_MS_MIN)
        gaps = np.flatnonzero(np.diff(thinned.t_ms) > gap_ms) if span.from_blocks else np.zeros(0, dtype=np.int64)
        if len(thinned.t_ms) + len(gaps) <= POINTS_MAX:
            return _with_gaps(thinned, gaps, bucket_ms)
        bucket_ms = bucket_ms * 2 if bucket_ms else -(-span.length_ms // POINTS_MAX)


def _thin(samples: _Samples, from_ms: int, bucket_ms: int) -> _Samples:
    """One row for each bucket that holds a row; its time is the middle of the bucket."""
    buckets = (samples.t_ms - from_ms) // bucket_ms
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    with np.errstate(invalid="ignore"):
        return _Samples(
            from_ms + buckets[starts] * bucket_ms + bucket_ms // 2,
            np.add.reduceat(samples.total, starts),
            np.add.reduceat(samples.count, starts),
            np.fmin.reduceat(samples.lo, starts),
            np.fmax.reduceat(samples.hi, starts),
        )


def _with_gaps(samples: _Samples, gaps: npt.NDArray[np.int64], bucket_ms: int) -> tuple[list[int], int, _Samples]:
    """Put an empty row into each gap, which breaks the line there."""
    at = gaps + 1
    between = samples.t_ms[gaps] + np.diff(samples.t_ms)[gaps] // 2 if len(gaps) else np.zeros(0, dtype=np.int64)
    t_ms = np.insert(samples.t_ms, at, between)
    spread = _Samples(
        t_ms,
        np.insert(samples.total, at, 0.0, axis=0),
        np.insert(samples.count, at, 0, axis=0),
        np.insert(samples.lo, at, np.nan, axis=0),
        np.insert(samples.hi, at, np.nan, axis=0),
    )
    return t_ms.tolist(), bucket_ms, spread
