"""Inbox: from a network thread to the event loop, bounded, one wake-up for many messages. Not a queue between tasks.

Invariant: what was offered and accepted is taken once, in order; what was not accepted stays the broker's.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from protocol.reading import Stamp

__all__ = ["BYTES_MAX", "MESSAGES_MAX", "Acknowledger", "Arrival", "Inbox"]

MESSAGES_MAX: Final = 1024  # two minutes of eight coolers at 1 Hz; more only means that the disk is slower than the broker
BYTES_MAX: Final = 16_777_216  # of payloads; a noisy device sends up to 128 KiB at once
WAIT_S: Final = 10.0  # below two thirds of the shortest useful keep-alive: a thread that waits here answers no ping
WAITS_MAX: Final = 100  # looks at ``give_up`` while it waits: ten a second


class Acknowledger(Protocol):
    """The connection on which a message came: only there does its number mean anything."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended: the broker sends again what was not acknowledged."""
        ...

    def ack(self, arrival: "Arrival", /) -> bool:
        """Acknowledge; false when the connection is gone, in which case the broker sends the message again."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came: nobody has looked into it. ``fault`` says what our own receiving code stumbled over, empty when nothing."""

    connection: Acknowledger
    mid: int
    qos: int
    topic: str
    payload: bytes
    stamp: Stamp
    fault: str = ""
    is_retained: bool = False
    """The broker's copy of an old message, given to every new subscription: a last known value, not a sample."""


class Inbox:
    """Bounded by ``MESSAGES_MAX`` and ``BYTES_MAX``; a full inbox makes the network thread wait, and so the broker, by TCP.

    The receive maximum alone is no bound: Mosquitto 2.0.11 was seen to send 2,872 unacknowledged messages to a client that allowed 256.
    """

    __slots__ = ("_bytes", "_loop", "_room", "_waiting", "_wake", "_woken")

    def __init__(self) -> None:
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._room = threading.Condition()
        self._wake = asyncio.Event()
        self._woken = False
        self._loop = asyncio.get_running_loop()

    def offer(self, arrival: Arrival, give_up: Callable[[], bool]) -> bool:
        """Put a message in, from the network thread; false when there was no room for ``WAIT_S`` or until ``give_up`` said so."""
        with self._room:
            for _ in range(WAITS_MAX):
                if self._has_room(len(arrival.payload)) or give_up():
                    break
                self._room.wait(WAIT_S / WAITS_MAX)
            if not self._has_room(len(arrival.payload)):
                return False
            self._waiting.append(arrival)
            self._bytes += len(arrival.payload)
            wake, self._woken = not self._woken, True
        if wake:
            self._loop.call_soon_threadsafe(self._wake.set)
        return True

    def _has_room(self, size: int) -> bool:
        return len(self._waiting) < MESSAGES_MAX and (self._bytes + size <= BYTES_MAX or not self._waiting)

    async def take(self, limit: int) -> list[Arrival]:
        """Wait for a message and return what is there, at most ``limit``."""
        await self._wake.wait()
        with self._room:
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            self._bytes -= sum(len(arrival.payload) for arrival in taken)
            if not self._waiting:
                self._wake.clear()
                self._woken = False
            self._room.notify()
        return taken

    def __len__(self) -> int:
        return len(self._waiting)
