"""The rules of sending, without a network: who goes first, how many, what goes again and when."""

import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.outbox import Record
from edge.uplink.window import PROBE_RECORDS, Flow, TokenBucket, UplinkLimits, Window
from protocol.frame import Identity, Kind
from protocol.receipt import GAPS_MAX, Gap, Receipt
from protocol.topics import Lane
from protocol.units import GatewayId

GATEWAY = GatewayId("gw-1")
STREAMS = {Lane.METERING: 100, Lane.ALARM: 200, Lane.TELEMETRY: 300}


def record(seq: int, *, lane: Lane = Lane.TELEMETRY, last: int | None = None) -> Record:
    return Record(seq, lane, Identity(GATEWAY, STREAMS[lane], seq), last or seq, Kind.BLOCK, b"x")


def make_window(*, window: int = 16, unreceipted_max: int = 1024) -> Window:
    one = Window(UplinkLimits(window, unreceipted_max, backlog_per_s=1e9, backlog_burst=1e9))
    one.connected(receive_maximum=100, session_present=True, newest_id=0)
    one.rewound.clear()
    return one


def send(window: Window, flow: Flow, *seqs: int, now_s: float = 0.0, ack: bool = True) -> None:
    for seq in seqs:
        one = record(seq, lane=flow.lane)
        assert window.wants(flow, one), seq
        window.published(flow, one, mid=1000 * flow + seq)
        if ack:
            assert window.acknowledged(1000 * flow + seq, now_s)


def receipt(up_to: int, *, gaps: Iterable[tuple[int, int]] = (), seen: int = 0) -> Receipt:
    return Receipt(STREAMS[Lane.TELEMETRY], up_to, gaps=tuple(Gap(*gap) for gap in gaps), seen=seen)


def test_the_window_is_never_wider_than_ours_or_the_brokers():
    window = make_window(window=16)
    assert window.slots(Flow.METERING, 0) == 16
    window.connected(receive_maximum=10, session_present=True, newest_id=0)
    assert window.slots(Flow.METERING, 0) == 10

    send(window, Flow.METERING, *range(1, 11), ack=False)

    assert window.slots(Flow.METERING, 0) == 0
    window.acknowledged(1, 0)
    assert window.slots(Flow.METERING, 0) == 1
    window.disconnected()
    assert window.slots(Flow.METERING, 0) == 0


def test_history_leaves_a_quarter_of_the_window_to_the_rest():
    window = make_window()
    window.connected(receive_maximum=100, session_present=True, newest_id=500)

    send(window, Flow.BACKLOG, *range(1, 13), ack=False)

    assert window.slots(Flow.BACKLOG, 0) == 0
    assert window.slots(Flow.LIVE, 0) == 4


def test_facts_find_room_when_telemetry_waits_for_its_receipts():
    window = make_window(unreceipted_max=80)
    window.connected(receive_maximum=100, session_present=True, newest_id=500)

    send(window, Flow.BACKLOG, *range(1, 71))
    assert window.slots(Flow.BACKLOG, 0) == 0
    send(window, Flow.LIVE, *range(501, 506))

    assert window.slots(Flow.LIVE, 0) == 0
    assert window.slots(Flow.METERING, 0) == 5


def test_history_goes_through_the_token_bucket():
    bucket = TokenBucket(10, 5)

    assert bucket.available(100.0) == 5
    for _ in range(5):
        bucket.take()
    assert bucket.available(100.0) == 0
    assert bucket.available(100.4) == 4
    assert bucket.available(1000.0) == 5


def test_what_is_newer_than_the_connection_is_live_and_the_rest_is_history():
    window = make_window()
    window.connected(receive_maximum=100, session_present=True, newest_id=7)

    assert window.wants(Flow.BACKLOG, record(7))
    assert not window.wants(Flow.BACKLOG, record(8))
    assert window.wants(Flow.LIVE, record(8))
    assert window.cursors == {Flow.METERING: 0, Flow.ALARM: 0, Flow.BACKLOG: 0, Flow.LIVE: 7}


