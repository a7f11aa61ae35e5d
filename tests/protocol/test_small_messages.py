"""Receipts, state messages, tombstones and topics: each comes back as it went, each lie is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import receipt, state, tombstone, topics
from protocol.receipt import GAPS_MAX, Gap, Receipt
from protocol.refusal import Reason, Refusal
from protocol.tombstone import Cause, Tombstone
from protocol.topics import Leaf
from protocol.units import GatewayId

u63 = st.integers(0, 2**63 - 1)


@given(st.builds(Receipt, stream=u63, up_to=u63, wall_ms=u63))
def test_a_receipt_comes_back(one):
    assert receipt.decode(receipt.encode(one)) == one


def test_gaps_come_back_in_order():
    one = Receipt(stream=3, up_to=10, gaps=(Gap(11, 14), Gap(17, 17)), head="ab")

    assert receipt.decode(receipt.encode(one)) == one


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.BAD_JSON),
        (b"\xff", Reason.BAD_JSON),
        (b'{"stream":1,"up_to":-1}', Reason.BAD_VALUE),
        (b'{"stream":1,"up_to":2,"v":2}', Reason.UNKNOWN_VERSION),
        (b'{"stream":1,"up_to":2,"gaps":[{"first":5,"last":4}]}', Reason.BAD_VALUE),
        (b'{"stream":1,"up_to":1e400}', Reason.BAD_JSON),
        (b" " * 9000, Reason.TOO_LONG),
    ],
)
def test_a_wrong_receipt_deletes_nothing(data, reason):
    answer = receipt.decode(data)

    assert isinstance(answer, Refusal)
    assert answer.reason is reason


def test_more_gaps_than_the_bound_are_refused():
    many = Receipt(stream=1, up_to=0, gaps=tuple(Gap(n, n) for n in range(1, GAPS_MAX + 2)))

    assert isinstance(receipt.decode(receipt.encode(many)), Refusal)


def test_state_messages_come_back_and_noise_is_refused():
    for message in (state.Presence(online=True, boot=2**63), state.Live("cooler-0001", "icecap-cooler", 5, {"flow_1": 1810})):
        assert state.decode(state.encode(message)) == message
    assert isinstance(state.decode(b'{"kind":"stop"}'), Refusal)
    assert isinstance(state.decode(b"[" * 20_000), Refusal)


@given(st.integers(1, 2**63 - 2), st.integers(0, 1000), st.sampled_from(Cause), st.integers(0, 2**32 - 1))
def test_a_tombstone_comes_back(first, extra, cause, rows):
    one = Tombstone(first, min(first + extra, 2**63 - 1), cause, rows)

    assert tombstone.decode(tombstone.encode(one)) == one


@given(st.binary(max_size=40))
def test_tombstone_noise_never_raises(noise):
    answer = tombstone.decode(noise)

    assert isinstance(answer, Refusal) or 0 < answer.first <= answer.last


@given(st.from_regex(r"gw-[a-z0-9-]{1,29}", fullmatch=True), st.sampled_from(Leaf))
def test_a_topic_parses_to_what_built_it(name, leaf):
    parsed = topics.parse(topics.build(GatewayId(name), leaf))

    assert parsed == topics.Topic(topics.partition_of(GatewayId(name)), GatewayId(name), leaf)


@pytest.mark.parametrize(
    "text",
    [
        "icecap/v1/p00/gw-a/x",
        "icecap/v2/p00/gw-a/t",
        "icecap/v1/p99/gw-a/t",
        "icecap/v1/+/gw-a/t",
        "icecap/v1/p00/#",
        "icecap/v1/p00/GW-A/t",
        "icecap/v1/p00/gw-a/t/extra",
        "$SYS/broker",
        "",
    ],
)
def test_foreign_topics_are_none_of_ours(text):
    assert topics.parse(text) is None


def test_a_gateway_in_anothers_partition_is_refused():
    right = topics.partition_of(GatewayId("gw-a"))
    wrong = next(name for name in (f"p{n:02d}" for n in range(topics.PARTITIONS)) if name != right)

    assert topics.parse(f"icecap/v1/{wrong}/gw-a/t") is None
