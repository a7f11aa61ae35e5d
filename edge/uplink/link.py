"""Link: one connection to the cloud's broker, from CONNECT to its end, with the library fenced in. Not a session; it never reconnects.

A new client object each time: no message number, queue or reconnect of the library outlives a connection (its window is ignored after a
reconnect, what is published while offline is queued and sent twice). Invariant: events of a link come in order, ``Down`` last and once;
``publish`` never hands the library more than it sends at once.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.settings import CloudConfig
from protocol import state, topics
from protocol.frame import FRAME_BYTES_MAX
from protocol.state import Presence
from protocol.topics import Leaf
from protocol.units import GatewayId

__all__ = ["CONNECT_S", "Acked", "Down", "Event", "Heard", "Link", "Up"]

CONNECT_S = 5.0  # TCP, then TLS: 64 kbit/s and 600 ms of delay need three
CLOSE_S = 2.0  # of the agent's five seconds for everything
SESSION_LIFE_S = 1_209_600  # 14 days, as the shipped broker keeps it
LIVE_WAITING_MAX = 64  # unsent live messages; on a dead link they would pile up in the library without end
RECEIVE_MAXIMUM_DEFAULT = 65_535  # MQTT 5 §3.2.2.3.3: absent means this
TAKEN_OVER = 0x8E
WITH_WILL = 0x04

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Up:
    """Connected and subscribed. ``packet_bytes_max`` is what the broker takes."""

    session_present: bool
    receive_maximum: int
    packet_bytes_max: int


@dataclass(frozen=True, slots=True)
class Acked:
    """PUBACK; ``code`` is MQTT's reason code: 0 is the only one that means accepted."""

    mid: int
    code: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on ``…/ack``."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Down:
    """The end and its cause."""

    why: str
    is_taken_over: bool = False


Event = Up | Acked | Heard | Down


