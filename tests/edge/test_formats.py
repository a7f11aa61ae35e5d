"""What coolers send: every believable payload becomes readings, everything else one refusal by name, and nothing ever raises."""

import json
import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.settings import MqttTopic
from edge.sources.formats import format_of
from edge.sources.formats.json_text import DEPTH_MAX, PAYLOAD_BYTES_MAX, parse
from edge.sources.formats.raw_profile import pack
from edge.sources.origin import Origin, Times
from protocol.clock import ClockQuality
from protocol.profile import builtin
from protocol.reading import Reading, Stamp
from protocol.refusal import Reason, Refusal
from protocol.units import DeviceId

PROFILE = builtin("icecap-cooler")
NAMES = [channel.name for channel in PROFILE.channels]
NOW = 1_767_225_600_000
DEVICE = DeviceId("cooler-0001")
JSON = MqttTopic(filter="coolers/+/telemetry")
SENML = MqttTopic(filter="coolers/+/senml", format="senml")
RAW = MqttTopic(filter="coolers/+/raw", format="raw")


def origin(wall_ms: int = NOW, times: Times | None = None) -> Origin:
    times = times or Times(ahead_ms_max=600_000, behind_ms_max=86_400_000)
    return Origin(DEVICE, PROFILE, Stamp(1, 5, wall_ms, ClockQuality.SYNCED), times)


def one(topic: MqttTopic, payload: object) -> Reading:
    found = format_of(topic).decode(payload if isinstance(payload, bytes) else json.dumps(payload).encode(), origin())
    assert isinstance(found, tuple), found
    assert len(found) == 1
    return found[0]


def refusal(topic: MqttTopic, payload: object) -> Refusal:
    found = format_of(topic).decode(payload if isinstance(payload, bytes) else json.dumps(payload).encode(), origin())
    assert isinstance(found, Refusal), found
    return found


def code(reading: Reading, name: str) -> int | None:
    return reading.codes[PROFILE.index(name)]


def test_json_by_channel_names() -> None:
    reading = one(JSON, {"boot": 3, "n": 1042, "t": NOW - 40, "coolant_temp_1": -4.12, "flow_1": 3.05, "state_1": 4, "extra": "x"})

    assert (reading.source_boot, reading.counter, reading.ts_ms) == (3, 1042, NOW - 40)
    assert (code(reading, "coolant_temp_1"), code(reading, "flow_1"), code(reading, "state_1")) == (-412, 305, 4)
    assert code(reading, "cap_temp_1a") is None
    assert reading.stamp.wall_ms == NOW


