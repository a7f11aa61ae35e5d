import random

import pytest

from ingest import schema
from ingest.apply import apply_batch, read_nothing
from ingest.arrivals import Incoming
from ingest.intake import Outcome
from ingest.positions import GAPS_STORED_MAX
from ingest.store import Store
from protocol import block, frame, state
from protocol.facts import AlarmRaised, Audit
from protocol.refusal import Reason
from protocol.state import Live, Presence
from protocol.topics import Lane
from tests.ingest.applying import PROFILES, apply_in, kinds, receipt, receipt_of, rows_in
from tests.ingest.conftest import REVOKED_GATEWAY
from tests.ingest.frames import PROFILE, START_MS, Gateway, flipped, rows_of, sha256, with_version


def bad_messages() -> dict[str, tuple[Incoming, Reason]]:
    gateway, other = Gateway(), Gateway("gw-test-2")
    message = gateway.block()
    topic = message.topic
    return {
        "flipped bit": (flipped(message, 1234), Reason.BAD_CHECKSUM),
        "noise": (Incoming(topic, random.Random(1).randbytes(10_000_000), 5), Reason.TOO_LONG),
        "little noise": (Incoming(topic, random.Random(1).randbytes(1000), 5), Reason.BAD_MAGIC),
        "empty": (Incoming(topic, b"", 5), Reason.TOO_SHORT),
        "foreign gateway": (Incoming(topic, other.block().payload, 5), Reason.FOREIGN_GATEWAY),
        "unknown gateway": (Gateway("gw-nobody").block(), Reason.UNKNOWN_GATEWAY),
        "revoked gateway": (Gateway(REVOKED_GATEWAY).block(), Reason.REVOKED_GATEWAY),
        "wrong lane": (Incoming(gateway.topic(Lane.METERING), message.payload, 5), Reason.WRONG_LANE),
        "number zero": (gateway.block(seq=0), Reason.BAD_VALUE),
        "no topic of ours": (Incoming("icecap/v1/p00/gw-test-1/zz\x00", message.payload, 5), Reason.BAD_TOPIC),
        "wrong partition": (Incoming("icecap/v1/p99/gw-test-1/t", message.payload, 5), Reason.BAD_TOPIC),
        "no json": (gateway.state(b"{"), Reason.BAD_JSON),
        "presence of a silly boot": (gateway.state(state.encode(Presence(True, 2**64))), Reason.BAD_VALUE),
        "version text with a line end": (gateway.state(state.encode(Presence(True, 1, "1\n2"))), Reason.BAD_VALUE),
        "live of no device": (gateway.state(state.encode(Live("../x", PROFILE.id, START_MS, {}))), Reason.BAD_ID),
        "live of no channel": (gateway.state(state.encode(Live("cooler-0001", PROFILE.id, START_MS, {"x y=1": 1}))), Reason.BAD_VALUE),
        "live of no profile": (gateway.state(state.encode(Live("cooler-0001", "nothing", START_MS, {}))), Reason.BAD_VALUE),
        "live of the far future": (gateway.state(state.encode(Live("cooler-0001", PROFILE.id, 2**62, {}))), Reason.BAD_VALUE),
    }


@pytest.mark.parametrize("name", list(bad_messages()))
def test_what_cannot_be_trusted_is_refused_by_name_and_the_next_good_block_flows(store: Store, name: str) -> None:
    bad, reason = bad_messages()[name]
    good = Gateway().block()

    applied = apply_in(store, bad, good)

    assert applied.outcomes == (Outcome.REFUSED, Outcome.STORED)
    assert dict(applied.refusals) == {reason: 1}
    assert receipt_of(applied) == receipt(1)  # only the good one is receipted
    (letter,) = rows_in(store, schema.dead_letter)
    assert (letter.reason, letter.size, letter.sha256) == (reason, len(bad.payload), sha256(bad))
    assert letter.data == bad.payload[: schema.DEAD_LETTER_BYTES_MAX]
    assert "\x00" not in letter.topic


def unreadable_messages() -> dict[str, tuple[Incoming, Reason]]:
    gateway = Gateway()
    good = gateway.block()
    head = gateway.head(Lane.TELEMETRY, frame.Kind.BLOCK, seq=1, device="cooler-0001")
    fact_head = gateway.head(Lane.METERING, frame.Kind.FACT, seq=1)
    nul = b"\xa3avacfact\x00"
    return {
        "a version of the future": (with_version(good, 2), Reason.UNKNOWN_VERSION),
        "a codec of the future": (gateway.incoming(Lane.TELEMETRY, frame.encode(head, b"\x09" + bytes(40))), Reason.UNKNOWN_CODEC),
        "columns that lie": (
            gateway.incoming(Lane.TELEMETRY, frame.encode(head, bytes([1, 0]) + bytes(8) + b"\x04\0\0\0abcd")),
            Reason.BAD_COLUMNS,
        ),
        "a fact that is none": (gateway.incoming(Lane.METERING, frame.encode(fact_head, nul)), Reason.BAD_CBOR),
        "a tombstone of other numbers": (
            gateway.incoming(
                Lane.TELEMETRY,
                frame.encode(
                    gateway.head(Lane.TELEMETRY, frame.Kind.TOMBSTONE, seq=1), b"\x05" + bytes(7) + b"\x06" + bytes(7) + b"\x01" + bytes(4)
                ),
            ),
            Reason.BAD_VALUE,
        ),
    }