def test_a_record_on_its_way_is_not_sent_twice():
    window = make_window()
    send(window, Flow.LIVE, 1)

    assert not window.wants(Flow.LIVE, record(1))


def test_after_a_connection_what_was_not_acknowledged_goes_again_and_the_rest_waits():
    window = make_window()
    send(window, Flow.LIVE, 1, 2)
    send(window, Flow.LIVE, 3, ack=False)

    window.disconnected()
    window.connected(receive_maximum=100, session_present=True, newest_id=3)

    assert [seq for seq in (1, 2, 3) if window.wants(Flow.BACKLOG, record(seq))] == [3]


def test_a_broker_that_forgot_the_session_gets_everything_again():
    window = make_window()
    send(window, Flow.LIVE, 1, 2, 3)

    window.disconnected()
    window.connected(receive_maximum=100, session_present=False, newest_id=3)

    assert [seq for seq in (1, 2, 3) if window.wants(Flow.BACKLOG, record(seq))] == [1, 2, 3]


def test_a_puback_of_an_older_connection_is_nothing():
    window = make_window()
    send(window, Flow.LIVE, 1, ack=False)
    window.connected(receive_maximum=100, session_present=True, newest_id=1)

    assert not window.acknowledged(1000 * Flow.LIVE + 1, 0)


def test_a_receipt_confirms_what_lies_outside_the_gaps_and_sends_again_what_was_overtaken():
    window = make_window()
    send(window, Flow.LIVE, 1, 2, 3, 4, 5)
    window.cursors[Flow.LIVE] = 5

    assert window.receipt(Lane.TELEMETRY, receipt(1, gaps=[(2, 3)], seen=4), 0) == 2

    assert [seq for seq in range(2, 6) if window.wants(Flow.LIVE, record(seq))] == [2, 3]
    assert window.unreceipted == 1
    assert window.cursors[Flow.LIVE] == 1
    assert window.rewound == {Flow.LIVE}


def test_a_gap_of_records_that_were_never_sent_sends_nothing_again():
    window = make_window()
    window.connected(receive_maximum=100, session_present=True, newest_id=1000)
    send(window, Flow.LIVE, 1001, 1002)
    window.rewound.clear()

    window.receipt(Lane.TELEMETRY, receipt(0, gaps=[(1, 1000)], seen=1002), 0)

    assert window.rewound == set()
    assert window.unreceipted == 0
    assert not window.wants(Flow.LIVE, record(1001))


def test_a_full_list_of_gaps_says_nothing_of_what_lies_behind_it():
    window = make_window()
    send(window, Flow.LIVE, 1, 500)
    gaps = [(2 * n, 2 * n) for n in range(1, GAPS_MAX + 1)]

    window.receipt(Lane.TELEMETRY, receipt(1, gaps=gaps, seen=500), 0)

    assert window.unreceipted == 1


def test_thirty_quiet_seconds_send_everything_acknowledged_again():
    window = make_window()
    send(window, Flow.LIVE, 1, 2, now_s=100.0)
    send(window, Flow.LIVE, 3, ack=False)

    assert window.overdue(129.9) == 0
    assert window.overdue(130.0) == 2
    assert [seq for seq in (1, 2, 3) if window.wants(Flow.LIVE, record(seq))] == [1, 2]


def test_progress_starts_the_thirty_seconds_again():
    window = make_window()
    send(window, Flow.LIVE, 1, 2, now_s=0.0)
    window.receipt(Lane.TELEMETRY, receipt(1, seen=1), 29.0)

    assert window.overdue(58.9) == 0
    assert window.overdue(59.0) == 1


