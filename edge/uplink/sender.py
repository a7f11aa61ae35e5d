"""Sender: the task that connects, sends in order of urgency, takes receipts and tries again. The rules are in ``window``, paho in ``link``.

Invariant: everything here runs on the event loop; a record is published only while a link is up and the window has room.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar

from edge.backoff import Backoff
from edge.outbox import Outbox, OutboxError, Record
from edge.settings import CloudConfig
from edge.uplink.link import Acked, Down, Event, Heard, Link, Up
from edge.uplink.status import NOT_DELIVERED_S, UplinkCounts, UplinkStatus
from edge.uplink.window import Flow, UplinkLimits, Window
from protocol import receipt as receipts
from protocol import state, topics
from protocol.clock import Timer
from protocol.facts import Audit
from protocol.receipt import Receipt
from protocol.refusal import Refusal
from protocol.state import Live, Presence
from protocol.topics import Lane
from protocol.units import GatewayId

__all__ = ["Uplink"]

TICK_S = 0.25  # how often times are looked at when nothing happens
UP_WITHIN_S = 20.0  # CONNECT to SUBACK: two round trips on the slowest link, and TCP and TLS before
STABLE_S = 30.0  # a connection that ends sooner counts as a failure: accept-then-kick must not become a loop
BACKOFF_BASE_S, BACKOFF_CAP_S = 1.0, 60.0  # a thousand gateways come back within a minute
NOT_TAKEN_BASE_S, NOT_TAKEN_CAP_S = 1.0, 30.0  # between tries while the broker refuses or nobody listens
PACKET_HEAD_BYTES = 128  # fixed header, topic (at most 51 bytes), message number, properties
PACKET_BYTES_MIN = 16_384  # a broker that takes less is misconfigured: obeying it would bury a whole backlog
TAKEN_OVER_REPORT_S = 3600.0  # two gateways under one name kick each other every minute: one fact an hour is enough
UNTAKABLE = frozenset({0x95, 0x99})  # packet too large, payload format invalid: the only answers that concern the record itself

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Up:
    """A link that is up and since when."""

    link: Link
    packet_bytes_max: int
    since_s: float


class Uplink:
    """Sends an outbox to the cloud. ``run`` is the task; everything else may be called on the same event loop."""

    def __init__(
        self,
        config: CloudConfig,
        outbox: Outbox,
        presence: Presence,
        *,
        gateway: GatewayId,
        limits: UplinkLimits,
        timer: Timer,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._presence = presence
        self._gateway = gateway
        self._timer = timer
        self._start_delay_s = rng.uniform(0, limits.start_delay_s)
        self._window = Window(limits)
        self._backoff = Backoff(rng, base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S)
        self._not_taken = Backoff(rng, base_s=NOT_TAKEN_BASE_S, cap_s=NOT_TAKEN_CAP_S)
        self._topics = {lane: topics.build(gateway, lane.leaf) for lane in Lane}
        self._wake = asyncio.Event()
        self._stopping = False
        self._link: Link | None = None
        self._up: _Up | None = None
        self._events: deque[Event] = deque()
        self._read: dict[Flow, deque[Record]] = {flow: deque() for flow in Flow}
        self._exhausted: set[Flow] = set()
        self._heartbeats: set[int] = set()
        self._heard_s = 0.0
        self._paused_until_s = float("-inf")
        self._taken_over_s = float("-inf")
        self._receipt_s: float | None = None
        self._progress_s = timer()
        self._expecting_since_s = 0.0
        self._cloud_wall_ms = 0
        self._why = "not connected yet"
        self.counts = UplinkCounts()

    async def run(self) -> None:
        """Send until ``stop``; only a bug ends it otherwise. Cancelling it is as good as ``stop``."""
        loop = asyncio.get_running_loop()
        self._outbox.on_record(lambda lane: loop.call_soon_threadsafe(self._on_record, lane))
        try:
            await self._sleep(self._start_delay_s)
            while not self._stopping:
                started_s = self._timer()
                await self._connection()
                if self._timer() - started_s >= STABLE_S:
                    self._backoff.reset()
                await self._sleep(self._backoff.next_s())
        finally:
            self._outbox.on_record(None)

    def stop(self) -> None:
        """Let ``run`` end: hang up and leave everything else where it is safe."""
        self._stopping = True
        self._wake.set()

    def publish_live(self, live: Live) -> bool:
        """Send newest values once, unless the link is down or slow; nothing depends on it."""
        sent = self._up is not None and self._up.link.publish_live(state.encode(live))
        self.counts.live_sent += sent
        self.counts.live_shed += not sent
        return sent

    def status(self) -> UplinkStatus:
        """Return what the uplink looks like now."""
        now_s = self._timer()
        return UplinkStatus(
            is_connected=self._up is not None,
            is_delivering=now_s - self._progress_s <= NOT_DELIVERED_S,
            why=self._why,
            in_flight=self._window.in_flight,
            unreceipted=self._window.unreceipted,
            receipt_age_s=None if self._receipt_s is None else now_s - self._receipt_s,
            cloud_wall_ms=self._cloud_wall_ms,
            counts=replace(self.counts, resent=self._window.resent),
        )

    async def _connection(self) -> None:
        """One connection from its beginning to its end."""
        self._events.clear()
        self._link = Link(self._config, self._gateway, self._presence, self._on_event)
        self._link.open()
        opened_s = self._timer()
        try:
            while not self._stopping:
                if not await self._handle_events():
                    return
                if self._up is None and self._timer() - opened_s > UP_WITHIN_S:
                    self._link.end("no answer to CONNECT or SUBSCRIBE")
                elif self._up is not None:
                    self._watch(self._up)
                    await self._send(self._up)
                await self._rest()
        finally:
            link, self._link, self._up = self._link, None, None
            self._window.disconnected()
            self._reread(set(Flow))
            await asyncio.shield(asyncio.to_thread(link.close))

    async def _rest(self) -> None:
        """Wait for anything to happen, for a tick at most."""
        if not any(lane.records for lane in self._outbox.stats().lanes.values()):
            self._progress_s = self._timer()
        if self._events:
            return
        try:
            async with asyncio.timeout(TICK_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        if not self._stopping:
            self._wake.clear()

    async def _sleep(self, seconds: float) -> None:
        end_s = self._timer() + seconds
        while not self._stopping and self._timer() < end_s:
            await self._rest()

    def _on_event(self, link: Link, event: Event) -> None:
        if link is self._link:  # an older connection's message numbers mean nothing now
            self._events.append(event)
            self._wake.set()

    def _on_record(self, lane: Lane) -> None:
        # What is new is never backlog: that ends where the connection began.
        self._exhausted.difference_update([flow for flow in Flow if flow.lane == lane and flow != Flow.BACKLOG])
        self._wake.set()

    async def _handle_events(self) -> bool:
        """Handle everything that arrived; false when the link is down."""
        newest: dict[int, Receipt] = {}
        while self._events:
            event = self._events.popleft()
            match event:
                case Up():
                    await self._on_up(event)
                case Acked():
                    await self._on_acked(event)
                case Heard():
                    self._on_heard(event, newest)
                case Down():
                    self._on_down(event)
                    return False
        for receipt in newest.values():
            await self._on_receipt(receipt)
        return True

    async def _on_up(self, event: Up) -> None:
        assert self._link is not None, "events of no link are dropped"
        if event.packet_bytes_max < PACKET_BYTES_MIN:
            self._link.end(f"the broker takes only {event.packet_bytes_max} bytes, {PACKET_BYTES_MIN} are needed")
            return
        self.counts.connects += 1
        self._why = ""
        newest_id = self._outbox.stats().lanes[Lane.TELEMETRY].newest_id
        self._window.connected(receive_maximum=event.receive_maximum, session_present=event.session_present, newest_id=newest_id)
        await self._store(lambda: self._outbox.limit_frame_bytes(event.packet_bytes_max - PACKET_HEAD_BYTES))
        self._up = _Up(self._link, event.packet_bytes_max, self._timer())
        self._heard_s = self._timer()
        self._heartbeats.clear()
        self._beat(self._link)

    async def _on_acked(self, event: Acked) -> None:
        self._heard_s = self._timer()
        if event.mid in self._heartbeats:
            self._heartbeats.discard(event.mid)
            return
        if event.code == 0:
            self.counts.acknowledged += self._window.acknowledged(event.mid, self._timer())
            self._not_taken.reset()
            return
        sent = self._window.refused(event.mid)
        if sent is None:
            return
        if event.code in UNTAKABLE and sent.lane == Lane.TELEMETRY:
            await self._bury(sent.id, f"reason code {event.code:#04x}")
        else:
            self._pause(event.code)

    def _pause(self, code: int) -> None:
        """The broker did not take it, or nobody listens behind it: the rows stay, and the same again in a while."""
        self.counts.not_taken += 1
        if self._timer() >= self._paused_until_s:
            self._paused_until_s = self._timer() + 0.1 + self._not_taken.next_s()
        self._why = f"not taken: reason code {code:#04x}"

    def _on_heard(self, event: Heard, newest: dict[int, Receipt]) -> None:
        self._heard_s = self._timer()
        receipt = receipts.decode(event.payload)
        if isinstance(receipt, Refusal):
            self.counts.receipts_unreadable += 1
            return
        self.counts.receipts += 1
        newest[receipt.stream] = receipt

    async def _on_receipt(self, receipt: Receipt) -> None:
        effect = await self._store(lambda: self._outbox.apply_receipt(receipt))
        if effect is None or effect.lane is None:
            return
        self._receipt_s = self._timer()
        self._cloud_wall_ms = max(self._cloud_wall_ms, receipt.wall_ms)
        confirmed = self._window.receipt(effect.lane, receipt, self._timer())
        self.counts.confirmed += confirmed
        if confirmed or effect.deleted:
            self._progress_s = self._timer()
        if effect.forked:
            self._window.forked(effect.lane, self._outbox.stats().lanes[Lane.TELEMETRY].newest_id)

    def _on_down(self, event: Down) -> None:
        self._why = event.why
        if self._up is None or self._timer() - self._up.since_s < STABLE_S:
            self.counts.failures += 1
        if not event.is_taken_over:
            return
        self.counts.taken_over += 1
        if self._timer() - self._taken_over_s >= TAKEN_OVER_REPORT_S:
            self._taken_over_s = self._timer()
            try:
                self._outbox.append_fact(Lane.ALARM, Audit(event="uplink_taken_over", detail={"count": self.counts.taken_over}))
            except OutboxError:
                self.counts.store_faults += 1

    def _watch(self, up: _Up) -> None:
        """Notice a link that is dead without saying so, and records that wait for their receipt for too long."""
        now_s = self._timer()
        if not up.link.is_network_alive:
            up.link.end("the network thread died")
        elif self._is_expecting:
            quiet_s = now_s - max(self._heard_s, self._expecting_since_s)
            if quiet_s > self._config.keepalive_s:
                self.counts.half_open += 1
                up.link.end(f"half-open: no answer for {quiet_s:.0f} s")
        elif now_s - self._heard_s > self._config.keepalive_s:
            self._beat(up.link)
        self._window.overdue(now_s)

    @property
    def _is_expecting(self) -> bool:
        """Whether the broker owes an answer."""
        return bool(self._window.in_flight or self._heartbeats)

    def _beat(self, link: Link) -> None:
        """Ask for an answer."""
        if not self._is_expecting:
            self._expecting_since_s = self._timer()
        mid = link.announce()
        if mid is not None:
            self._heartbeats.add(mid)

    async def _send(self, up: _Up) -> None:
        """Publish as much as the window takes, the most urgent first."""
        self._reread(self._window.rewound)
        for flow in Flow:
            while self._timer() >= self._paused_until_s and (room := self._window.slots(flow, self._timer())):
                records = await self._next(flow, room)
                if not records:
                    break
                for record in records:
                    if not await self._publish(up, flow, record):
                        return

    async def _publish(self, up: _Up, flow: Flow, record: Record) -> bool:
        """Publish one record; false when the link is gone."""
        if len(record.data) + PACKET_HEAD_BYTES > up.packet_bytes_max:
            self.counts.too_large += 1
            await self._bury(record.id, "too_large", record)
            return True
        if not self._window.wants(flow, record):
            return True  # it was sent or receipted since it was read
        if not self._is_expecting:
            self._expecting_since_s = self._timer()
        mid = up.link.publish(self._topics[record.lane], record.data)
        if mid is None:
            return False
        self._window.published(flow, record, mid)
        self.counts.published += 1
        return True

    async def _bury(self, record_id: int, why: str, record: Record | None = None) -> None:
        """Set a telemetry record aside that this broker can never take; a tombstone goes in its place."""
        if record is None:
            found = await self._store(lambda: self._outbox.read(Lane.TELEMETRY, after=record_id - 1, limit=1))
            record = found[0] if found and found[0].id == record_id else None
        if record is not None:
            is_done = await self._store(lambda: self._outbox.mark_refused(record, why))
            self.counts.refused += is_done is True

    async def _next(self, flow: Flow, room: int) -> list[Record]:
        """Up to ``room`` records of a flow that still have to be sent."""
        waiting = self._read[flow]
        while not waiting and flow not in self._exhausted:
            after = self._window.cursors[flow]
            found = await self._store(lambda after=after: self._outbox.read(flow.lane, after=after))  # type: ignore[misc]
            if found is None:
                break  # the store is sick: the next tick asks again
            if not found:
                self._exhausted.add(flow)
                break
            self._window.cursors[flow] = found[-1].id
            waiting.extend(record for record in found if self._window.wants(flow, record))
            if flow == Flow.BACKLOG and found[-1].id > self._window.boundary:
                self._exhausted.add(flow)
        return [waiting.popleft() for _ in range(min(room, len(waiting)))]

    def _reread(self, flows: set[Flow]) -> None:
        """Give back what was read of these flows and not sent, and look at the store again."""
        for flow in flows:
            if self._read[flow]:
                self._window.cursors[flow] = min(self._window.cursors[flow], self._read[flow][0].id - 1)
                self._read[flow].clear()
        self._exhausted -= flows
        flows.clear()

    async def _store(self, call: Callable[[], Future[T]]) -> T | None:
        """Ask the store; ``None`` when it is busy or its disk fails, which health shows and the next tick tries again."""
        try:
            return await asyncio.wrap_future(call())
        except OutboxError as error:
            self.counts.store_faults += 1
            self._why = str(error)
            return None
