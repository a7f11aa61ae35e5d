"""The MQTT source: coolers that publish on a clinic's broker. Log first, acknowledge afterwards. Not the uplink.

    broker ─▶ Connection.on_message ─▶ Inbox ─▶ decode ─▶ Intake ─▶ disk ─▶ acknowledgement, in order, on the same connection

Invariant: a message is acknowledged when its rows are on disk, or when it is refused and its payload lies in the quarantine; never before.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

import structlog
from paho.mqtt.client import topic_matches_sub
from paho.mqtt.enums import MQTTProtocolVersion

from edge.backoff import Backoff
from edge.intake import Batch
from edge.settings import MqttSource, MqttTopic
from edge.sources.connection import Connection, End, Terms
from edge.sources.formats import Format, format_of
from edge.sources.inbox import Arrival, Inbox
from edge.sources.memory import Quarantine, Refused, Subscriptions
from edge.sources.origin import Origin, Times
from edge.sources.status import SourceStatus
from edge.sources.surroundings import Surroundings
from protocol.profile import Profile
from protocol.reading import Reading
from protocol.refusal import Reason, Refusal
from protocol.units import MS_PER_S, DeviceId, is_device_id

__all__ = ["MqttReader"]

BATCH_MESSAGES_MAX = 256  # messages in one batch; sixteen such batches are half of what the outbox takes at once
BATCHES_MAX = 16  # batches on their way to the disk
ROUTES_MAX = 1024  # topics whose route is remembered: four per cooler of the largest site
UNKNOWN_SERIALS_MAX = 64  # serials counted by name; the rest is counted together, so that noise cannot fill the memory
ANSWER_S = 10.0  # CONNACK and SUBACK on a clinic's own network
STABLE_S = 30.0  # a shorter connection counts as a failure: accept-then-kick must not become a loop without pause
CHECK_S = 1.0  # how often the network thread is looked at
BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 60.0

log = structlog.get_logger("edge.mqtt")


@dataclass(frozen=True, slots=True)
class _Route:
    """What a topic leads to: a cooler and how to read it, or why it is refused."""

    device: DeviceId
    profile: Profile
    format: Format


@dataclass(slots=True)
class _Settling:
    """Messages whose rows and refusals are on their way to the disk, in order of arrival."""

    arrivals: list[Arrival]
    batch: Batch | None
    refused: list[Refused]


class MqttReader:
    """One ``[[source.mqtt]]``. ``run`` reads until it is cancelled."""

    def __init__(self, settings: MqttSource, around: Surroundings, *, client_id: str) -> None:
        self.name = settings.name
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[Reason] = Counter()
        self.unknown_serials: Counter[str] = Counter()
        self.times = Times(ahead_ms_max=settings.ts_ahead_max_s * MS_PER_S, behind_ms_max=settings.ts_behind_max_s * MS_PER_S)
        self._settings = settings
        self._around = around
        self._timer = around.timer
        self._backoff = Backoff(around.rng, base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S)
        self._client_id = settings.client_id or client_id
        self._quarantine = Quarantine(around.folder / f"refused-{settings.name}.jsonl")
        self._subscriptions = Subscriptions(around.folder / f"subscriptions-{settings.name}.json")
        self._formats: list[tuple[MqttTopic, Format]] = [(topic, format_of(topic)) for topic in settings.topic]
        self._routes: dict[str, _Route | Refusal] = {}
        self._connection: Connection | None = None
        self._why = "not started"
        self._last_good_s: float | None = None
        self._version = MQTTProtocolVersion.MQTTv5
        self._settling: asyncio.Queue[_Settling]
        self._inbox: Inbox

    async def run(self) -> None:
        """Read for ever. Raises only for bugs; whatever the broker does is answered by a new connection."""
        self._inbox = Inbox()
        self._settling = asyncio.Queue(BATCHES_MAX)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stay_connected(), name=f"{self.name}-connect")
                group.create_task(self._read(), name=f"{self.name}-read")
                group.create_task(self._settle(), name=f"{self.name}-settle")
        finally:
            while not self._settling.empty():
                # Not acknowledged, so the broker sends them again; the outbox knows those that reached the disk.
                if (batch := self._settling.get_nowait().batch) is not None:
                    self._around.intake.forget(batch)

    async def _stay_connected(self) -> None:
        while True:
            opened_s = self._timer()
            end = await self._connect_once()
            self._why = end.why
            self.counts["connections_ended"] += 1
            self._choose_version(end)
            if end.is_taken_over:
                self.counts["taken_over"] += 1
            if self._timer() - opened_s >= STABLE_S:
                self._backoff.reset()
            wait_s = self._backoff.next_s()
            log.warning("source_disconnected", source=self.name, why=end.why, retry_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    def _choose_version(self, end: End) -> None:
        """v5 unless the broker says that it has none; a broker that hangs up without a word is tried in the other version next."""
        if end.is_unsupported:
            self._version = MQTTProtocolVersion.MQTTv311
        elif not end.spoke and self._connection is not None:
            is_v5 = self._version == MQTTProtocolVersion.MQTTv5
            self._version = MQTTProtocolVersion.MQTTv311 if is_v5 else MQTTProtocolVersion.MQTTv5

    async def _connect_once(self) -> End:
        """One connection from start to end; closed in any case."""
        filters = frozenset(topic.filter for topic, _format in self._formats)
        kept = await asyncio.to_thread(self._subscriptions.load, self._client_id)
        # Both sets first: a crash before the unsubscription must not forget what is still subscribed.
        await self._remember(kept | filters)
        terms = Terms(self._client_id, self._version, kept - filters)
        connection = Connection(self._settings, terms, inbox=self._inbox, stamp=self._around.stamp, counts=self.counts)
        self._connection = None
        try:
            await asyncio.to_thread(connection.open)
            self._connection = connection
            return await self._watch(connection, filters)
        except OSError as error:
            self.counts["connects_failed"] += 1
            return End(f"{self._settings.host}:{self._settings.port}: {error}", spoke=True)
        finally:
            await asyncio.shield(asyncio.to_thread(connection.close))

    async def _remember(self, filters: frozenset[str]) -> None:
        """Keep the set of filters; a disk that does not take it must not keep the source from connecting."""
        try:
            await asyncio.to_thread(self._subscriptions.save, self._client_id, filters)
        except OSError as error:
            self.counts["subscriptions_not_kept"] += 1
            log.warning("subscriptions_not_kept", source=self.name, why=str(error))

    async def _watch(self, connection: Connection, filters: frozenset[str]) -> End:
        """Wait for the end of a connection, and see to it that a mute one has an end."""
        deadline_s = self._timer() + ANSWER_S
        was_up = False
        while not connection.ended.done():
            connection.check()
            if connection.is_up and not was_up:
                was_up = True
                self._why = "" if not connection.refused_filters else f"subscription refused: {', '.join(connection.refused_filters)}"
                self._last_good_s = self._timer()
                self.counts["connections"] += 1
                await self._remember(filters)
                log.info("source_connected", source=self.name, version=connection.terms.version.name, refused=connection.refused_filters)
            if connection.is_up:
                self._last_good_s = self._timer()
            elif self._timer() > deadline_s:
                return End(f"no answer within {ANSWER_S:.0f} s", spoke=False)
            await asyncio.wait(
                [connection.ended if was_up else connection.subscribed, connection.ended], timeout=CHECK_S, return_when="FIRST_COMPLETED"
            )
        return connection.ended.result()

    async def _read(self) -> None:
        """Turn what came into rows on their way to the disk; as many batches as ``BATCHES_MAX`` at once."""
        while True:
            taken = await self._inbox.take(BATCH_MESSAGES_MAX)
            # A message of a connection that is over comes again; taking it now would only store it twice.
            arrivals = [arrival for arrival in taken if arrival.qos == 0 or not arrival.connection.is_over]
            self.counts["left_to_redelivery"] += len(taken) - len(arrivals)
            readings: list[Reading] = []
            refused: list[Refused] = []
            for arrival in arrivals:
                if arrival.is_retained:
                    self.counts["retained_ignored"] += 1
                    continue
                found = self.decode(arrival)
                if not isinstance(found, Refusal):
                    readings.extend(found)
                elif found.reason != Reason.UNKNOWN_DEVICE:
                    refused.append(Refused(self.name, arrival.topic, arrival.payload, arrival.stamp.wall_ms, found))
            batch = self._around.intake.submit(readings) if readings else None
            await self._settling.put(_Settling(arrivals, batch, refused))

    def decode(self, arrival: Arrival) -> tuple[Reading, ...] | Refusal:
        """Return the readings in a message, or why there are none; counted either way."""
        self.counts["messages"] += 1
        if arrival.fault:
            found: tuple[Reading, ...] | Refusal = Refusal(Reason.BAD_VALUE, arrival.fault)
        else:
            route = self._routes.get(arrival.topic) or self._find_route(arrival.topic)
            if isinstance(route, _Route):
                found = route.format.decode(arrival.payload, Origin(route.device, route.profile, arrival.stamp, self.times))
            else:
                found = route
        if isinstance(found, Refusal):
            self.refusals[found.reason] += 1
            if found.reason == Reason.UNKNOWN_DEVICE:
                self._count_unknown(found.detail)
        return found

    def _find_route(self, topic: str) -> _Route | Refusal:
        route = self._route(topic)
        if len(self._routes) < ROUTES_MAX:
            self._routes[topic] = route
        return route

    def _route(self, topic: str) -> _Route | Refusal:
        for mapping, decoder in self._formats:
            if not topic_matches_sub(mapping.filter, topic):
                continue
            levels = topic.split("/")
            serial = levels[mapping.serial_level] if mapping.serial_level < len(levels) else ""
            profile = self._around.devices.get(DeviceId(serial))
            if profile is None:
                return Refusal(Reason.UNKNOWN_DEVICE, serial if is_device_id(serial) else "not-a-serial")
            return _Route(DeviceId(serial), profile, decoder)
        return Refusal(Reason.BAD_TOPIC, "no mapping for this topic")

    def _count_unknown(self, serial: str) -> None:
        known = serial in self.unknown_serials or len(self.unknown_serials) < UNKNOWN_SERIALS_MAX
        self.unknown_serials[serial if known else "others"] += 1

    async def _settle(self) -> None:
        """Acknowledge in the order of arrival, each message once its rows or its refusal are on disk."""
        while True:
            settling = await self._settling.get()
            if settling.batch is not None:
                await self._around.intake.settle(settling.batch)
            if settling.refused:
                await self._set_aside(settling.refused)
            for arrival in settling.arrivals:
                if arrival.connection.ack(arrival):
                    self.counts["acknowledged"] += 1

    async def _set_aside(self, refused: list[Refused]) -> None:
        """Quarantine payloads; a disk that does not take them must not stop the readings behind them."""
        try:
            await asyncio.to_thread(self._quarantine.add, refused)
            self.counts["quarantined"] += len(refused)
        except OSError as error:
            self.counts["quarantine_faults"] += len(refused)
            log.warning("quarantine_failed", source=self.name, why=str(error))

    def status(self) -> SourceStatus:
        """Return what health shows."""
        is_up = self._connection is not None and self._connection.is_up
        silent_s = None if self._last_good_s is None else self._timer() - self._last_good_s
        counts = {**self.counts, **{f"refused_{reason}": times for reason, times in self.refusals.items()}, **self.times.counts}
        return SourceStatus(
            name=self.name,
            kind="mqtt",
            ok=is_up and not self._why,
            why=self._why or ("" if is_up else "not connected"),
            has_succeeded=self._last_good_s is not None,
            silent_s=silent_s,
            counts=counts,
            unknown_serials=dict(self.unknown_serials),
        )
