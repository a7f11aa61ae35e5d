"""Window: what may be sent now, what is on its way, and what must be sent again. Not the sending; no I/O and no clock of its own.

    store ──▶ published ──PUBACK──▶ acknowledged ──receipt──▶ gone
                 │ connection ends       │ 30 s without progress, a later record receipted, the broker's session gone
                 └──────── again ◀───────┘

Invariant: at most ``window`` records are inside the MQTT library and at most ``unreceipted_max`` are unreceipted; a record is skipped only
while it is on its way or the cloud has said that it has it.
"""

from dataclasses import dataclass
from enum import IntEnum

from edge.outbox import Record
from protocol.receipt import GAPS_MAX, Receipt
from protocol.topics import Lane

__all__ = ["WINDOW_MAX", "Flow", "Sent", "TokenBucket", "UplinkLimits", "Window"]

WINDOW_MAX = 16  # records inside the library; one link round trip of 100 ms then carries 160 a second, a month in an hour
RESEND_S = 30.0  # without receipt progress (decided with the cloud); doubles while the cloud says nothing at all
RESEND_CEILING_S = 480.0  # an ingest that is down for a night must not find the same records in its queue a thousand times
PROBE_RECORDS = 16  # sent again while the cloud is silent: enough to be heard, too little to fill a broker


class Flow(IntEnum):
    """What is sent, most urgent first. The telemetry lane is two flows: what was sealed since the connection, and what waited."""

    METERING = 0
    ALARM = 1
    LIVE = 2
    BACKLOG = 3

    @property
    def lane(self) -> Lane:
        """The lane that the flow reads."""
        return (Lane.METERING, Lane.ALARM, Lane.TELEMETRY, Lane.TELEMETRY)[self]


@dataclass(frozen=True, slots=True)
class UplinkLimits:
    """Bounds. ``backlog_per_s`` and ``backlog_burst`` are the token bucket of the backlog, in records; seconds are real."""

    window: int = WINDOW_MAX
    unreceipted_max: int = 1024
    backlog_per_s: float = 100.0  # 750 times real time for eight coolers, a tenth of what one ingest worker takes
    backlog_burst: float = 100.0
    resend_s: float = RESEND_S
    start_delay_s: float = 2.0  # at most, drawn at random: a street whose power returns does not connect in one instant


@dataclass(frozen=True, slots=True)
class Place:
    """Which numbers a record accounts for."""

    stream: int
    first: int
    last: int


@dataclass(slots=True)
class Sent:
    """A record on its way. ``order`` counts publications; ``again`` is true from the second on."""

    id: int
    lane: Lane
    place: Place
    order: int
    again: bool
    acked: bool = False


class TokenBucket:
    """Lets ``per_s`` through a second and ``burst`` at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens, self._at_s = burst, 0.0

    def available(self, now_s: float) -> int:
        """Whole tokens now."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return int(self._tokens)

    def take(self) -> None:
        """Use one."""
        self._tokens -= 1


@dataclass(slots=True)
class _Progress:
    """What the cloud's words and its silence say of one lane; times are the Timer's."""

    wait_s: float
    quiet_since_s: float = 0.0
    heard_s: float = float("-inf")
    resent_s: float = float("-inf")
    waiting: int = 0
    confirmed_order: int = 0


