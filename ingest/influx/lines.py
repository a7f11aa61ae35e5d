"""Lines: a stored block into InfluxDB's line protocol. Pure; not the sending of it.

    cooler,device=…,gateway=…,model=…,site=… coolant_temp_1=-4.12,coolant_temp_1_smooth=-4.118,… 1767225600000000000

Invariant: the same block after the same earlier block gives the same bytes, for ever: a rebuilt database equals the lost one. Every field
is a float (an integer type would conflict when a later profile version adds a decimal), and no text of a device becomes a key.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from native import lineproto
from protocol.block import Rows
from protocol.profile import Profile
from protocol.reading import Quality
from protocol.series import COOLER, COOLER_TAGS, CoolerTags, smooth_field
from protocol.smoothing import tracker

__all__ = ["SMOOTH_DECIMALS", "WARM_UP_MS", "CodesError", "block_lines", "prefix"]

SMOOTH_DECIMALS = 1
"""Digits that a smoothed value has beyond its channel's step: a tenth of a step is below the noise of every sensor."""

WARM_UP_MS = 120_000
"""How much of the block before is run through the trackers: four times what they coast over, so its start no longer shows."""

SMOOTHED_CODE_MAX = 2**52  # a tenth of a step must still be an exact double and fit the encoder's 64 bits

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class CodesError(ValueError):
    """Codes that cannot be written as numbers of their unit (a product beyond 64 bits)."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Names and scales of the fields that a profile's channels become: the raw ones in wire order, then the smoothed ones."""

    names: tuple[bytes, ...]
    decimals: tuple[int, ...]
    multipliers: tuple[int, ...]
    smoothed: tuple[int, ...]


def prefix(tags: CoolerTags) -> bytes:
    """Return measurement and tags. Raises ``ValueError`` for a value that InfluxDB cannot hold (empty, control characters)."""
    values = {"device": tags.device, "gateway": tags.gateway, "model": tags.model, "site": tags.site}
    pairs = (lineproto.escape_tag(key) + b"=" + lineproto.escape_tag(values[key]) for key in COOLER_TAGS)
    return lineproto.escape_measurement(COOLER) + b"," + b",".join(pairs)


def block_lines(head: bytes, profile: Profile, rows: Rows, before: Rows | None) -> bytes:
    """Return one line a row; a cell without a valid raw code has neither a raw nor a smoothed field: unknown is not zero.

    ``before`` is the same machine's block that ended last before this one, if any. Raises ``CodesError``.
    """
    layout = _layout(profile)
    valid = rows.quality == Quality.OK
    smooth_codes, smooth_valid = _smooth(profile, layout.smoothed, rows, before)
    try:
        return lineproto.encode_block(
            head,
            layout.names,
            layout.decimals,
            rows.ts_ms,
            np.ascontiguousarray(np.hstack((rows.codes, smooth_codes))),
            np.ascontiguousarray(np.hstack((valid, smooth_valid))),
            multipliers=layout.multipliers,
        )
    except ValueError as error:
        raise CodesError(str(error)) from error


def _layout(profile: Profile) -> _Layout:
    smoothed = tuple(place for place, channel in enumerate(profile.channels) if not channel.discrete)
    raw, derived = profile.channels, [profile.channels[place] for place in smoothed]
    return _Layout(
        names=tuple(
            lineproto.escape_field_key(name) for name in (*(one.name for one in raw), *(smooth_field(one.name) for one in derived))
        ),
        decimals=(*(one.decimals for one in raw), *(one.decimals + SMOOTH_DECIMALS for one in derived)),
        multipliers=(*(one.multiplier for one in raw), *(one.multiplier for one in derived)),
        smoothed=smoothed,
    )


def _smooth(profile: Profile, places: tuple[int, ...], rows: Rows, before: Rows | None) -> tuple[Ints, Bools]:
    """Smoothed codes in tenths of a step and where they stand: where the raw code does and the tracker has a value."""
    codes = np.zeros((len(rows.ts_ms), len(places)), dtype=np.int64)
    good = np.zeros(codes.shape, dtype=np.bool_)
    now, past = _by_channel(rows), None if before is None else _by_channel(before, WARM_UP_MS)
    for column, place in enumerate(places):
        one = tracker(profile.channels[place])
        if one is None:
            continue
        if past is not None:
            one.batch(past.ts_ms, past.codes[place], past.valid[place])
        values, _, _ = one.batch(now.ts_ms, now.codes[place], now.valid[place])
        good[:, column] = now.valid[place] & (np.abs(values) < SMOOTHED_CODE_MAX)  # a NaN compares false
        codes[:, column] = np.rint(np.where(good[:, column], values, 0.0) * 10**SMOOTH_DECIMALS)
    return codes, good


@dataclass(frozen=True, slots=True)
class _ByChannel:
    """The rows turned on their side: the kernels want each channel in one piece."""

    ts_ms: Ints
    codes: Ints
    valid: Bools


def _by_channel(rows: Rows, last_ms: int | None = None) -> _ByChannel:
    recent = slice(None) if last_ms is None else rows.ts_ms >= rows.ts_ms[-1] - last_ms
    codes, quality = rows.codes[recent], rows.quality[recent]
    return _ByChannel(rows.ts_ms[recent], np.ascontiguousarray(codes.T), np.ascontiguousarray((quality == Quality.OK).T))
