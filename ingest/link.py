"""Link: one MQTT connection of one partition's session, from CONNECT to its end, with the library fenced in. It never reconnects.

Each connection is a new client object with its own thread, so an acknowledgement of an older connection can never reach a newer one, where
the same number names another message. Invariant: after ``ended`` is set no message is taken and nothing is acknowledged.
"""

import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest.arrivals import Incoming
from ingest.inbox import Inbox
from ingest.receipts import Addressed
from ingest.source import Delivery
from protocol import receipt, topics
from protocol.topics import Leaf

__all__ = ["BrokerSettings", "Handle", "Link", "client_id"]

SESSION_LIFE_S = 1_209_600  # 14 days, as the shipped broker keeps sessions
PACKET_BYTES_MAX = 1_048_576  # four times what the shipped broker accepts: it would drop larger ones in silence
RECEIPTS_WAITING_MAX = 1_000  # in the library, when a connection is slow; a receipt is cumulative and the gateway asks again
RECEIPT_LIFE_S = 86_400  # a gateway that was away for a day sends again anyway
CONNECT_S = 5.0  # TCP and TLS in one data centre
CLOSE_S = 2.0  # below the service's five seconds for everything
TAKEN_OVER = 0x8E

P = ParamSpec("P")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and how this worker shows who it is: ``cert_dir`` holds ``ingest-pNN.crt`` and ``.key``.

    ``receive_maximum`` bounds the unacknowledged messages of one partition. Without ``ca`` the connection is in plain text, which the
    configuration allows on the loopback address only.
    """

    host: str
    port: int
    ca: Path | None
    cert_dir: Path | None
    keepalive_s: int = 20
    receive_maximum: int = 64


@dataclass(frozen=True, slots=True)
class Handle:
    """How to acknowledge: the link, its message number and quality of service."""

    link: "Link"
    mid: int
    qos: int


def client_id(partition: str) -> str:
    """The name of a partition's session: client id, certificate and broker account are one."""
    return f"ingest-{partition}"


