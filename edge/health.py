"""Health: what the agent knows of itself, as JSON and as metrics, on a Unix socket. Not a page, and it decides nothing.

    GET /healthz   200 or 503, per part ``ok`` and ``why``           GET /metrics   Prometheus text

Invariant: the answer is made from numbers in memory; a stuck disk or link cannot make health hang.
"""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

__all__ = ["HealthServer", "Part", "Report", "decode_report"]

REQUEST_BYTES_MAX = 8192  # a request line and the headers of curl and of Prometheus need a tenth
REQUEST_S = 5.0  # a peer that says nothing must not hold a connection for ever
CONNECTIONS_MAX = 16  # a scraper, a person and a monitor at once, with room
RETRY_S = 30.0  # a socket that cannot be made (a missing folder) is tried again: data flow without it

log = structlog.get_logger("edge.health")


class Part(msgspec.Struct, frozen=True):
    """One part: ``why`` says what is wrong, or what is going on."""

    ok: bool
    why: str = ""
    numbers: dict[str, float] = {}


class Report(msgspec.Struct, frozen=True):
    """The whole: ``ok`` when every part is."""

    ok: bool
    gateway: str
    version: str
    boot: int
    wall_ms: int
    clock: str
    uptime_s: float
    parts: dict[str, Part]


def decode_report(data: bytes) -> Report:
    """Return the report in a ``/healthz`` body. Raises ``msgspec.DecodeError`` for anything else."""
    return msgspec.json.decode(data, type=Report)


class HealthServer:
    """Serves two addresses; ``report`` and ``metrics`` are asked at each request, on the event loop."""

    def __init__(self, path: Path, *, report: Callable[[], Report], metrics: Callable[[], bytes]) -> None:
        self.path = path
        self._report = report
        self._metrics = metrics
        self._open = 0

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            try:
                listening = await asyncio.to_thread(_listen, self.path)
            except OSError as error:
                log.warning("health_not_served", path=str(self.path), why=str(error), retry_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            try:
                async with await asyncio.start_unix_server(self._answer, sock=listening, limit=REQUEST_BYTES_MAX) as server:
                    await server.serve_forever()
            finally:
                await asyncio.shield(asyncio.to_thread(self.path.unlink, missing_ok=True))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                head = b"" if self._open > CONNECTIONS_MAX else await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._respond(head)
                line = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(line.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("health_request_failed", why=type(error).__name__)
        finally:
            self._open -= 1
            writer.close()

    def _respond(self, head: bytes) -> tuple[str, str, bytes]:
        """Status line, content type and body for a request's head."""
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if not head:
            return "503 Service Unavailable", "text/plain", b"too many connections\n"
        if len(words) != 3 or words[0] != b"GET":
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        if words[1] == b"/healthz":
            report = self._report()
            return "200 OK" if report.ok else "503 Service Unavailable", "application/json", msgspec.json.encode(report)
        if words[1] == b"/metrics":
            return "200 OK", "text/plain; version=0.0.4; charset=utf-8", self._metrics()
        return "404 Not Found", "text/plain", b"/healthz or /metrics\n"


def _listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, in place of a dead one: the store's lock has already made sure that no other agent lives here."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.bind(str(path))
        path.chmod(0o660)  # its owner and group may ask; the numbers name coolers
        listening.listen(CONNECTIONS_MAX)
    except OSError:
        listening.close()
        raise
    return listening
