"""Connection: one MQTT connection from CONNECT to its end, with the library fenced in. Not a session, and it never reconnects.

Each connection is a new client object with its own thread: a message number of an older connection cannot reach a newer one, a callback
that fails ends the connection instead of the thread behind its back, and the library's own queues and reconnects are unused.

Invariant: ``ended`` is set once, whatever the cause; after it no message is taken and no acknowledgement is sent.
"""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.settings import MqttSource
from edge.sources.inbox import Arrival, Inbox
from protocol.clock import ClockQuality
from protocol.reading import Stamp

__all__ = ["SESSION_LIFE_S", "Connection", "End", "Terms"]

SESSION_LIFE_S = 604_800  # a gateway that was off for a week still gets what the broker kept for it
PACKET_BYTES_MAX = 131_072  # twice the largest payload that we accept: what is a little too long is still named, the rest stays out
CONNECT_S = 5.0  # TCP and TLS on a clinic's own network
CLOSE_S = 2.0  # below the agent's five seconds for everything
UNSUPPORTED_VERSION = 0x84
TAKEN_OVER = 0x8E
NO_STAMP = Stamp(0, 0, 0, ClockQuality.UNSYNCED)
"""Of a message on which our own receiving code failed: it becomes no reading."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class End:
    """Why a connection ended. ``spoke`` is false when the broker never answered the CONNECT."""

    why: str
    spoke: bool
    is_unsupported: bool = False
    is_taken_over: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What may differ from one connection of a source to the next; ``unsubscribe`` are filters that the session should forget."""

    client_id: str
    version: MQTTProtocolVersion
    unsubscribe: frozenset[str] = frozenset()


class Connection:
    """One connection of a source. ``counts`` is the source's and outlives it."""

    def __init__(self, settings: MqttSource, terms: Terms, *, inbox: Inbox, stamp: Callable[[], Stamp], counts: Counter[str]) -> None:
        self.terms = terms
        self.is_up = False
        self.refused_filters: tuple[str, ...] = ()
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._inbox = inbox
        self._stamp = stamp
        self._counts = counts
        self._filters = [topic.filter for topic in settings.topic]
        self._spoke = False
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        is_v5 = self.terms.version == MQTTProtocolVersion.MQTTv5
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.terms.client_id,
            protocol=self.terms.version,
            clean_session=None if is_v5 else False,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        client.on_connect = self._guard(self.on_connect)
        client.on_subscribe = self._guard(self.on_subscribe)
        client.on_disconnect = self._guard(self.on_disconnect)
        client.on_message = self._guard(self.on_message)
        return client

    def open(self) -> None:
        """Connect and start the thread. Blocks for at most a few seconds; raises ``OSError`` (``ssl.SSLError`` is one) when it cannot."""
        if not self._settings.plaintext:
            self._client.tls_set_context(_tls(self._settings))
        properties = None
        if self.terms.version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_LIFE_S
            properties.ReceiveMaximum = self._settings.receive_maximum
            properties.MaximumPacketSize = PACKET_BYTES_MAX
        self._client.connect(
            self._settings.host,
            self._settings.port,
            self._settings.keepalive_s,
            clean_start=False if properties else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )
        with self._lock:
            if not self._closing:
                self._client.loop_start()
                # The library forgets its thread when that dies; whoever wants to know must keep it.
                self._thread = self._client._thread  # noqa: SLF001
                return
        self._client.disconnect()  # closed while it was still connecting: nobody would end the thread

    @property
    def is_over(self) -> bool:
        """Whether it has ended: the broker sends again what was not acknowledged."""
        return self._closing

    def on_connect(self, client: paho.Client, _data: object, flags: paho.ConnectFlags, reason: ReasonCode, *_rest: object) -> None:
        """Subscribe, always: it costs nothing when the session still knows, and repairs it when it does not."""
        self._spoke = True
        if reason.is_failure:
            self._end(f"refused: {reason}", is_unsupported=reason.value == UNSUPPORTED_VERSION)
            return
        self._counts["sessions_resumed" if flags.session_present else "sessions_new"] += 1
        if self.terms.unsubscribe:
            client.unsubscribe(sorted(self.terms.unsubscribe))
        client.subscribe([(topic, 1) for topic in self._filters])

    def on_subscribe(self, _client: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], *_rest: object) -> None:
        """The connection is up when the broker has answered the subscription; filters that it refuses are shown in health."""
        self.refused_filters = tuple(topic for topic, reason in zip(self._filters, reasons, strict=False) if reason.is_failure)
        self.is_up = True
        self._loop.call_soon_threadsafe(_resolve, self.subscribed, None)

    def on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        """Stamp a message and hand it over; a failure here is carried along, because an unanswered message would come back for ever."""
        if self._closing:
            return
        try:
            arrival = Arrival(
                self, message.mid, message.qos, message.topic, bytes(message.payload), self._stamp(), is_retained=message.retain
            )
        except Exception as error:  # noqa: BLE001 - it is quarantined with its cause and acknowledged
            arrival = Arrival(self, message.mid, message.qos, "", bytes(message.payload), NO_STAMP, f"{type(error).__name__}: {error}")
        if not self._inbox.offer(arrival, lambda: self._closing):
            self._counts["inbox_full"] += 1
            self._end("the disk does not keep up")  # what was not taken comes again on a new connection

    def on_disconnect(self, _client: paho.Client, _data: object, _flags: paho.DisconnectFlags, reason: ReasonCode, *_rest: object) -> None:
        """The end of the connection as the library saw it."""
        self._end(str(reason), is_taken_over=reason.value == TAKEN_OVER)

    def ack(self, arrival: Arrival) -> bool:
        """Acknowledge a message of this connection; false when the connection is gone and the broker will send it again."""
        if arrival.qos == 0:
            return True
        if self._closing:
            self._counts["stale_acks"] += 1
            return False
        return self._client.ack(arrival.mid, arrival.qos) == MQTTErrorCode.MQTT_ERR_SUCCESS

    def check(self) -> None:
        """End the connection when its thread is dead: the library would not say so."""
        if self._thread is not None and not self._thread.is_alive() and not self._closing:
            self._counts["threads_dead"] += 1
            self._end("the network thread died")

    def close(self) -> None:
        """Say goodbye and end the thread, bounded. Blocks; harmless at any time."""
        self._end("closed by us")
        self._client.disconnect()
        if self._thread is None:
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive() and (socket := self._client.socket()) is not None:
            socket.close()  # a mute peer: the thread wakes up on a dead socket and leaves

    def _guard(self, callback: Callable[P, None]) -> Callable[P, None]:
        """An exception in a callback ends the connection, visibly, instead of the thread, silently."""

        @wraps(callback)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - counted, shown, and answered by a new connection
                self._counts["callbacks_failed"] += 1
                self._end(f"{callback.__name__}: {type(error).__name__}: {error}")

        return guarded

    def _end(self, why: str, *, is_unsupported: bool = False, is_taken_over: bool = False) -> None:
        """Note the first cause, from any thread, and hang up."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self.is_up = False
        self._loop.call_soon_threadsafe(_resolve, self.ended, End(why, self._spoke, is_unsupported, is_taken_over))
        self._client.disconnect()


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _tls(settings: MqttSource) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker verified against the given authority and its name; there is no weaker way."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=settings.ca)
    if settings.cert and settings.key:
        context.load_cert_chain(settings.cert, settings.key)
    return context
