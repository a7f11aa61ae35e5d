"""The envelope: what is encoded comes back, what is damaged is refused by name, and the places shared by all versions keep still."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from native import crc32c
from protocol import frame
from protocol.clock import ClockQuality
from protocol.frame import FRAME_BYTES_MAX, Frame, FrameHead, Identity, Kind
from protocol.reading import Stamp
from protocol.refusal import Reason, Refusal
from protocol.units import DeviceId, GatewayId

gateways = st.from_regex(r"gw-[a-z0-9-]{1,29}", fullmatch=True).map(GatewayId)
devices = st.from_regex(r"[a-z0-9][a-z0-9-]{2,31}", fullmatch=True).map(DeviceId)
u63 = st.integers(0, 2**63 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
heads = st.builds(
    FrameHead,
    identity=st.builds(Identity, gateway=gateways, stream=u63, seq=u63),
    kind=st.sampled_from(Kind),
    stamp=st.builds(Stamp, boot=st.integers(0, 2**64 - 1), monotonic_ms=i64, wall_ms=i64, quality=st.sampled_from(ClockQuality)),
    device=st.none() | devices,
    profile=st.just("") | devices,
    profile_version=st.integers(0, 65535),
    session=st.just(b"") | st.binary(min_size=16, max_size=16),
)
HEAD = FrameHead(
    identity=Identity(GatewayId("gw-demo-1"), 7, 1),
    kind=Kind.BLOCK,
    stamp=Stamp(11, 22, 33, ClockQuality.SYNCED),
    device=DeviceId("cooler-0001"),
    profile="icecap-cooler",
    profile_version=1,
    session=bytes(range(16)),
)


def resealed(data: bytes) -> bytes:
    """The same bytes with a checksum that fits them: an attacker can compute one too."""
    return data[:-4] + struct.pack("<I", crc32c.crc32c(data[:-4]))


def reason(data: bytes) -> Reason:
    """The reason for which ``data`` is refused; fails when it is accepted."""
    answer = frame.decode(data)
    assert isinstance(answer, Refusal), answer
    return answer.reason


@given(heads, st.binary(max_size=300))
def test_every_frame_comes_back_as_it_went(head, body):
    assert frame.decode(frame.encode(head, body)) == Frame(head, body)


def test_each_single_bit_flip_is_refused():
    data = frame.encode(HEAD, b"payload")

    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert isinstance(frame.decode(bytes(damaged)), Refusal), bit


def test_each_truncation_is_refused():
    data = frame.encode(HEAD, b"payload")

    for length in range(len(data)):
        assert isinstance(frame.decode(data[:length]), Refusal)
        assert isinstance(frame.decode(resealed(data[:length])) if length > 4 else Refusal(Reason.TOO_SHORT), Refusal)


@given(st.binary(max_size=400))
def test_noise_is_refused_and_never_raises(noise):
    assert isinstance(frame.decode(noise), Refusal)
    assert isinstance(frame.decode(resealed(frame.MAGIC + b"\x01\x01\x00\x00" + noise + bytes(4))), Refusal | Frame)


def test_ten_megabytes_of_noise_are_refused_for_their_size():
    assert reason(bytes(10_000_000)) is Reason.TOO_LONG


def test_a_damaged_version_is_damage_and_a_sealed_one_is_from_the_future():
    data = bytearray(frame.encode(HEAD, b""))
    data[4] = 9

    assert reason(bytes(data)) is Reason.BAD_CHECKSUM
    assert reason(resealed(bytes(data))) is Reason.UNKNOWN_VERSION


def test_an_unknown_version_still_shows_its_identity():
    data = bytearray(frame.encode(HEAD, b""))
    data[4] = 2

    top = frame.peek(resealed(bytes(data)))

    assert not isinstance(top, Refusal)
    assert (top.version, top.stream, top.seq) == (2, 7, 1)


@pytest.mark.parametrize(
    ("offset", "value", "expected"),
    [
        (0, b"JSON", Reason.BAD_MAGIC),
        (5, b"\x09", Reason.UNKNOWN_KIND),
        (6, b"\x80\x00", Reason.UNKNOWN_FLAGS),
        (8, b"\xff" * 8, Reason.BAD_VALUE),
        (48, b"\x07", Reason.BAD_VALUE),
        (49, b"\xff", Reason.BAD_LENGTH),
        (54, b"GW", Reason.BAD_ID),
        (54, b"\xc3\xa4", Reason.BAD_ID),
    ],
)
def test_a_sealed_lie_is_refused_by_name(offset, value, expected):
    data = bytearray(frame.encode(HEAD, b"body"))
    data[offset : offset + len(value)] = value

    assert reason(resealed(bytes(data))) is expected


def test_bytes_after_the_body_are_refused():
    data = frame.encode(HEAD, b"body")

    assert reason(resealed(data[:-4] + b"x" + data[-4:])) is Reason.BAD_LENGTH


def test_a_frame_over_the_limit_is_a_bug_of_ours():
    with pytest.raises(ValueError, match="over"):
        frame.encode(HEAD, bytes(FRAME_BYTES_MAX))


@pytest.mark.parametrize("name", ["gw-", "GW-1", "gw-a/b", "gw-+", "gw-é", "gw-" + "a" * 30])
def test_no_name_that_could_reach_another_topic_is_encoded(name):
    with pytest.raises((ValueError, UnicodeEncodeError)):
        frame.encode(FrameHead(Identity(GatewayId(name), 1, 1), Kind.FACT, HEAD.stamp), b"")
