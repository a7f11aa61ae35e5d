"""Inbox: messages on their way from the network threads to the one that writes. Not a store: what lies here is unacknowledged.

Invariant: messages that the broker waits for are never shed (their number is bounded by Receive Maximum and the number of links); live
values, which nobody waits for, are shed beyond ``LIVE_MAX`` and counted.
"""

import threading
from collections import deque
from collections.abc import Callable

from ingest.source import Delivery

__all__ = ["BATCH_BYTES_MAX", "BATCH_MESSAGES_MAX", "LIVE_MAX", "Inbox"]

BATCH_MESSAGES_MAX = 256  # beyond some two hundred blocks a commit the fsync costs next to nothing (measured)
BATCH_BYTES_MAX = 8 * 1024 * 1024  # one transaction's worth of blobs; about thirty messages of the largest size
LIVE_MAX = 2_000  # a second of live values of two thousand coolers; older ones are no longer live


class Inbox:
    """A bounded queue between threads."""

    def __init__(self) -> None:
        self._queue: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.shed = 0

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, delivery: Delivery, *, awaited: bool) -> None:
        """Take a message in; ``awaited``: the broker waits for its acknowledgement."""
        with self._changed:
            if not awaited and len(self._queue) >= LIVE_MAX:
                self.shed += 1
                return
            self._queue.append(delivery)
            self._changed.notify()

    def take(self, timeout_s: float) -> list[Delivery]:
        """Wait for the first message, then return what is there, in order and within the bounds of a batch."""
        with self._changed:
            if not self._queue:
                self._changed.wait_for(lambda: self._queue or self._closed, timeout_s)
            batch: list[Delivery] = []
            size = 0
            while self._queue and len(batch) < BATCH_MESSAGES_MAX and size < BATCH_BYTES_MAX:
                delivery = self._queue.popleft()
                size += len(delivery.message.payload)
                batch.append(delivery)
            return batch

    def drop(self, doomed: Callable[[Delivery], bool]) -> None:
        """Forget messages of a connection that ended: the broker sends them again, and twice in memory would grow without bound."""
        with self._changed:
            kept = [delivery for delivery in self._queue if not doomed(delivery)]
            self._queue.clear()
            self._queue.extend(kept)

    def close(self) -> None:
        """Let a waiting taker go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
