"""Facts: one spelling each, chained, refused when anything is off."""

import typing

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import facts
from protocol.facts import CHAIN_START, Audit, ClockStepped, ConfigurationApplied, Fact, FactRecord, SessionEvent
from protocol.refusal import Reason, Refusal

RECORD = FactRecord(SessionEvent(session=bytes(16), what="cooling_on", at_ms=5), CHAIN_START)
any_audit = st.builds(Audit, event=st.text(max_size=20), detail=st.dictionaries(st.text(max_size=9), st.integers(-(2**63), 2**63 - 1)))
any_fact = st.one_of(any_audit, *(st.from_type(kind) for kind in typing.get_args(Fact) if kind is not Audit))


def reason(data: bytes) -> Reason:
    """The reason for which ``data`` is refused; fails when it is accepted."""
    answer = facts.decode(data)
    assert isinstance(answer, Refusal), answer
    return answer.reason


@given(any_fact, st.binary(min_size=32, max_size=32))
def test_every_fact_comes_back_as_it_went(fact, previous):
    record = FactRecord(fact, previous)
    try:
        data = facts.encode(record)
    except (ValueError, OverflowError, UnicodeEncodeError):
        return  # over the size limit, or a lone surrogate: refused on our side of the wire

    assert facts.decode(data) == record


@given(st.binary(max_size=120))
def test_noise_never_raises(noise):
    assert isinstance(facts.decode(noise), Refusal | FactRecord)


def test_each_single_bit_flip_reads_as_another_fact_or_is_refused_but_never_as_this_one():
    data = facts.encode(RECORD)

    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        answer = facts.decode(bytes(damaged))
        assert answer != RECORD
        assert isinstance(answer, Refusal) or facts.encode(answer) == bytes(damaged)


def test_another_spelling_of_the_same_fact_is_refused():
    document = cbor2.loads(facts.encode(RECORD))
    reordered = cbor2.dumps(dict(reversed(document.items())))
    long_header = facts.encode(RECORD).replace(b"av\x01", b"av\x18\x01")

    assert reason(reordered) is Reason.NOT_CANONICAL
    assert reason(long_header) is Reason.NOT_CANONICAL
    assert reason(facts.encode(RECORD) + b"\x00") in {Reason.NOT_CANONICAL, Reason.BAD_CBOR}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], Reason.BAD_FACT),
        ({"v": 2, "prev": CHAIN_START, "fact": {}}, Reason.UNKNOWN_VERSION),
        ({"v": 1, "prev": b"short", "fact": {}}, Reason.BAD_FACT),
        ({"v": 1, "prev": CHAIN_START, "fact": {"kind": "stop_cooling"}}, Reason.BAD_FACT),
        ({"v": 1, "prev": CHAIN_START, "fact": {"kind": "audit", "event": "x", "patient": "y"}}, Reason.BAD_FACT),
        ({"v": 1, "prev": CHAIN_START, "fact": {"kind": "clock_stepped", "step_ms": 1.5, "quality": 0}}, Reason.BAD_FACT),
        ({"v": 1, "prev": CHAIN_START, "fact": {"kind": "clock_stepped", "step_ms": "1", "quality": 0}}, Reason.BAD_FACT),
    ],
)
def test_a_wrong_shape_is_refused_by_name(document, expected):
    assert reason(cbor2.dumps(document, canonical=True)) is expected


@pytest.mark.parametrize("data", [b"\xc4\x82\x01\x02", b"\xd8\x23cabc", b"\xbb" + b"\xff" * 8, b"\x81" * 3000, b"\x5b" + b"\x7f" * 8])
def test_hostile_cbor_is_refused(data):
    assert isinstance(facts.decode(data), Refusal)


def test_the_chain_binds_each_fact_to_the_one_before():
    first = facts.encode(FactRecord(Audit("started"), CHAIN_START))
    second = facts.encode(FactRecord(ConfigurationApplied("site", 1, bytes(32)), facts.fact_hash(first)))

    back = facts.decode(second)

    assert isinstance(back, FactRecord)
    assert back.previous == facts.fact_hash(first)
    assert facts.fact_hash(facts.encode(FactRecord(Audit("altered"), CHAIN_START))) != back.previous


def test_an_oversized_fact_is_a_bug_of_ours():
    with pytest.raises(ValueError, match="over"):
        facts.encode(FactRecord(Audit("x" * 5000), CHAIN_START))
    with pytest.raises(ValueError, match="previous hash"):
        facts.encode(FactRecord(ClockStepped(1, 0), b""))
