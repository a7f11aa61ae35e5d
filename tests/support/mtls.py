"""Brokers on mutual TLS for tests, made by the product's own provisioning, and a small synchronous MQTT v5 peer to talk to them."""

import getpass
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocol.clock import Clock, MachineClock
from protocol.units import GatewayId
from provisioning.broker import Broker, BrokerFolder, write_broker
from provisioning.identity import Authority, Realm
from tests.support.services import HOST, Mosquitto, free_port, port_is_open

ANSWER_S = 10.0

CLOCK = MachineClock(time.time_ns, time.monotonic_ns, lambda: True)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files with which a client shows who it is."""

    ca: Path
    cert: Path
    key: Path


@dataclass(slots=True)
class TlsBroker:
    """A broker with its authority; ``service`` starts, stops and kills it."""

    service: Mosquitto
    authority: Authority
    files: BrokerFolder
    folder: Path

    @property
    def port(self) -> int:
        return self.service.port

    def credentials(self, name: str, *, authority: Authority | None = None) -> Credentials:
        """A new certificate for ``name``, by default from the broker's own authority."""
        ca = self.folder / "root.crt"
        ca.write_bytes(self.authority.root)
        return Credentials(ca, *(authority or self.authority).issue_client(name).write(self.folder / "clients", name))


def make_tls_broker(
    executable: Path, folder: Path, *, realm: Realm = Realm.CLOUD, gateways: Sequence[str] = (), clock: Clock = CLOCK
) -> TlsBroker:
    """A broker that is not started yet, exactly as ``icecap provision`` sets it up."""
    authority = Authority.create(folder / "authority", realm=realm, clock=clock)
    port = free_port()
    files = write_broker(
        folder / "broker",
        Broker(HOST, port, user=getpass.getuser()),
        authority,
        dns=["localhost"],
        ips=[HOST],
        gateways=[GatewayId(name) for name in gateways],
    )
    service = Mosquitto(
        f"{realm} broker",
        [str(executable), "-c", str(files.configuration)],
        folder / "mosquitto.log",
        lambda: port_is_open(port),
        port=port,
        directory=files.folder,
    )
    return TlsBroker(service, authority, files, folder)


@dataclass(slots=True)
class Peer:
    """A connected client; every call waits for the broker's answer."""

    client: Client
    messages: "Queue[MQTTMessage]" = field(default_factory=Queue)
    answers: "Queue[tuple[int, ReasonCode]]" = field(default_factory=Queue)
    closed: "Queue[ReasonCode]" = field(default_factory=Queue)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> int:
        """The reason code of the PUBACK."""
        mid = self.client.publish(topic, payload, qos=qos).mid
        answered, code = self.answers.get(timeout=ANSWER_S)
        assert answered == mid
        return int(code.value)

    def subscribe(self, topic: str) -> int:
        """The reason code of the SUBACK."""
        self.client.subscribe(topic, qos=1)
        return int(self.answers.get(timeout=ANSWER_S)[1].value)

    def receive(self, timeout_s: float = ANSWER_S) -> MQTTMessage | None:
        """The next message, or None after ``timeout_s``."""
        try:
            return self.messages.get(timeout=timeout_s)
        except Empty:
            return None


class RefusedError(Exception):
    """The broker did not let the client in."""


@contextmanager
def connected(
    port: int, credentials: Credentials, *, client_id: str = "", username: str = "", will: tuple[str, bytes] | None = None
) -> Iterator[Peer]:
    """A peer on the broker at ``port``; RefusedError when TLS or CONNECT fails."""
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
    client.tls_set_context(tls_context(credentials))
    if username:
        client.username_pw_set(username, "x")
    if will:
        client.will_set(will[0], will[1], qos=1)
    peer = Peer(client)
    opened: Queue[ReasonCode] = Queue()

    def on_connect(_client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None) -> None:
        opened.put(code)

    def on_disconnect(_client: Client, _data: object, _flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None) -> None:
        peer.closed.put(code)
        opened.put(code)

    client.on_connect = on_connect
    client.on_disconnect = on_disconnect
    client.on_message = lambda _client, _data, message: peer.messages.put(message)
    client.on_publish = lambda _client, _data, mid, code, _properties: peer.answers.put((mid, code))
    client.on_subscribe = lambda _client, _data, mid, codes, _properties: peer.answers.put((mid, codes[0]))
    try:
        client.connect(HOST, port, keepalive=20)
    except OSError as error:  # includes ssl.SSLError
        raise RefusedError(str(error)) from error
    client.loop_start()
    try:
        code = opened.get(timeout=ANSWER_S)
        if code.is_failure:
            raise RefusedError(str(code))
        yield peer
    finally:
        client.disconnect()
        client.loop_stop()


def tls_context(credentials: Credentials) -> ssl.SSLContext:
    """What a client of ours uses: the realm's root, the own certificate, host names checked."""
    context = ssl.create_default_context(cafile=str(credentials.ca))
    context.load_cert_chain(credentials.cert, credentials.key)
    return context
