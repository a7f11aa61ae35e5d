"""Asking: the other end of the health socket, for ``icecap edge status``. Not the server.

Invariant: what cannot be asked or read ends in one ``EdgeError`` that says what to do.
"""

import socket
import tomllib
from pathlib import Path

from rich.table import Table

from edge.errors import EdgeError
from edge.health import Report
from edge.settings import HealthConfig

__all__ = ["ask", "socket_of", "table_of"]

ANSWER_S = 5.0  # the agent answers from memory; longer means that its loop is stuck
ANSWER_BYTES_MAX = 4_194_304  # the metrics of the largest site are a tenth
NUMBERS_SHOWN_MAX = 8  # of one part; the rest is in --json


def socket_of(config: Path) -> Path:
    """Return the health socket that a configuration names, without judging the rest of the file. Raises ``EdgeError``."""
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgeError(f"{config}: {error}; name the socket with --socket") from error
    health = table.get("health")
    named = health.get("socket") if isinstance(health, dict) else None
    return config.parent / (named if isinstance(named, str) else HealthConfig().socket)


def ask(path: Path, address: str) -> bytes:
    """Return the body that the agent gives for an address. Raises ``EdgeError`` when nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(ANSWER_S)
            peer.connect(str(path))
            peer.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = bytearray()
            while (part := peer.recv(65_536)) and len(answer) < ANSWER_BYTES_MAX:
                answer += part
    except OSError as error:
        raise EdgeError(f"no agent answers at {path} ({error}); is it running? systemctl status icecap-edge") from error
    _head, separator, body = bytes(answer).partition(b"\r\n\r\n")
    if not separator:
        raise EdgeError(f"what answers at {path} is no gateway agent")
    return body


def table_of(report: Report) -> Table:
    """Return the report for people."""
    table = Table(title=f"{report.gateway}  {report.version}  up {report.uptime_s:.0f} s  clock {report.clock}")
    table.add_column("part")
    table.add_column("state")
    table.add_column("why")
    table.add_column("numbers")
    for name, part in report.parts.items():
        shown = [f"{key} {value:g}" for key, value in part.numbers.items() if value][:NUMBERS_SHOWN_MAX]
        table.add_row(name, "[green]ok[/]" if part.ok else "[red]not ok[/]", part.why, ", ".join(shown))
    return table