class Link:
    """One connection. ``counts`` is the consumer's and outlives it; ``on_session`` hears whether the broker still knew the session."""

    def __init__(
        self,
        partition: str,
        settings: BrokerSettings,
        *,
        inbox: Inbox,
        counts: Counter[str],
        wall_ms: Callable[[], int],
        on_session: Callable[[str, bool], None],
    ) -> None:
        self.partition = partition
        self.ended = threading.Event()
        self.why = ""
        self.is_up = False
        self._received = 0
        self._acked = 0
        self._settings, self._inbox, self._counts, self._wall_ms, self._on_session = settings, inbox, counts, wall_ms, on_session
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._client = self._make_client()

    @property
    def unacked(self) -> int:
        """Messages of this connection that the broker waits for."""
        return self._received - self._acked

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id(self.partition),
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        client.max_queued_messages_set(RECEIPTS_WAITING_MAX)
        client.on_connect = self._guard(self.on_connect)
        client.on_subscribe = self._guard(self.on_subscribe)
        client.on_disconnect = self._guard(self.on_disconnect)
        client.on_message = self._guard(self.on_message)
        client.on_publish = self._guard(self.on_publish)
        return client

    def open(self) -> None:
        """Connect and start the thread. Blocks for some seconds at most; raises ``OSError`` (``ssl.SSLError`` is one) when it cannot."""
        if self._settings.ca is not None:
            self._client.tls_set_context(_tls(self._settings, client_id(self.partition)))
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_LIFE_S
        properties.ReceiveMaximum = self._settings.receive_maximum
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        where = (self._settings.host, self._settings.port, self._settings.keepalive_s)
        self._client.connect(*where, clean_start=False, properties=properties)
        self._client.loop_start()
        # The library forgets its thread when that dies; whoever wants to know must keep it.
        self._thread = self._client._thread  # noqa: SLF001

    def on_connect(self, client: paho.Client, _data: object, flags: paho.ConnectFlags, reason: ReasonCode, *_rest: object) -> None:
        """Subscribe, always: it costs nothing when the session still knows, and repairs it when it does not.

        Retained presence comes only to a new subscription: on every connection it would look as if the gateways had just been heard.
        """
        if reason.is_failure:
            self.end(f"refused: {reason}")
            return
        self._on_session(client_id(self.partition), flags.session_present)
        options = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe(topics.subscription(self.partition), options=options)

    def on_subscribe(self, _client: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], *_rest: object) -> None:
        """The link is up when the broker has granted the subscription."""
        if any(reason.is_failure for reason in reasons):
            self.end(f"subscription refused: {reasons[0]}")
            return
        self.is_up = True

    def on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        """Hand a message over with the time of its receipt. Waits while the inbox is full, which holds TCP and the broker back."""
        if self.ended.is_set():
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # refused by name further on, and acknowledged
        if message.qos:
            self._received += 1
        delivery = Delivery(Incoming(topic, bytes(message.payload), self._wall_ms()), Handle(self, message.mid, message.qos))
        if not self._inbox.offer(delivery, awaited=message.qos > 0):
            self._counts["inbox_full"] += 1
            self.end("the database does not keep up")  # what was not taken comes again on a new connection

    def on_publish(self, _client: paho.Client, _data: object, _mid: int, reason: ReasonCode, *_rest: object) -> None:
        """A receipt was taken by the broker, or refused: the access list, or nobody listens."""
        if reason.is_failure:
            self._counts["receipts_refused"] += 1

    def on_disconnect(self, _client: paho.Client, _data: object, _flags: paho.DisconnectFlags, reason: ReasonCode, *_rest: object) -> None:
        """The end of the connection as the library saw it."""
        if reason.value == TAKEN_OVER:
            self._counts["taken_over"] += 1
            log.error("ingest_session_taken_over", client=client_id(self.partition))
        self.end(str(reason))

    def ack(self, handle: Handle) -> None:
        """Acknowledge a message; nothing when the connection is gone, since the broker will send it again.

        An acknowledgement that does not leave ends the connection: only a new one brings the message again, and until then its place in
        the window is lost.
        """
        if handle.qos == 0:
            return
        if self.ended.is_set():
            self._counts["stale_acks"] += 1
            return
        code = self._client.ack(handle.mid, handle.qos)
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._acked += 1
        else:
            self.end(f"acknowledgement failed: {paho.error_string(code)}")

    def receipt(self, addressed: Addressed) -> None:
        """Send a receipt; a lost one costs the gateway a repetition."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = RECEIPT_LIFE_S
        topic = topics.build(addressed.gateway, Leaf.RECEIPT)
        sent = self._client.publish(topic, receipt.encode(addressed.receipt), qos=1, properties=properties)
        self._counts["receipts_sent" if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else "receipts_lost"] += 1

    def check(self) -> None:
        """End the link when its thread is dead: the library would not say so."""
        if self._thread is not None and not self._thread.is_alive():
            self.end("the network thread died")

    def end(self, why: str) -> None:
        """Note the first cause, from any thread, and hang up."""
        with self._lock:
            if self.ended.is_set():
                return
            self.why = why
            self.is_up = False
            self.ended.set()
        self._client.disconnect()

    def close(self) -> None:
        """Say goodbye and end the thread, bounded; the session stays with the broker. Harmless at any time."""
        self.end("closed by us")
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
            except Exception as error:
                self._counts["callbacks_failed"] += 1
                log.exception("ingest_callback_failed", callback=callback.__name__)
                self.end(f"{callback.__name__}: {type(error).__name__}: {error}")

        return guarded


def _tls(settings: BrokerSettings, name: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker verified against our authority and its name, our own certificate shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=settings.ca)
    if settings.cert_dir is not None:
        context.load_cert_chain(settings.cert_dir / f"{name}.crt", settings.cert_dir / f"{name}.key")
    return context
