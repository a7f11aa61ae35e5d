"""Inbox: messages on their way from the network threads to the one that writes. Not a store: what lies here is unacknowledged.

Invariant: never more than ``MESSAGES_MAX`` messages or, by one message, ``BYTES_MAX`` bytes. Receive Maximum alone does not bound them:
Mosquitto 2.0.11 keeps to it until the first acknowledgement and then sends a whole window for each. A full inbox holds its network
threads, and with them TCP and the broker; live values, which nobody waits for, are shed instead and counted.
"""

import threading
from collections import deque
from collections.abc import Callable

from ingest.source import Delivery

__all__ = ["BATCH_BYTES_MAX", "BATCH_MESSAGES_MAX", "BYTES_MAX", "LIVE_MAX", "MESSAGES_MAX", "WAIT_S", "Inbox"]

MESSAGES_MAX = 4096  # sixteen full batches
BYTES_MAX = 64 * 1024 * 1024  # two hundred and fifty messages of the largest size; usual ones are a thousandth of it
WAIT_S = 10.0  # half a keep-alive: a connection that is held longer is given up, before the broker does it
BATCH_MESSAGES_MAX = 256  # beyond some two hundred blocks a commit the fsync costs next to nothing (measured)
BATCH_BYTES_MAX = 8 * 1024 * 1024  # one transaction's worth of blobs; about thirty messages of the largest size
LIVE_MAX = 2_000  # a second of live values of two thousand coolers; older ones are no longer live


class Inbox:
    """A bounded queue between threads."""

    def __init__(self) -> None:
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.shed = 0

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, delivery: Delivery, *, awaited: bool) -> bool:
        """Take a message in. ``awaited``: the broker waits for its acknowledgement, so wait for room, at most ``WAIT_S`` seconds.

        False when it was not taken although it is awaited: its connection must end, or nobody ever acknowledges it.
        """
        with self._changed:
            if not awaited and len(self._queue) >= LIVE_MAX:
                self.shed += 1
                return True
            if not self._changed.wait_for(lambda: self._has_room() or self._closed, WAIT_S) or self._closed:
                return False
            self._queue.append(delivery)
            self._bytes += len(delivery.message.payload)
            self._changed.notify_all()
            return True

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
            self._bytes -= size
            self._changed.notify_all()
            return batch

    def drop(self, doomed: Callable[[Delivery], bool]) -> None:
        """Forget messages of a connection that ended: the broker sends them again, and twice in memory would grow without bound."""
        with self._changed:
            kept = [delivery for delivery in self._queue if not doomed(delivery)]
            self._queue.clear()
            self._queue.extend(kept)
            self._bytes = sum(len(delivery.message.payload) for delivery in kept)
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody who waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._queue) < MESSAGES_MAX and self._bytes < BYTES_MAX
