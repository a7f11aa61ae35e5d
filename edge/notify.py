"""Notify: tells the service manager that the agent is ready, alive or stopping (sd_notify(3)). Not a supervisor.

Invariant: without a service manager every call does nothing; a message that cannot be delivered is dropped, it never stops the agent.
"""

import socket
from contextlib import suppress

from edge.config import ServiceManager

__all__ = ["Notifier"]


class Notifier:
    """Datagrams to the service manager's socket; never blocks."""

    __slots__ = ("_address", "_socket")

    def __init__(self, manager: ServiceManager) -> None:
        # A leading @ is the kernel's abstract name space, which begins with a zero byte.
        self._address = "\0" + manager.socket[1:] if manager.socket.startswith("@") else manager.socket
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """The store is open and the sources run."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """Feed the watchdog and show one line in ``systemctl status``."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The agent is on its way out."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Give the socket back; harmless twice."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto(text.encode(), self._address)