@pytest.mark.parametrize("name", list(unreadable_messages()))
def test_an_intact_frame_that_cannot_be_read_is_parked_and_accounted_for(store: Store, name: str) -> None:
    message, reason = unreadable_messages()[name]

    applied = apply_in(store, message)
    again = apply_in(store, message)

    assert applied.outcomes == again.outcomes == (Outcome.PARKED,)
    assert receipt_of(applied).up_to == 1
    (row,) = rows_in(store, schema.parked)
    assert (row.reason, row.data) == (reason, message.payload)
    (letter,) = rows_in(store, schema.dead_letter)
    assert (letter.reason, letter.data, letter.times) == (reason, None, 2)


def test_every_single_bit_flip_of_a_frame_is_refused(store: Store) -> None:
    message = Gateway().block(rows=rows_of(1, 2))
    flips = [flipped(message, bit) for bit in range(0, 8 * len(message.payload), 3)]

    applied = apply_in(store, *flips)

    assert set(applied.outcomes) == {Outcome.REFUSED}
    assert rows_in(store, schema.block) == rows_in(store, schema.stream) == []
    assert set(applied.refusals) <= {Reason.BAD_CHECKSUM, Reason.BAD_MAGIC}


def test_a_stream_may_not_change_its_lane(store: Store) -> None:
    honest = Gateway()
    apply_in(store, honest.fact())
    liar = Gateway(streams={Lane.METERING: 11, Lane.ALARM: 12, Lane.TELEMETRY: 11})

    applied = apply_in(store, liar.fact(lane=Lane.ALARM))

    assert applied.outcomes == (Outcome.REFUSED,)
    assert dict(applied.refusals) == {Reason.WRONG_LANE: 1}
    assert applied.receipts == ()


def test_gaps_without_end_are_refused_not_stored(store: Store) -> None:
    gateway = Gateway()
    rows = rows_of(1, 1)
    messages = [gateway.block(rows=rows, seq=seq) for seq in range(2, 2 * GAPS_STORED_MAX + 20, 2)]

    applied = apply_in(store, *messages)

    assert applied.outcomes.count(Outcome.STORED) == GAPS_STORED_MAX
    assert dict(applied.refusals) == {Reason.BAD_VALUE: 9}
    assert len(rows_in(store, schema.gap)) == GAPS_STORED_MAX


def test_gateways_that_may_not_send_are_told_once_a_day(store: Store) -> None:
    gateway = Gateway(REVOKED_GATEWAY)

    apply_in(store, gateway.block(), gateway.block())
    apply_in(store, gateway.block())

    assert kinds(store) == ["revoked_gateway"]
    assert len(rows_in(store, schema.dead_letter)) == 3


def test_a_block_of_an_unknown_profile_is_stored_and_told(store: Store) -> None:
    gateway = Gateway()
    message = gateway.block(
        rows=block.Rows(
            *(
                getattr(rows_of(1, 3), name) if name not in {"codes", "quality"} else getattr(rows_of(1, 3), name)[:, :2]
                for name in block.Rows.__slots__
            )
        )
    )

    applied = apply_in(store, message)

    assert applied.outcomes == (Outcome.STORED,)
    assert kinds(store) == ["unknown_profile"]
    assert rows_in(store, schema.last_value) == []
    assert rows_in(store, schema.device_seen)[0].rows == 3


def test_text_that_a_sender_chose_reaches_no_column_that_names_things(store: Store) -> None:
    fact = AlarmRaised("x" * 3000, "rule\x00", 1, "critical")

    applied = apply_in(store, Gateway().fact(fact, lane=Lane.ALARM), Gateway().fact(Audit("e\x00v", {"n": 1})))

    assert applied.outcomes == (Outcome.STORED, Outcome.STORED)
    assert {row.device for row in rows_in(store, schema.fact)} == {""}


def test_what_reading_choked_on_is_parked_without_looking_again(store: Store) -> None:
    message = Gateway().block()

    with store.transaction() as connection:
        applied = apply_batch(connection, [message, Gateway("gw-nobody").block()], profiles=PROFILES, now_ms=1, reader=read_nothing)

    assert applied.outcomes == (Outcome.PARKED, Outcome.REFUSED)
    assert dict(applied.refusals) == {Reason.INTERNAL: 2}
    assert receipt_of(applied).up_to == 1
    assert rows_in(store, schema.parked)[0].data == message.payload
