"""Frame v1: the envelope of everything durable that a gateway sends. Not what is inside (``block``, ``facts``); see ``FORMAT.md``.

Invariant: the first 24 bytes (magic, version, kind, flags, stream, seq) and the trailing CRC32C keep their place in every version, so that
a cloud one version behind can check, park and receipt what it cannot read yet.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from native import crc32c
from protocol.clock import ClockQuality
from protocol.reading import Stamp
from protocol.refusal import Reason, Refusal
from protocol.units import DeviceId, GatewayId, is_device_id, is_gateway_id

__all__ = ["FRAME_BYTES_MAX", "SEQ_MAX", "Frame", "FrameHead", "Identity", "Kind", "decode", "encode", "peek"]

MAGIC = b"\xecIC1"  # 0xEC first: no text file and no JSON document begins with it
VERSION = 1
FRAME_BYTES_MAX = 261_120  # the shipped broker's max_packet_size (262,144) less 1 KiB for topic and properties
SEQ_MAX = 2**63 - 1  # both databases store it as a signed 64-bit integer
FLAG_SESSION = 0x0001
FLAGS_KNOWN = FLAG_SESSION
SESSION_BYTES = 16

_PREFIX = struct.Struct("<4sBBHQQ")  # magic, version, kind, flags, stream, seq
_FIXED = struct.Struct("<QqqBBBBH")  # boot, monotonic_ms, wall_ms, clock quality, three name lengths, profile version
_U32 = struct.Struct("<I")
CRC_BYTES = 4


class Kind(IntEnum):
    """What the body is."""

    BLOCK = 1
    FACT = 2
    TOMBSTONE = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """(gateway, stream, seq): the only identity there is. Never a clock, never MQTT's DUP flag.

    ``stream`` is a random 63-bit number made when the store is created: a recreated store can never reuse a number.
    """

    gateway: GatewayId
    stream: int
    seq: int


@dataclass(frozen=True, slots=True)
class FrameHead:
    """Everything in a frame but its body. ``device``, ``profile`` and ``session`` are empty where they do not apply."""

    identity: Identity
    kind: Kind
    stamp: Stamp
    device: DeviceId | None = None
    profile: str = ""
    profile_version: int = 0
    session: bytes = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """A checked frame: the head and the body's bytes."""

    head: FrameHead
    body: bytes


def encode(head: FrameHead, body: bytes) -> bytes:
    """Return the frame's bytes.

    Raises ``ValueError`` for a name, number or size that the format does not hold: those are ours, so they are bugs.
    """
    identity, stamp = head.identity, head.stamp
    device, profile = (head.device or "").encode("ascii"), head.profile.encode("ascii")
    if not is_gateway_id(identity.gateway) or not (head.device is None or is_device_id(head.device)) or len(profile) > 32:
        msg = f"bad name in frame head: {identity.gateway!r} {head.device!r} {head.profile!r}"
        raise ValueError(msg)
    if not (0 <= identity.stream <= SEQ_MAX and 0 <= identity.seq <= SEQ_MAX and len(head.session) in {0, SESSION_BYTES}):
        msg = f"stream, seq or session out of range in {identity}"
        raise ValueError(msg)
    flags = FLAG_SESSION if head.session else 0
    gateway = identity.gateway.encode("ascii")
    parts = [
        _PREFIX.pack(MAGIC, VERSION, head.kind, flags, identity.stream, identity.seq),
        _FIXED.pack(
            stamp.boot, stamp.monotonic_ms, stamp.wall_ms, stamp.quality, len(gateway), len(device), len(profile), head.profile_version
        ),
        gateway,
        device,
        profile,
        head.session,
        _U32.pack(len(body)),
        body,
    ]
    data = b"".join(parts)
    if len(data) + CRC_BYTES > FRAME_BYTES_MAX:
        msg = f"frame of {len(data) + CRC_BYTES} bytes is over {FRAME_BYTES_MAX}"
        raise ValueError(msg)
    return data + _U32.pack(crc32c.crc32c(data))


