"""State messages (``…/s``): presence and live values. Not durable, never stored twice: the block that follows holds the truth.

Invariant: losing every one of them changes no bill, no history and no alarm; they only make a page move sooner.
"""

import msgspec

from protocol.refusal import Reason, Refusal

__all__ = ["STATE_BYTES_MAX", "Live", "Presence", "decode", "encode"]

STATE_BYTES_MAX = 16_384  # 128 channels of a name and a number


class Presence(msgspec.Struct, frozen=True, tag="presence", tag_field="kind"):
    """Birth (``online``) and will (``not online``) of a gateway; retained."""

    online: bool
    boot: int
    version: str = ""
    v: int = 1


class Live(msgspec.Struct, frozen=True, tag="live", tag_field="kind"):
    """The newest smoothed values of one cooler, QoS 0: channel name to value in thousandths of its unit."""

    device: str
    profile: str
    ts_ms: int
    values_milli: dict[str, int]
    v: int = 1


def encode(message: Presence | Live) -> bytes:
    """Return the message as JSON."""
    return msgspec.json.encode(message)


def decode(data: bytes) -> Presence | Live | Refusal:
    """Return the message in ``data`` or why it is none. Never raises."""
    if len(data) > STATE_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(data)} bytes")
    try:
        message = msgspec.json.decode(data, type=Presence | Live)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Refusal(Reason.BAD_JSON, str(error))
    return message if message.v == 1 else Refusal(Reason.UNKNOWN_VERSION, str(message.v))