class Link:
    """One connection. ``on_event`` is called on the event loop."""

    def __init__(self, config: CloudConfig, gateway: GatewayId, presence: Presence, on_event: Callable[["Link", Event], None]) -> None:
        self._config = config
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._state_topic = topics.build(gateway, Leaf.STATE)
        self._ack_topic = topics.build(gateway, Leaf.RECEIPT)
        self._presence = presence
        self._up: Up | None = None
        self._live_waiting: set[int] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._network: threading.Thread | None = None
        self._client = self._make_client(gateway)

    def open(self) -> None:
        """Start to connect, in a thread of its own: name resolution, TCP and TLS block. ``Up`` or ``Down`` follows."""
        threading.Thread(target=self._connect, name="uplink-connect", daemon=True).start()

    def publish(self, topic: str, payload: bytes) -> int | None:
        """Hand over one QoS 1 message and return its number; ``None`` ends the link, because the library may send it none the less."""
        info = self._client.publish(topic, payload, qos=1)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(f"publish: {paho.error_string(info.rc)}")
            return None
        return int(info.mid)

    def publish_live(self, payload: bytes) -> bool:
        """Send a state message once, QoS 0; false when the link is not up or slow: a newer one follows anyway."""
        with self._lock:
            if self._is_closed or self._up is None or len(self._live_waiting) >= LIVE_WAITING_MAX:
                return False
        info = self._client.publish(self._state_topic, payload, qos=0)
        if not info.is_published():
            with self._lock:
                self._live_waiting.add(info.mid)
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def announce(self) -> int | None:
        """Publish the birth, retained; its PUBACK is also the heartbeat. Returns the message number."""
        info = self._client.publish(self._state_topic, state.encode(self._presence), qos=1, retain=True)
        return int(info.mid) if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    @property
    def is_network_alive(self) -> bool:
        """Whether the library's thread runs; it would not say so itself."""
        return self._network is None or self._network.is_alive()

    def end(self, why: str) -> None:
        """Hang up because of ``why``; ``Down`` follows."""
        self._end(why)

    def close(self) -> None:
        """Hang up and wait for the thread, bounded; a mute peer's socket is closed under it. Blocks; harmless at any time."""
        self._end("closed by us")
        network = self._network
        if network is None or network is threading.current_thread():
            return
        network.join(CLOSE_S)
        if network.is_alive() and (socket := self._client.socket()) is not None:
            socket.close()

    def _make_client(self, gateway: GatewayId) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=gateway, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages = RECEIVE_MAXIMUM_DEFAULT  # the window is ours; the library must not queue behind its own
        will = Presence(online=False, boot=self._presence.boot, version=self._presence.version)
        client.will_set(self._state_topic, state.encode(will), qos=1, retain=True)
        client.on_connect = self._guard(self.on_connect)
        client.on_subscribe = self._guard(self.on_subscribe)
        client.on_publish = self._guard(self.on_publish)
        client.on_message = self._guard(self.on_message)
        client.on_disconnect = self._guard(self.on_disconnect)
        return client

    def _connect(self) -> None:
        try:
            self._client.tls_set_context(_tls(self._config))
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_LIFE_S
            properties.MaximumPacketSize = FRAME_BYTES_MAX
            self._client.connect(self._config.host, self._config.port, self._config.keepalive_s, clean_start=False, properties=properties)
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors; ValueError: a name that cannot be a host
            self._end(f"{type(error).__name__}: {error}")
            return
        with self._lock:
            if not self._is_closed:
                self._client.loop_start()
                self._network = self._client._thread  # noqa: SLF001 - the library forgets it when it dies
                return
        self._client.disconnect()

    def on_connect(  # house: the MQTT library passes these by position
        self, client: paho.Client, _data: object, flags: paho.ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        """Read the broker's terms and subscribe to receipts."""
        if reason.is_failure:
            self._end(f"refused: {reason}")
            return
        receive_maximum = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT)
        packet_bytes_max = getattr(properties, "MaximumPacketSize", 2**32 - 1)
        with self._lock:
            self._up = Up(flags.session_present, receive_maximum, packet_bytes_max)
        client.subscribe(self._ack_topic, qos=1)

    def on_subscribe(self, _client: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], *_rest: object) -> None:
        """Up only now: without receipts nothing that is sent could ever be forgotten."""
        if any(reason.is_failure for reason in reasons):
            self._end(f"not allowed to hear receipts: {reasons[0]}")
        elif self._up is not None:
            self._emit(self._up)

    def on_publish(self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, *_rest: object) -> None:
        """A PUBACK, or a live message that is out."""
        with self._lock:
            if mid in self._live_waiting:
                self._live_waiting.discard(mid)
                return
        self._emit(Acked(mid, reason.value))

    def on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        """A receipt, probably."""
        if message.topic == self._ack_topic:
            self._emit(Heard(bytes(message.payload)))

    def on_disconnect(self, _client: paho.Client, _data: object, _flags: paho.DisconnectFlags, reason: ReasonCode, *_rest: object) -> None:
        """The end as the library saw it."""
        self._end(str(reason), is_taken_over=reason.value == TAKEN_OVER)

    def _guard(self, callback: Callable[P, None]) -> Callable[P, None]:
        """An exception in a callback ends the link, visibly, instead of the library's thread, silently."""

        @wraps(callback)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - it is the cause of Down
                self._end(f"{callback.__name__}: {type(error).__name__}: {error}")

        return guarded

    def _end(self, why: str, *, is_taken_over: bool = False) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._post(Down(why, is_taken_over))
        # "Disconnect with will": the broker itself says that we are gone, in one packet.
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=WITH_WILL))

    def _emit(self, event: Event) -> None:
        with self._lock:
            if self._is_closed:
                return
        self._post(event)

    def _post(self, event: Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._on_event, self, event)
        except RuntimeError:  # the event loop is closed: nobody is left to tell
            return


def _tls(config: CloudConfig) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker verified against our authority and its name, our own certificate shown. There is no weaker way."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=config.ca)
    context.load_cert_chain(config.cert, config.key)
    return context