@dataclass(frozen=True, slots=True)
class Peek:
    """The part of a frame that every version shares."""

    version: int
    kind: int
    stream: int
    seq: int


def peek(data: bytes) -> Peek | Refusal:
    """Return the version-independent part of a frame whose length, magic and checksum are right.

    Order matters: the checksum comes before the version, so a flipped version bit is damage, not a message from the future.
    """
    if len(data) > FRAME_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(data)} bytes, limit {FRAME_BYTES_MAX}")
    if len(data) < _PREFIX.size + CRC_BYTES:
        return Refusal(Reason.TOO_SHORT, f"{len(data)} bytes")
    magic, version, kind, _flags, stream, seq = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        return Refusal(Reason.BAD_MAGIC, magic.hex())
    (stated,) = _U32.unpack_from(data, len(data) - CRC_BYTES)
    if crc32c.crc32c(data[:-CRC_BYTES]) != stated:
        return Refusal(Reason.BAD_CHECKSUM)
    if stream > SEQ_MAX or seq > SEQ_MAX:
        return Refusal(Reason.BAD_VALUE, "stream or seq over 2^63-1")
    return Peek(version, kind, stream, seq)


def decode(data: bytes) -> Frame | Refusal:
    """Return the frame in ``data``, or why it is not one. Reads every byte and ends exactly at the last."""
    top = peek(data)
    if isinstance(top, Refusal):
        return top
    if top.version != VERSION:
        return Refusal(Reason.UNKNOWN_VERSION, str(top.version))
    if top.kind not in Kind._value2member_map_:
        return Refusal(Reason.UNKNOWN_KIND, str(top.kind))
    flags = int.from_bytes(data[6:8], "little")
    if flags & ~FLAGS_KNOWN:
        return Refusal(Reason.UNKNOWN_FLAGS, hex(flags))
    if len(data) < _PREFIX.size + _FIXED.size + 2 * _U32.size:
        return Refusal(Reason.TOO_SHORT, f"{len(data)} bytes")
    return _decode_rest(data, top, session_bytes=SESSION_BYTES if flags & FLAG_SESSION else 0)


def _decode_rest(data: bytes, top: Peek, *, session_bytes: int) -> Frame | Refusal:
    boot, monotonic_ms, wall_ms, quality, gateway_len, device_len, profile_len, profile_version = _FIXED.unpack_from(data, _PREFIX.size)
    names_at = _PREFIX.size + _FIXED.size
    body_at = names_at + gateway_len + device_len + profile_len + session_bytes + _U32.size
    if body_at + CRC_BYTES > len(data):
        return Refusal(Reason.BAD_LENGTH, "names run past the end")
    (body_len,) = _U32.unpack_from(data, body_at - _U32.size)
    if body_at + body_len + CRC_BYTES != len(data):
        return Refusal(Reason.BAD_LENGTH, f"body says {body_len}, frame holds {len(data) - body_at - CRC_BYTES}")
    if quality not in ClockQuality._value2member_map_:
        return Refusal(Reason.BAD_VALUE, f"clock quality {quality}")
    names = data[names_at : body_at - _U32.size - session_bytes]
    if not names.isascii():
        return Refusal(Reason.BAD_ID, "a name is not ASCII")
    text = names.decode("ascii")
    gateway, device, profile = text[:gateway_len], text[gateway_len : gateway_len + device_len], text[gateway_len + device_len :]
    if not is_gateway_id(gateway) or (device and not is_device_id(device)) or (profile and not is_device_id(profile)):
        return Refusal(Reason.BAD_ID, "gateway, device or profile")
    head = FrameHead(
        identity=Identity(GatewayId(gateway), top.stream, top.seq),
        kind=Kind(top.kind),
        stamp=Stamp(boot, monotonic_ms, wall_ms, ClockQuality(quality)),
        device=DeviceId(device) if device else None,
        profile=profile,
        profile_version=profile_version,
        session=data[body_at - _U32.size - session_bytes : body_at - _U32.size],
    )
    return Frame(head, data[body_at : body_at + body_len])
