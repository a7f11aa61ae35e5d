"""Keepsakes: what an agent remembers of its last run, beside the store: the gates' state and the configuration that was applied.

Invariant: losing a keepsake loses no reading and no fact: the gates settle again within seconds, the configuration is stated once more.
All functions block; call them from a thread.
"""

from collections.abc import MutableMapping
from pathlib import Path

import msgspec
import structlog

from edge.condition import Conditioner
from edge.sources.memory import replace_file
from protocol.refusal import Refusal
from protocol.units import DeviceId

__all__ = ["load_digest", "load_gates", "save_digest", "save_gates"]

GATES = "gates.bin"
APPLIED = "applied"
GATES_BYTES_MAX = 16_777_216  # 256 coolers of 128 trackers; a larger file is not ours

log = structlog.get_logger("edge.keepsakes")


def load_gates(folder: Path, conditioners: MutableMapping[DeviceId, Conditioner]) -> None:
    """Let every gate go on where it was at the last clean stop; those that cannot start afresh."""
    try:
        with (folder / GATES).open("rb") as file:
            states = msgspec.msgpack.decode(file.read(GATES_BYTES_MAX), type=dict[str, bytes])
    except (OSError, msgspec.DecodeError):
        return
    for device, conditioner in conditioners.items():
        if (state := states.get(device)) is not None:
            restored = Conditioner.restore(conditioner.profile, state)
            if isinstance(restored, Refusal):
                log.info("gate_starts_afresh", device=device, why=str(restored))
            else:
                conditioners[device] = restored


def save_gates(folder: Path, conditioners: MutableMapping[DeviceId, Conditioner]) -> None:
    """Keep every gate's state; a disk that does not take it costs seconds of settling, so it is only logged."""
    states = {str(device): conditioner.state() for device, conditioner in conditioners.items()}
    try:
        replace_file(folder / GATES, msgspec.msgpack.encode(states))
    except OSError as error:
        log.warning("gates_not_kept", why=str(error))


def load_digest(folder: Path) -> bytes:
    """Return the digest of the configuration that was applied last; empty when it is not known."""
    try:
        return bytes.fromhex((folder / APPLIED).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return b""


def save_digest(folder: Path, digest: bytes) -> None:
    """Remember which configuration was stated; only logged when the disk does not take it: it is then stated again."""
    try:
        replace_file(folder / APPLIED, digest.hex().encode() + b"\n")
    except OSError as error:
        log.warning("digest_not_kept", why=str(error))
