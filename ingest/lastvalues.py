"""Last values: the newest value and the newest sample of every channel of every cooler. Not history (``block``) and not the database.

Invariant: of two candidates the same one wins in whatever order they come: the later time, then the live one, then the larger value. What
``merge`` does in memory, ``UPSERT`` in ``apply`` does in the table.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from protocol.block import Rows
from protocol.profile import Profile
from protocol.reading import CODE_MAX, CODE_MIN, Quality
from protocol.state import Live

__all__ = ["AHEAD_MS_MAX", "Key", "Newest", "merge", "of_block", "of_live"]

AHEAD_MS_MAX = 600_000  # samples further in the future than this do not count: a machine set to 2099 would freeze its own page

Key = tuple[str, str]
"""(device, channel)."""


@dataclass(frozen=True, slots=True)
class Newest:
    """One channel: the value (with its time) and the newest sample's quality (with its time); ``ts_ms`` or ``seen_ms`` 0: none."""

    key: Key
    ts_ms: int = 0
    live: bool = False
    value_milli: int | None = None
    code: int | None = None
    seen_ms: int = 0
    quality: int = Quality.MISSING

    def _rank(self) -> tuple[int, bool, int]:
        return self.ts_ms, self.live, CODE_MIN if self.value_milli is None else self.value_milli

    def joined(self, other: "Newest") -> "Newest":
        """Both halves, each from whichever of the two is newer."""
        value = max(self, other, key=Newest._rank)
        sample = max(self, other, key=lambda one: (one.seen_ms, one.quality))
        return Newest(self.key, value.ts_ms, value.live, value.value_milli, value.code, sample.seen_ms, sample.quality)


def merge(into: dict[Key, Newest], candidates: Iterable[Newest]) -> None:
    """Keep the newest of what is there and what comes."""
    for one in candidates:
        there = into.get(one.key)
        into[one.key] = one if there is None else there.joined(one)


def of_block(device: str, profile: Profile, rows: Rows, *, now_ms: int) -> list[Newest]:
    """The newest of each channel in a block whose channels are the profile's."""
    believable = rows.ts_ms <= now_ms + AHEAD_MS_MAX
    times, codes, quality = rows.ts_ms[believable], rows.codes[believable], rows.quality[believable]
    if not len(times):
        return []
    if len(times) > 1 and bool((np.diff(times) < 0).any()):
        order = np.argsort(times, kind="stable")
        times, codes, quality = times[order], codes[order], quality[order]
    valid = quality == Quality.OK
    any_valid = valid.any(axis=0)
    newest = len(times) - 1 - valid[::-1].argmax(axis=0)
    seen_ms, last_quality = int(times[-1]), quality[-1].tolist()
    picked, picked_ms = codes[newest, np.arange(codes.shape[1])].tolist(), times[newest].tolist()
    found = []
    for index, channel in enumerate(profile.channels):
        key = (device, channel.name)
        value = channel.scale.to_milli(picked[index]) if any_valid[index] else None
        if value is None or not CODE_MIN <= value <= CODE_MAX:
            found.append(Newest(key, seen_ms=seen_ms, quality=last_quality[index]))
        else:
            found.append(Newest(key, picked_ms[index], False, value, picked[index], seen_ms, last_quality[index]))
    return found


def of_live(live: Live, profile: Profile, *, now_ms: int) -> list[Newest] | None:
    """The values of a live message; ``None`` when it names channels that the profile lacks, or numbers and times nobody can mean."""
    names = {channel.name for channel in profile.channels}
    if not live.values_milli.keys() <= names or not 0 < live.ts_ms <= now_ms + AHEAD_MS_MAX:
        return None
    if not all(CODE_MIN <= value <= CODE_MAX for value in live.values_milli.values()):
        return None
    return [Newest((live.device, name), live.ts_ms, True, value) for name, value in live.values_milli.items()]