def test_json_by_mapping_pointer_and_seconds() -> None:
    topic = MqttTopic(
        filter="x/+/y",
        fields={"coolant_temp_1": "/loops/0/coolant", "flow_1": "Flow", "pressure_1": "/a~1b/~0"},
        ts_key="/time/utc",
        ts_unit="s",
        counter_key="/seq",
    )
    payload = {"loops": [{"coolant": -3.5}], "Flow": 2.5, "a/b": {"~": 90.1}, "time": {"utc": NOW / 1000}, "seq": 7, "boot": 1}

    reading = one(topic, payload)

    assert (code(reading, "coolant_temp_1"), code(reading, "flow_1"), code(reading, "pressure_1")) == (-350, 250, 901)
    assert (reading.ts_ms, reading.counter) == (NOW, 7)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"flow_1": NaN}', Reason.BAD_JSON),
        (b'{"flow_1": Infinity}', Reason.BAD_JSON),
        (b'{"flow_1": 1e999}', Reason.BAD_JSON),
        (b'{"flow_1": -1e999}', Reason.BAD_JSON),
        (b'{"flow_1": 1e300}', Reason.BAD_VALUE),
        (b'{"flow_1": ' + b"9" * 400 + b"}", Reason.BAD_VALUE),
        (b'{"flow_1": ' + b"9" * 5000 + b"}", Reason.BAD_JSON),
        (b'{"flow_1": 1, "flow_1": 2}', Reason.BAD_JSON),
        (b'{"flow_1": 1, "x": {"y": 1, "y": 2}}', Reason.BAD_JSON),
        (b'{"flow_1": "3.0"}', Reason.BAD_VALUE),
        (b'{"flow_1": true}', Reason.BAD_VALUE),
        (b'{"flow_1": [1]}', Reason.BAD_VALUE),
        (b'{"flow_1": 1, "n": 1.5}', Reason.BAD_VALUE),
        (b'{"flow_1": 1, "n": -1, "boot": 1}', Reason.BAD_VALUE),
        (b'{"flow_1": 1, "boot": 9223372036854775808}', Reason.BAD_VALUE),
        (b'{"flow_1": 1, "t": "noon"}', Reason.BAD_VALUE),
        (b'{"flow_1": 1, "t": 1e300}', Reason.BAD_VALUE),
        (b'{"flow_1": 1, "t": -5}', Reason.BAD_VALUE),
        (b'{"other": 1}', Reason.BAD_VALUE),
        (b"{}", Reason.BAD_VALUE),
        (b"[1]", Reason.BAD_JSON),
        (b"", Reason.BAD_JSON),
        (b"\xff\xfe", Reason.BAD_JSON),
        (b'{"flow_1": 1} x', Reason.BAD_JSON),
        (b'{"a": "\\ud800", "flow_1": 1}', Reason.BAD_JSON),
        (b"[" * 60_000, Reason.BAD_JSON),
        (b'{"flow_1": ' + b" " * PAYLOAD_BYTES_MAX + b"1}", Reason.TOO_LONG),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_json_that_is_no_sample_is_refused_by_name(payload: bytes, reason: Reason) -> None:
    assert refusal(JSON, payload).reason == reason


def test_depth_counts_brackets_but_not_those_in_texts() -> None:
    nested = b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1)
    text = json.dumps({"flow_1": 1, "x": '[[[[[[[[[[\\"[[['}).encode()

    assert isinstance(parse(nested), Refusal)
    assert parse(nested[1:-1]) is not None
    assert not isinstance(parse(text), Refusal)


def test_a_colon_in_a_text_is_no_doubled_key() -> None:
    assert code(one(JSON, {"flow_1": 1, "note": "a:b::c"}), "flow_1") == 100


def test_null_is_missing_not_zero() -> None:
    reading = one(JSON, {"flow_1": None, "pressure_1": 0})

    assert code(reading, "flow_1") is None
    assert code(reading, "pressure_1") == 0


def test_a_counter_without_a_boot_is_not_taken_for_an_identity() -> None:
    times = Times(ahead_ms_max=1000, behind_ms_max=1000)

    found = format_of(JSON).decode(b'{"flow_1": 1, "n": 5}', origin(times=times))

    assert isinstance(found, tuple)
    assert (found[0].counter, found[0].source_boot) == (None, 0)
    assert times.counts["counter_without_boot"] == 1


def test_a_device_clock_is_believed_within_its_bounds_only() -> None:
    times = Times(ahead_ms_max=1000, behind_ms_max=5000)
    stamp = origin().stamp

    chosen = [times.settle(DEVICE, device_ms, stamp) for device_ms in (NOW + 1000, NOW - 5000, NOW + 1001, NOW - 5001, None, None)]

    assert chosen == [NOW + 1000, NOW - 5000, NOW, NOW + 1, NOW + 2, NOW + 3]
    assert times.counts == {"device_ahead": 1, "device_behind": 1, "no_device_time": 2}


def test_a_gateway_clock_set_back_does_not_pin_the_time_to_the_past_lead() -> None:
    times = Times(ahead_ms_max=1000, behind_ms_max=1000)
    times.settle(DEVICE, None, replace(origin().stamp, wall_ms=NOW + 86_400_000))

    assert times.settle(DEVICE, None, origin().stamp) == NOW


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_given_times_never_meet_while_the_clock_goes_forward(steps: list[int]) -> None:
    times = Times(ahead_ms_max=1000, behind_ms_max=1000)
    wall, given_times = NOW, []
    for step in steps:
        wall += step
        given_times.append(times.settle(DEVICE, None, replace(origin().stamp, wall_ms=wall)))

    assert given_times == sorted(set(given_times))