def test_a_silent_cloud_gets_a_few_records_less_and_less_often():
    window = make_window()
    send(window, Flow.LIVE, *range(1, 101), now_s=0.0)
    again = []
    for second in range(7200):
        count = window.overdue(float(second))
        if count:
            again.append((second, count))
            wanted = [seq for seq in range(1, 101) if window.wants(Flow.LIVE, record(seq))]
            send(window, Flow.LIVE, *wanted, now_s=float(second))

    assert again[0] == (30, 100)
    assert {count for _, count in again[1:]} == {PROBE_RECORDS}
    assert len(again) < 20


def test_a_tombstone_is_confirmed_only_as_a_whole():
    window = make_window()
    one = record(5, last=9)
    window.published(Flow.LIVE, one, 1)
    window.acknowledged(1, 0)

    assert window.receipt(Lane.TELEMETRY, receipt(7, seen=7), 0) == 0
    assert window.receipt(Lane.TELEMETRY, receipt(9, seen=9), 0) == 1


def test_what_was_refused_goes_again():
    window = make_window()
    send(window, Flow.METERING, 1, ack=False)

    sent = window.refused(1)

    assert sent is not None
    assert sent.lane == Lane.METERING
    assert window.wants(Flow.METERING, record(1, lane=Lane.METERING))
    assert window.in_flight == 0


def test_after_a_fork_everything_of_the_lane_is_read_anew():
    window = make_window()
    send(window, Flow.METERING, 1, 2)

    window.forked(Lane.METERING, 0)

    assert window.unreceipted == 0
    assert Flow.METERING in window.rewound
    assert window.cursors[Flow.METERING] == 0


def test_what_is_remembered_of_sent_records_goes_with_their_receipt():
    window = make_window()
    for seq in range(1, 2001):
        send(window, Flow.LIVE, seq)
        window.receipt(Lane.TELEMETRY, receipt(seq, seen=seq), 0)

    assert (len(window._confirmed), len(window._published), window.unreceipted) == (0, 0, 0)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_every_record_is_committed_whatever_is_lost_on_the_way(seed):  # noqa: C901, PLR0912 - one small world in one place
    """A cloud that loses, a broker that forgets, connections that end: after quiet, every number is receipted."""
    rng = random.Random(seed)
    window = make_window(unreceipted_max=40)
    stored, committed = dict.fromkeys(range(1, 61)), set[int]()
    wire, now_s, mids = list[int](), 0.0, 0
    for step in range(4000):
        now_s += 1.0
        calm = step > 1500
        for flow in (Flow.LIVE, Flow.BACKLOG):
            for seq in [seq for seq in stored if seq > window.cursors[flow]]:
                window.cursors[flow] = seq
                if not window.wants(flow, record(seq)):
                    continue
                if not window.slots(flow, now_s):
                    window.cursors[flow] = seq - 1
                    break
                mids += 1
                window.published(flow, record(seq), mids)
                if calm or rng.random() < 0.9:
                    window.acknowledged(mids, now_s)
                    wire.append(seq)
        if not calm and rng.random() < 0.05:
            wire = wire if rng.random() < 0.5 else []
            window.disconnected()
            window.connected(receive_maximum=20, session_present=rng.random() < 0.5, newest_id=max(stored, default=0))
        for seq in wire[: rng.randrange(6) if not calm else 6]:
            if calm or rng.random() < 0.8:
                committed.add(seq)
        wire = wire[6:]
        if committed and (calm or rng.random() < 0.5):
            up_to = next(n for n in range(1, 63) if n not in committed) - 1
            seen = max(committed)
            missing = [(n, n) for n in range(up_to + 1, seen) if n not in committed]
            window.receipt(Lane.TELEMETRY, receipt(up_to, gaps=missing, seen=seen), now_s)
            for seq in [seq for seq in stored if seq <= up_to]:
                del stored[seq]
        if calm:
            window.overdue(now_s)
        if not stored:
            break

    assert not stored, f"never receipted: {sorted(stored)}"
    assert window.in_flight <= 16
