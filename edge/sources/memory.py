"""What a source keeps on disk beside the outbox: the filters it subscribed, and the newest refused payloads. Not evidence, and small.

Invariant: both files are bounded, owner-only, and losing them loses no reading. All functions block; call them from a thread.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol.refusal import Refusal

__all__ = ["QUARANTINE_BYTES_MAX", "Quarantine", "Refused", "Subscriptions", "replace_file"]

QUARANTINE_BYTES_MAX = 1_048_576  # of one file, and there are two: hundreds of payloads are enough to see what a device does wrong
PAYLOAD_KEPT_MAX = 4096  # bytes of one payload; its length and SHA-256 are always there


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that is no reading."""

    source: str
    topic: str
    payload: bytes
    wall_ms: int
    refusal: Refusal


class Quarantine:
    """The newest refused payloads, one JSON object a line; when the file is full it becomes ``.old`` and a new one begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, entries: Sequence[Refused]) -> None:
        """Append and sync: whoever acknowledges afterwards has not thrown anything away. Raises ``OSError``."""
        lines = b"".join(msgspec.json.encode(_line(entry)) + b"\n" for entry in entries)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if (size := os.fstat(descriptor).st_size) and size + len(lines) > QUARANTINE_BYTES_MAX:
                self.path.replace(self.path.with_suffix(".old"))
                os.close(descriptor)
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(descriptor, lines[-QUARANTINE_BYTES_MAX:])
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _line(entry: Refused) -> dict[str, str | int]:
    return {
        "source": entry.source,
        "topic": entry.topic[:256],
        "wall_ms": entry.wall_ms,
        "reason": entry.refusal.reason,
        "detail": entry.refusal.detail[:256],
        "size": len(entry.payload),
        "sha256": hashlib.sha256(entry.payload).hexdigest(),
        "payload": base64.b64encode(entry.payload[:PAYLOAD_KEPT_MAX]).decode(),
    }


class Subscriptions:
    """The filters that a persistent session on the broker may still hold, so that a changed configuration can take them back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, client_id: str) -> frozenset[str]:
        """Return the filters last subscribed under ``client_id``; none when the file is absent, damaged or of another id."""
        try:
            kept = msgspec.json.decode(self.path.read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return frozenset()
        return frozenset(kept.filters) if kept.client_id == client_id else frozenset()

    def save(self, client_id: str, filters: frozenset[str]) -> None:
        """Remember; raises ``OSError``."""
        replace_file(self.path, msgspec.json.encode(_Kept(client_id, tuple(sorted(filters)))))


class _Kept(msgspec.Struct, frozen=True):
    client_id: str
    filters: tuple[str, ...]


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file so that a power cut leaves the old or the new one. Raises ``OSError``."""
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