class Window:
    """The state of sending; lives as long as the process, across connections.

    ``cursors`` are the ids up to which each flow was read, ``rewound`` the flows whose cursor went back (whoever reads clears it),
    ``boundary`` the newest telemetry record when the connection began: what is newer is live.
    """

    def __init__(self, limits: UplinkLimits) -> None:
        self.limits = limits
        self.cursors: dict[Flow, int] = dict.fromkeys(Flow, 0)
        self.boundary = 0
        self.resent = 0
        self.rewound: set[Flow] = set()
        self._size = 0
        self._order = 0
        self._sent: dict[int, Sent] = {}
        self._in_flight: dict[int, tuple[int, Flow]] = {}
        self._backlog_in_flight = 0
        self._confirmed: dict[int, Place] = {}
        self._published: dict[int, Place] = {}
        self._bucket = TokenBucket(limits.backlog_per_s, limits.backlog_burst)
        self._progress = {lane: _Progress(limits.resend_s) for lane in Lane}

    @property
    def in_flight(self) -> int:
        """Records inside the library."""
        return len(self._in_flight)

    @property
    def unreceipted(self) -> int:
        """Records that are on their way or acknowledged, and of which the cloud has said nothing."""
        return len(self._sent)

    def connected(self, *, receive_maximum: int, session_present: bool, newest_id: int) -> None:
        """Begin a connection; ``newest_id`` is the newest telemetry record: what is newer from now on is live.

        A broker that forgot the session may have forgotten what it acknowledged, so everything unreceipted is sent again.
        """
        self._size = max(1, min(self.limits.window, receive_maximum))
        self._in_flight.clear()
        self._backlog_in_flight = 0
        self._drop([one for one in self._sent.values() if not (one.acked and session_present)])
        self.boundary = newest_id
        self.cursors = {flow: newest_id if flow == Flow.LIVE else 0 for flow in Flow}
        self.rewound.update(Flow)

    def disconnected(self) -> None:
        """End a connection: what was not acknowledged goes again with the next."""
        self._size = 0

    def forked(self, lane: Lane, newest_id: int) -> None:
        """The records of a lane have other numbers now: nothing of it is on its way, and all of it is history."""
        self._drop([one for one in self._sent.values() if one.lane == lane])
        if lane == Lane.TELEMETRY:
            self.boundary = newest_id
            self.cursors[Flow.LIVE] = newest_id
        self.cursors[self.flow_of(lane, 0)] = 0
        self.rewound.update(flow for flow in Flow if flow.lane == lane)

    def flow_of(self, lane: Lane, record_id: int) -> Flow:
        """The flow in which a record travels."""
        if lane == Lane.TELEMETRY:
            return Flow.LIVE if record_id > self.boundary else Flow.BACKLOG
        return Flow.METERING if lane == Lane.METERING else Flow.ALARM

    def slots(self, flow: Flow, now_s: float) -> int:
        """How many records of a flow may be published now."""
        eighth = self.limits.unreceipted_max // 8
        reserve = {Flow.LIVE: eighth // 2, Flow.BACKLOG: eighth}.get(flow, 0)  # facts always find room
        room = min(self._size - len(self._in_flight), self.limits.unreceipted_max - reserve - len(self._sent))
        if flow == Flow.BACKLOG:
            share = max(1, self._size * 3 // 4)  # the rest of the window never waits behind a month of history
            room = min(room, share - self._backlog_in_flight, self._bucket.available(now_s))
        return max(0, room)

    def wants(self, flow: Flow, record: Record) -> bool:
        """Tell whether a record that was read still has to be sent in this flow."""
        return record.id not in self._sent and record.id not in self._confirmed and self.flow_of(record.lane, record.id) == flow

    def published(self, flow: Flow, record: Record, mid: int) -> None:
        """Note that the library has a record under a message number."""
        self._order += 1
        again = record.id in self._published
        self.resent += again
        place = Place(record.identity.stream, record.identity.seq, record.last)
        self._published[record.id] = place
        self._sent[record.id] = Sent(record.id, record.lane, place, self._order, again)
        self._in_flight[mid] = (record.id, flow)
        if flow == Flow.BACKLOG:
            self._backlog_in_flight += 1
            self._bucket.take()

    def acknowledged(self, mid: int, now_s: float) -> bool:
        """The broker has it. False for a number that is not on its way."""
        sent = self._landed(mid)
        if sent is None:
            return False
        progress = self._progress[sent.lane]
        if progress.waiting == 0:
            progress.quiet_since_s = now_s
        sent.acked = True
        progress.waiting += 1
        return True

    def refused(self, mid: int) -> Sent | None:
        """The broker did not take it: it is not on its way any more, and its flow reads it again."""
        sent = self._landed(mid)
        if sent is not None:
            self._drop([sent])
        return sent

    def receipt(self, lane: Lane, receipt: Receipt, now_s: float) -> int:
        """Take the cloud's word; returns how many records it newly confirmed.

        The broker keeps the order of a topic. So when the cloud has a record, whatever was acknowledged before it and is neither receipted
        nor seen was lost on the way, and goes again at once.
        """
        progress = self._progress[lane]
        progress.heard_s = now_s
        done = [one for one in self._sent.values() if one.lane == lane and _has(receipt, one.place)]
        for one in done:
            self._remove(one)
            self._confirmed[one.id] = one.place
            if not one.again:  # of one that was sent twice, nobody knows which arrived
                progress.confirmed_order = max(progress.confirmed_order, one.order)
        if done:
            progress.quiet_since_s = now_s
            progress.wait_s = self.limits.resend_s
        for kept in (self._confirmed, self._published):
            for record_id in [number for number, place in kept.items() if _is_past(receipt, place)]:
                del kept[record_id]
        self._drop([one for one in self._sent.values() if one.lane == lane and one.acked and one.order < progress.confirmed_order])
        return len(done)

    def overdue(self, now_s: float) -> int:
        """Send again what waited too long for a receipt; returns how many records.

        A cloud that has spoken since the last time gets everything again, a silent one a few records, less and less often.
        """
        count = 0
        for lane, progress in self._progress.items():
            if not progress.waiting or now_s - progress.quiet_since_s < progress.wait_s:
                continue
            again = [one for one in self._sent.values() if one.lane == lane and one.acked]
            if progress.heard_s < progress.resent_s:
                again = again[:PROBE_RECORDS]
            progress.resent_s = progress.quiet_since_s = now_s
            progress.wait_s = min(progress.wait_s * 2, RESEND_CEILING_S)
            self._drop(again)
            count += len(again)
        return count

    def _landed(self, mid: int) -> Sent | None:
        record_id, flow = self._in_flight.pop(mid, (0, None))
        self._backlog_in_flight -= flow == Flow.BACKLOG
        return None if flow is None else self._sent.get(record_id)

    def _drop(self, gone: list[Sent]) -> None:
        """Take records off the way and let their flows read them again."""
        for one in gone:
            self._remove(one)
            flow = self.flow_of(one.lane, one.id)
            self.cursors[flow] = min(self.cursors[flow], one.id - 1)
            self.rewound.add(flow)

    def _remove(self, one: Sent) -> None:
        del self._sent[one.id]
        self._progress[one.lane].waiting -= one.acked


def _has(receipt: Receipt, place: Place) -> bool:
    """Tell whether a receipt says that the cloud accounts for all numbers of a record."""
    if receipt.stream != place.stream:
        return False
    if place.last <= receipt.up_to:
        return True
    # A full list of gaps may not be the whole list: beyond the last one named nothing is known.
    known_to = receipt.gaps[-1].last if len(receipt.gaps) == GAPS_MAX else receipt.seen
    return place.last <= known_to and all(gap.last < place.first or gap.first > place.last for gap in receipt.gaps)


def _is_past(receipt: Receipt, place: Place) -> bool:
    return receipt.stream == place.stream and place.last <= receipt.up_to