def test_senml_pack_with_base_fields_units_and_two_times() -> None:
    pack_of_two = [
        {"bn": "urn:dev:cooler-0001:", "bt": NOW / 1000, "bu": "Cel", "n": "coolant_temp_1", "v": -4.12},
        {"n": "cap_temp_1a", "u": "K", "v": 277.15},
        {"n": "flow_1", "u": "l/s", "v": 0.05, "t": 1},
        {"n": "pressure_1", "u": "Pa", "v": 90_100, "t": 1},
        {"n": "urn", "vs": "text"},
    ]

    found = format_of(SENML).decode(json.dumps(pack_of_two).encode(), origin())

    assert isinstance(found, tuple)
    first, second = found
    assert (first.ts_ms, second.ts_ms) == (NOW, NOW + 1000)
    assert (code(first, "coolant_temp_1"), code(first, "cap_temp_1a")) == (-412, 400)
    assert (code(second, "flow_1"), code(second, "pressure_1")) == (300, 901)


def test_senml_base_value_boolean_counter_and_mapped_full_name() -> None:
    topic = MqttTopic(filter="a/+", format="senml", fields={"flow_1": "urn:x:f"})
    records = [
        {"bn": "urn:x:", "bv": 1.5, "bt": NOW / 1000, "n": "f", "v": 0.5},
        {"bv": 0, "bn": "", "n": "n", "v": 12},
        {"n": "boot", "v": 3},
    ]

    reading = one(topic, records)

    assert (code(reading, "flow_1"), reading.counter, reading.source_boot) == (200, 12, 3)
    assert code(one(SENML, [{"n": "state_1", "vb": True}]), "state_1") == 1


def test_senml_without_time_is_stamped_by_the_gateway_and_relative_time_counts_from_arrival() -> None:
    times = Times(ahead_ms_max=1000, behind_ms_max=60_000)
    senml = format_of(SENML)

    arrived = [senml.decode(b'[{"n":"flow_1","v":1}]', origin(times=times)) for _ in range(3)]
    earlier = senml.decode(b'[{"n":"flow_1","v":1,"t":-5}]', origin(times=times))

    assert [found[0].ts_ms for found in arrived if isinstance(found, tuple)] == [NOW, NOW + 1, NOW + 2]
    assert isinstance(earlier, tuple)
    assert earlier[0].ts_ms == NOW - 5000


@pytest.mark.parametrize(
    ("pack_", "reason"),
    [
        ([], Reason.BAD_JSON),
        ({}, Reason.BAD_JSON),
        ([1], Reason.BAD_JSON),
        ([{"n": "flow_1", "v": 1, "u": "Cel"}], Reason.BAD_VALUE),
        ([{"n": "flow_1", "v": "1"}], Reason.BAD_VALUE),
        ([{"n": "flow_1", "v": 1}, {"n": "flow_1", "v": 2}], Reason.BAD_VALUE),
        ([{"n": "flow_1", "v": 1, "vb": True}], Reason.BAD_JSON),
        ([{"n": "flow_1", "v": 1, "later_": 1}], Reason.BAD_JSON),
        ([{"bver": 11, "n": "flow_1", "v": 1}], Reason.UNKNOWN_VERSION),
        ([{"bver": True, "n": "flow_1", "v": 1}], Reason.UNKNOWN_VERSION),
        ([{"n": "flow_1", "v": 1, "t": 1e18}], Reason.BAD_VALUE),
        ([{"n": "flow_1", "v": 1, "t": 10**30}], Reason.BAD_JSON),
        ([{"n": "flow_1", "v": 10**400}], Reason.BAD_VALUE),
        ([{"n": "n", "v": 1.5}, {"n": "flow_1", "v": 1}], Reason.BAD_VALUE),
        ([{"n": "flow_1", "vs": "x"}], Reason.BAD_VALUE),
        ([{"n": 5, "v": 1}], Reason.BAD_JSON),
        ([{"bt": "now", "n": "flow_1", "v": 1}], Reason.BAD_JSON),
        ([{"n": "x"}], Reason.BAD_VALUE),
        ([{"n": "nobody", "v": 1}], Reason.BAD_VALUE),
    ],
    ids=lambda value: json.dumps(value)[:40] if not isinstance(value, Reason) else str(value),
)
def test_senml_that_is_no_sample_is_refused_by_name(pack_: object, reason: Reason) -> None:
    assert refusal(SENML, pack_).reason == reason


