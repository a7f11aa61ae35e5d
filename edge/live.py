"""Live: the newest smooth values of each cooler, for pages that move at once. Not durable, and never evidence.

Invariant: one entry per cooler, the newest; a slow link sees fewer of them, never older ones.
"""

from edge.condition import ConditionedRow
from protocol.state import Live
from protocol.units import DeviceId

__all__ = ["LIVE_INTERVAL_S", "LiveBoard"]

LIVE_INTERVAL_S = 1.0  # of real time: nobody reads faster, and a demonstration at 60 times would send 60 a second


class LiveBoard:
    """Collects rows that are on disk; gives out what changed."""

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        self._changed: dict[DeviceId, ConditionedRow] = {}

    def show(self, row: ConditionedRow) -> None:
        """Take a row unless one that is newer waits to be taken: back-fill beside live rows is not live."""
        waiting = self._changed.get(row.reading.device)
        if waiting is None or row.reading.ts_ms >= waiting.reading.ts_ms:
            self._changed[row.reading.device] = row

    def take(self) -> list[Live]:
        """Return what changed since the last call, one message per cooler."""
        changed, self._changed = self._changed, {}
        return [message for row in changed.values() if (message := _message(row)) is not None]


def _message(row: ConditionedRow) -> Live | None:
    values = {channel.name: value for channel, value in zip(row.profile.channels, row.smoothed_milli, strict=False) if value is not None}
    return Live(row.reading.device, row.profile.id, row.reading.ts_ms, values) if values else None
