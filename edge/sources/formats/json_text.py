"""JSON text as plain values, with limits: size, depth, no doubled keys, no numbers that are none. Not a schema.

Invariant: what is accepted means the same to every reader of the text; NaN, 1e999, doubled keys and half a surrogate do not.
"""

import json
from typing import Final

import msgspec

from protocol.refusal import Reason, Refusal

__all__ = ["DEPTH_MAX", "PAYLOAD_BYTES_MAX", "Json", "parse"]

PAYLOAD_BYTES_MAX: Final = 65_536  # 128 channels with names need 8 KiB; security rules allow 64 KiB
DEPTH_MAX: Final = 8  # real payloads nest two levels

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


class _DoubledKeyError(ValueError):
    """An object says one key twice."""


def parse(payload: bytes) -> Json | Refusal:
    """Return the document in ``payload`` or why it is refused. Never raises."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(payload)} bytes, limit {PAYLOAD_BYTES_MAX}")
    # A document with few brackets cannot be deep; only others are worth the exact count.
    if payload.count(b"[") + payload.count(b"{") > DEPTH_MAX and _depth(payload) > DEPTH_MAX:
        return Refusal(Reason.BAD_JSON, f"deeper than {DEPTH_MAX}")
    try:
        document: Json = msgspec.json.decode(payload)
        # Every key has one colon. As many colons as keys: none is doubled. More: perhaps, or a text holds one; the slow reader tells.
        if payload.count(b":") != _count_keys(document):
            json.loads(payload, object_pairs_hook=_refuse_doubled)
    except _DoubledKeyError as error:
        return Refusal(Reason.BAD_JSON, f"key {str(error)[:64]!r} twice")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return Refusal(Reason.BAD_JSON, str(error)[:200])
    return document


def _depth(payload: bytes) -> int:
    """The deepest nesting of brackets outside texts; one pass, no memory."""
    deepest = depth = 0
    in_text = escaped = False
    for byte in payload:
        if in_text:
            in_text = escaped or byte != 0x22
            escaped = byte == 0x5C and not escaped
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _count_keys(document: Json) -> int:
    if isinstance(document, dict):
        return len(document) + sum(_count_keys(value) for value in document.values() if isinstance(value, (dict, list)))
    if isinstance(document, list):
        return sum(_count_keys(value) for value in document if isinstance(value, (dict, list)))
    return 0


def _refuse_doubled(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _value in pairs]
        raise _DoubledKeyError(next(key for key in keys if keys.count(key) > 1))
    return found
