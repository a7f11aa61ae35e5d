"""What stands behind the cloud's broker in tests of the uplink: a consumer that commits to memory and sends receipts, and bad brokers.

The consumer's memory outlives its connection, as ingest's database does. The fake broker speaks just enough MQTT 5, over TLS, to misbehave.
"""

import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.positions import Position
from protocol import facts, frame, receipt, tombstone, topics
from protocol.frame import Frame, Kind
from protocol.receipt import GAPS_MAX, Receipt
from protocol.topics import Leaf
from protocol.units import GatewayId
from tests.support.mtls import Credentials, tls_context
from tests.support.services import HOST

DURABLE = (Leaf.METERING, Leaf.ALARM, Leaf.TELEMETRY)


@dataclass(slots=True)
class Arrival:
    leaf: Leaf
    frame: Frame
    at_s: float


@dataclass(slots=True)
class Cloud:
    """Commits what arrives, counts what came twice, and says so unless it is silent."""

    gateway: GatewayId
    port: int
    credentials: Credentials
    records: dict[tuple[int, int], bytes] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    copies: Counter[tuple[int, int]] = field(default_factory=Counter)
    conflicts: list[tuple[int, int]] = field(default_factory=list)
    positions: dict[int, Position] = field(default_factory=dict)
    heads: dict[tuple[int, int], str] = field(default_factory=dict)
    states: list[bytes] = field(default_factory=list)
    is_silent: bool = False
    _client: Client | None = None

    def connect(self) -> None:
        """Open the persistent session of an ingest worker and wait until it is subscribed."""
        partition = topics.partition_of(self.gateway)
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"ingest-{partition}", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
        client.tls_set_context(tls_context(self.credentials))
        client.reconnect_delay_set(1, 1)
        subscribed = threading.Event()
        client.on_connect = lambda _client, _data, _flags, _code, _properties: _ignore(
            client.subscribe(topics.subscription(partition), qos=1)
        )
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = self._on_message
        make_properties: Callable[[int], Properties] = Properties  # paho does not annotate it
        properties = make_properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        properties.ReceiveMaximum = 1000
        client.connect(HOST, self.port, keepalive=20, clean_start=False, properties=properties)
        client.loop_start()
        self._client = client
        assert subscribed.wait(10)

    def disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    @property
    def seqs(self) -> dict[int, list[int]]:
        """The numbers committed, by stream."""
        found: dict[int, list[int]] = {}
        for stream, seq in self.records:
            found.setdefault(stream, []).append(seq)
        return {stream: sorted(seqs) for stream, seqs in found.items()}

    def bodies(self, kind: Kind) -> list[bytes]:
        frames = [frame.decode(data) for data in self.records.values()]
        return [one.body for one in frames if isinstance(one, Frame) and one.head.kind == kind]

    def take(self, leaf: Leaf, payload: bytes) -> Receipt:
        """Commit one record and return the receipt of its stream."""
        found = frame.decode(payload)
        assert isinstance(found, Frame), found
        identity = found.head.identity
        key, last = (identity.stream, identity.seq), identity.seq
        self.arrivals.append(Arrival(leaf, found, time.monotonic()))
        self.copies[key] += 1
        if self.records.setdefault(key, payload) != payload:
            self.conflicts.append(key)
        if found.head.kind == Kind.TOMBSTONE:
            grave = tombstone.decode(found.body)
            assert isinstance(grave, tombstone.Tombstone)
            last = grave.last
        if found.head.kind == Kind.FACT:
            self.heads[key] = facts.fact_hash(found.body).hex()
        self.positions.setdefault(identity.stream, Position()).account(identity.seq, last)
        return self.receipt(identity.stream)

    def receipt(self, stream: int) -> Receipt:
        at = self.positions[stream]
        return Receipt(stream, at.up_to, tuple(at.gaps[:GAPS_MAX]), self.heads.get((stream, at.up_to), ""), 1_700_000_000_000, seen=at.top)

    def say(self, stream: int) -> None:
        """Send the receipt of a stream as it stands."""
        assert self._client is not None
        self._client.publish(topics.build(self.gateway, Leaf.RECEIPT), receipt.encode(self.receipt(stream)), qos=1)

    def _on_message(self, client: Client, _data: object, message: MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        if topic is not None and topic.leaf == Leaf.STATE:
            self.states.append(bytes(message.payload))
        elif topic is not None and topic.leaf in DURABLE and topic.gateway == self.gateway:
            answer = self.take(topic.leaf, bytes(message.payload))
            if not self.is_silent:
                client.publish(topics.build(self.gateway, Leaf.RECEIPT), receipt.encode(answer), qos=1)
        client.ack(message.mid, message.qos)


def _ignore(_answer: object) -> None:
    """paho's callbacks return nothing."""


@contextmanager
def consuming(cloud: Cloud) -> Iterator[Cloud]:
    """The cloud connected for the length of a block."""
    cloud.connect()
    try:
        yield cloud
    finally:
        cloud.disconnect()


@dataclass(slots=True)
class FakeBroker:
    """One TLS listener that answers CONNECT with chosen terms and PUBLISH as it is told. Each connection has its own thread."""

    context: ssl.SSLContext
    receive_maximum: int = 20
    packet_bytes_max: int = 262_144
    session_present: bool = False
    answer: Callable[[int, bytes, bytes], int | None] = lambda _number, _topic, _payload: 0
    """(connection, topic, payload) to PUBACK's reason code; None: never answered."""
    after_connack: Callable[["FakeBroker", ssl.SSLSocket], None] | None = None
    connections: int = 0
    published: list[tuple[bytes, bytes]] = field(default_factory=list)
    connected_at_s: list[float] = field(default_factory=list)
    port: int = 0
    _listener: socket.socket | None = None
    _threads: list[threading.Thread] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)

    def start(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def stop(self) -> None:
        assert self._listener is not None
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.kick()
        for thread in self._threads:
            thread.join(5)

    def kick(self) -> None:
        """Cut every connection."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(plain)
            self.connections += 1
            self._spawn(self._serve, plain, self.connections)

    def _serve(self, plain: socket.socket, number: int) -> None:
        with suppress(OSError, EOFError):
            tls = self.context.wrap_socket(plain, server_side=True)
            self._sockets.append(tls)
            while True:
                self._handle(tls, number, *_packet(tls))

    def _handle(self, tls: ssl.SSLSocket, number: int, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 1:
            self.connected_at_s.append(time.monotonic())
            terms = bytes([0x21]) + struct.pack("!H", self.receive_maximum) + bytes([0x27]) + struct.pack("!I", self.packet_bytes_max)
            tls.sendall(_framed(0x20, bytes([int(self.session_present), 0, len(terms)]) + terms))
            if self.after_connack is not None:
                self.after_connack(self, tls)
        elif kind == 8:
            tls.sendall(_framed(0x90, body[:2] + b"\0\x01"))
        elif kind == 12:
            tls.sendall(b"\xd0\x00")
        elif kind == 3 and (first >> 1) & 3:
            self._publish(tls, number, body)

    def _publish(self, tls: ssl.SSLSocket, number: int, body: bytes) -> None:
        length = int.from_bytes(body[:2], "big")
        topic, mid = body[2 : 2 + length], body[2 + length : 4 + length]
        payload = body[5 + length :]  # no properties: their length is one zero byte
        self.published.append((topic, payload))
        code = self.answer(number, topic, payload)
        if code is not None:
            tls.sendall(_framed(0x40, mid + bytes([code])))


def _packet(tls: ssl.SSLSocket) -> tuple[int, bytes]:
    first = _exactly(tls, 1)[0]
    length = shift = 0
    while True:
        part = _exactly(tls, 1)[0]
        length |= (part & 127) << shift
        shift += 7
        if part < 128:
            return first, _exactly(tls, length)


def _exactly(tls: ssl.SSLSocket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = tls.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _framed(first: int, body: bytes) -> bytes:
    length, out = len(body), bytearray([first])
    while True:
        out.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return bytes(out) + body


@dataclass(slots=True)
class Proxy:
    """A TCP relay that can go deaf in both directions while both ends stay connected."""

    target: int
    port: int = 0
    is_deaf: bool = False
    _listener: socket.socket | None = None
    _threads: list[threading.Thread] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)

    def start(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def stop(self) -> None:
        assert self._listener is not None
        self.is_deaf = False
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((HOST, self.target))
            except OSError:
                return
            self._sockets += [near, far]
            self._spawn(self._pump, near, far)
            self._spawn(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.is_deaf:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