CODE_RANGES = {"b": (-127, 127), "B": (0, 255), "h": (-(2**15) + 1, 2**15 - 1), "I": (0, 2**32 - 1)}


@given(st.data(), st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_raw_bytes_come_back_as_the_codes_that_went_in(data: st.DataObject, boot: int, counter: int) -> None:
    codes = tuple(
        data.draw(st.integers(*CODE_RANGES[channel.raw]) | (st.none() if channel.raw.islower() else st.nothing()))
        for channel in PROFILE.channels
    )

    reading = one(RAW, pack(PROFILE, boot=boot, counter=counter, ts_ms=NOW, codes=codes))

    assert (reading.codes, reading.source_boot, reading.counter, reading.ts_ms) == (codes, boot, counter, NOW)


def test_a_raw_device_without_clock_or_boot() -> None:
    codes = tuple(1 for _ in PROFILE.channels)

    reading = one(RAW, pack(PROFILE, boot=0, counter=9, ts_ms=0, codes=codes))

    assert (reading.ts_ms, reading.counter, reading.source_boot) == (NOW, None, 0)


def test_raw_bytes_of_a_wrong_length_or_with_hostile_numbers_are_refused() -> None:
    good = pack(PROFILE, boot=1, counter=1, ts_ms=NOW, codes=tuple(1 for _ in PROFILE.channels))

    assert all(refusal(RAW, good[:size]).reason == Reason.BAD_LENGTH for size in range(len(good)))
    assert refusal(RAW, good + b"\0").reason == Reason.BAD_LENGTH
    assert refusal(RAW, struct.pack("<Q", 2**63) + good[8:]).reason == Reason.BAD_VALUE
    assert refusal(RAW, good[:8] + struct.pack("<Q", 2**64 - 1) + good[16:]).reason == Reason.BAD_VALUE
    assert refusal(RAW, good[:16] + struct.pack("<q", -1) + good[24:]).reason == Reason.BAD_VALUE


def test_a_missing_unsigned_field_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="cannot be missing"):
        pack(PROFILE, boot=1, counter=1, ts_ms=0, codes=(None,) * len(PROFILE.channels))


FINITE = st.floats(-1e6, 1e6).map(lambda value: round(value, 2))


@given(st.dictionaries(st.sampled_from(NAMES), FINITE, min_size=1))
def test_json_decimals_come_back_exactly(values: dict[str, float]) -> None:
    reading = one(JSON, values)

    for name, value in values.items():
        channel = PROFILE.channels[PROFILE.index(name)]
        assert code(reading, name) == round(value * 10**channel.decimals)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from([10**400, -(10**400), 1e308, math.inf]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["n", "t", "v", "u", "bn", "bt", "bv", "bu", "boot", "flow_1", "vb", "x"]), inner, max_size=6)
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(JSON_VALUES, st.sampled_from([JSON, SENML]))
def test_any_document_is_readings_or_one_refusal(document: object, topic: MqttTopic) -> None:
    found = format_of(topic).decode(json.dumps(document).encode(), origin())

    assert isinstance(found, Refusal) or (found and all(isinstance(reading, Reading) for reading in found))


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([JSON, SENML, RAW]))
def test_any_bytes_are_readings_or_one_refusal(payload: bytes, topic: MqttTopic) -> None:
    found = format_of(topic).decode(payload, origin())

    assert isinstance(found, (Refusal, tuple))


@given(st.data())
def test_a_flipped_byte_in_a_good_payload_never_raises(data: st.DataObject) -> None:
    payload = bytearray(json.dumps([{"bn": "a", "bt": NOW / 1000, "n": "flow_1", "u": "l/min", "v": 1.25, "t": 0}]).encode())
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))

    for topic in (JSON, SENML):
        assert isinstance(format_of(topic).decode(bytes(payload), origin()), (Refusal, tuple))
