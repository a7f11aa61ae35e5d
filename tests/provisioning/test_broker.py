import datetime as dt
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import TLSVersion

import pytest
from cryptography import x509
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from protocol import topics
from protocol.clock import ManualClock
from protocol.units import GatewayId
from provisioning.broker import INGEST_NAMES, PACKET_BYTES_MAX, Broker, BrokerFolder, access_list, configuration
from provisioning.identity import LEAF_DAYS, Authority, Realm
from tests.support.mtls import CLOCK, Credentials, RefusedError, TlsBroker, connected, make_tls_broker, tls_context
from tests.support.services import HOST, wait_until

pytestmark = pytest.mark.service

NOT_AUTHORIZED = 0x87
GATEWAY, OTHER = GatewayId("gw-1"), GatewayId("gw-2")
DAY_MS = 86_400_000
SILENCE_S = 0.5  # a message that the broker means to deliver on loopback arrives within milliseconds; see the positive twin of each test

Require = Callable[[str], Path]


@pytest.fixture
def cloud(require: Require, tmp_path: Path) -> Iterator[TlsBroker]:
    broker = make_tls_broker(require("mosquitto"), tmp_path / "cloud")
    broker.service.start()
    yield broker
    broker.service.stop()


@pytest.fixture
def clinic(require: Require, tmp_path: Path) -> Iterator[TlsBroker]:
    broker = make_tls_broker(require("mosquitto"), tmp_path / "clinic", realm=Realm.CLINIC, gateways=[GATEWAY])
    broker.service.start()
    yield broker
    broker.service.stop()


def worker_of(gateway: GatewayId) -> str:
    return f"ingest-{topics.partition_of(gateway)}"


def refused(port: int, credentials: Credentials) -> bool:
    try:
        with connected(port, credentials):
            return False
    except RefusedError:
        return True


def test_a_frame_reaches_the_worker_of_its_partition_and_the_receipt_returns(cloud):
    worker = worker_of(GATEWAY)
    with connected(cloud.port, cloud.credentials(worker)) as ingest, connected(cloud.port, cloud.credentials(GATEWAY)) as gateway:
        assert ingest.subscribe(topics.subscription(topics.partition_of(GATEWAY))) < 0x80
        assert gateway.subscribe(topics.build(GATEWAY, topics.Leaf.RECEIPT)) < 0x80
        for leaf in (topics.Leaf.TELEMETRY, topics.Leaf.METERING, topics.Leaf.ALARM, topics.Leaf.STATE):
            assert gateway.publish(topics.build(GATEWAY, leaf), b"up") == 0
            message = ingest.receive()
            assert message is not None
            assert message.topic == topics.build(GATEWAY, leaf)

        assert ingest.publish(topics.build(GATEWAY, topics.Leaf.RECEIPT), b"down") == 0

        receipt = gateway.receive()
        assert receipt is not None
        assert receipt.payload == b"down"


def test_a_gateway_cannot_publish_under_anothers_name(cloud):
    with connected(cloud.port, cloud.credentials(GATEWAY)) as gateway:
        assert gateway.publish(topics.build(OTHER, topics.Leaf.METERING), b"x") == NOT_AUTHORIZED
        assert gateway.publish(topics.build(GATEWAY, topics.Leaf.RECEIPT), b"x") == NOT_AUTHORIZED
        assert gateway.publish(topics.build(GATEWAY, topics.Leaf.COMMAND), b"x") == NOT_AUTHORIZED
        assert gateway.publish("anything", b"x") == NOT_AUTHORIZED
        assert gateway.closed.empty(), "a refused publish must not cost the connection"


def test_a_worker_cannot_write_telemetry_or_receipts_of_another_partition(cloud):
    other = next(name for name in INGEST_NAMES if name != worker_of(GATEWAY))
    with connected(cloud.port, cloud.credentials(other)) as ingest:
        assert ingest.publish(topics.build(GATEWAY, topics.Leaf.RECEIPT), b"x") == NOT_AUTHORIZED
        assert ingest.publish(topics.build(GATEWAY, topics.Leaf.METERING), b"x") == NOT_AUTHORIZED


@pytest.mark.parametrize(
    "topic", ["#", "icecap/v1/#", *(topics.build(GATEWAY, leaf) for leaf in (topics.Leaf.RECEIPT, topics.Leaf.TELEMETRY))]
)
def test_listening_to_others_delivers_nothing(cloud, topic):
    with (
        connected(cloud.port, cloud.credentials(OTHER)) as spy,
        connected(cloud.port, cloud.credentials(GATEWAY)) as gateway,
        connected(cloud.port, cloud.credentials(worker_of(GATEWAY))) as ingest,
    ):
        spy.subscribe(topic)
        ingest.subscribe("icecap/v1/+/+/t")
        gateway.subscribe(topics.build(GATEWAY, topics.Leaf.RECEIPT))

        assert gateway.publish(topics.build(GATEWAY, topics.Leaf.TELEMETRY), b"secret") == 0
        assert ingest.publish(topics.build(GATEWAY, topics.Leaf.RECEIPT), b"secret") == 0

        assert ingest.receive() is not None
        assert gateway.receive() is not None
        assert spy.receive(SILENCE_S) is None


def test_nobody_can_take_anothers_client_id(cloud):
    """The client id in CONNECT is ignored: the certificate's name is the id, so the victim's session lives."""
    with connected(cloud.port, cloud.credentials(GATEWAY)) as victim:
        with connected(cloud.port, cloud.credentials(OTHER), client_id=GATEWAY) as thief:
            assert thief.publish(topics.build(OTHER, topics.Leaf.STATE), b"x") in {0, 0x10}

        assert victim.publish(topics.build(GATEWAY, topics.Leaf.STATE), b"x") in {0, 0x10}
        assert victim.closed.empty()


def test_a_second_connection_of_the_same_certificate_takes_over(cloud):
    """The other half of the one above: the id really is the certificate's name."""
    credentials = cloud.credentials(GATEWAY)
    with connected(cloud.port, credentials, client_id="one") as first, connected(cloud.port, credentials, client_id="two"):
        assert first.closed.get(timeout=10).is_failure

    assert "Client gw-1 already connected, closing old connection." in cloud.service.log_text()


def test_a_user_name_in_connect_changes_nothing(cloud):
    with connected(cloud.port, cloud.credentials(OTHER), username=worker_of(GATEWAY)) as liar:
        assert liar.publish(topics.build(GATEWAY, topics.Leaf.RECEIPT), b"x") == NOT_AUTHORIZED


def test_a_will_on_a_foreign_topic_is_dropped(cloud):
    worker = cloud.credentials(worker_of(GATEWAY))
    own, foreign = topics.build(GATEWAY, topics.Leaf.STATE), topics.build(OTHER, topics.Leaf.STATE)
    with connected(cloud.port, worker) as ingest:
        ingest.subscribe(topics.subscription(topics.partition_of(GATEWAY)))
        for name, topic in ((OTHER, own), (GATEWAY, own)):
            with connected(cloud.port, cloud.credentials(name), will=(topic, name.encode())) as dying:
                dying.client.socket().shutdown(socket.SHUT_RDWR)
                dying.closed.get(timeout=10)

        message = ingest.receive()

        assert message is not None
        assert message.payload == GATEWAY.encode(), f"the will of {OTHER} on {own} came through; {foreign} is its own"


def test_no_certificate_is_refused(cloud):
    context = ssl.create_default_context(cadata=cloud.authority.root.decode())
    with (
        socket.create_connection((HOST, cloud.port), timeout=10) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        secure.recv(1)  # TLS 1.3 tells a client of its missing certificate only after its own side is done


def test_plain_text_is_refused(cloud):
    connect = bytes.fromhex("101000044d5154540502003c000003677731")
    with socket.create_connection((HOST, cloud.port), timeout=10) as raw:
        raw.sendall(connect)
        try:
            answer = raw.recv(16)
        except ConnectionError:
            answer = b""

    assert not answer.startswith(b"\x20"), "a CONNACK to a client without TLS"


def test_a_certificate_of_another_authority_is_refused(cloud, tmp_path):
    stranger = Authority.create(tmp_path / "stranger", realm=Realm.CLOUD, clock=CLOCK)

    assert refused(cloud.port, cloud.credentials(GATEWAY, authority=stranger))
    assert not refused(cloud.port, cloud.credentials(GATEWAY))


def test_a_cooler_of_the_clinic_is_refused_by_the_cloud(cloud, tmp_path):
    clinic = Authority.create(tmp_path / "clinic", realm=Realm.CLINIC, clock=CLOCK)

    assert refused(cloud.port, cloud.credentials("cooler-0001", authority=clinic))


@pytest.mark.parametrize(("shift_days", "admitted"), [(-LEAF_DAYS - 1, False), (1, False), (-1, True)])
def test_only_a_certificate_valid_today_is_accepted(cloud, shift_days, admitted):
    then = ManualClock(wall=CLOCK.wall_ms() + shift_days * DAY_MS)
    authority = Authority(cloud.authority.folder, clock=then)

    assert refused(cloud.port, cloud.credentials(GATEWAY, authority=authority)) is not admitted


def test_a_server_certificate_is_no_ticket_for_a_client(cloud, tmp_path):
    ca = tmp_path / "root.crt"
    ca.write_bytes(cloud.authority.root)
    pair = cloud.authority.issue_server([GATEWAY], []).write(tmp_path / "server", "server")

    assert refused(cloud.port, Credentials(ca, *pair))


def test_a_revoked_certificate_is_refused_after_the_signal_and_its_successor_is_not(cloud):
    revoked, living = cloud.credentials(GATEWAY), cloud.credentials(OTHER)
    assert not refused(cloud.port, revoked)

    cloud.authority.revoke(GATEWAY)
    cloud.authority.write_crl(cloud.files.revoked)
    cloud.service.reload()

    wait_until(lambda: refused(cloud.port, revoked), what="the revoked gateway is refused")
    assert not refused(cloud.port, living)
    assert not refused(cloud.port, cloud.credentials(GATEWAY))


@pytest.mark.parametrize(("version", "admitted"), [(TLSVersion.TLSv1_1, False), (TLSVersion.TLSv1_2, True), (TLSVersion.TLSv1_3, True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_tls_older_than_1_2_is_refused(cloud, version, admitted):
    context = tls_context(cloud.credentials(GATEWAY))
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # otherwise our own side would refuse first and prove nothing
    context.minimum_version = context.maximum_version = version

    with socket.create_connection((HOST, cloud.port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="localhost") as secure:
                outcome = secure.version() is not None
        except (ssl.SSLError, ConnectionError):
            outcome = False

    assert outcome is admitted


def test_a_packet_over_the_bound_is_refused_and_one_below_passes(cloud):
    topic = topics.build(GATEWAY, topics.Leaf.TELEMETRY)
    with connected(cloud.port, cloud.credentials(GATEWAY)) as gateway:
        assert gateway.publish(topic, bytes(PACKET_BYTES_MAX - 1024)) in {0, 0x10}

        gateway.client.publish(topic, bytes(PACKET_BYTES_MAX + 1), qos=1)

        assert gateway.closed.get(timeout=10).is_failure


def test_a_worker_may_hold_more_than_twenty_unacknowledged(cloud):
    """Mosquitto's default of 20 starves a worker that acknowledges in batches of more."""

    worker = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    worker.tls_set_context(tls_context(cloud.credentials(worker_of(GATEWAY))))
    received, subscribed = [], []
    worker.on_message = lambda _client, _data, message: received.append(message)
    worker.on_subscribe = lambda *_args: subscribed.append(True)
    worker.on_connect = lambda client, *_args: client.subscribe(topics.subscription(topics.partition_of(GATEWAY)), qos=1)
    worker.connect(HOST, cloud.port)
    worker.loop_start()
    try:
        wait_until(lambda: subscribed, what="subscription")
        with connected(cloud.port, cloud.credentials(GATEWAY)) as gateway:
            for _ in range(60):
                gateway.publish(topics.build(GATEWAY, topics.Leaf.TELEMETRY), b"x")
        wait_until(lambda: len(received) == 60, what="sixty messages without one acknowledgement")
    finally:
        worker.disconnect()
        worker.loop_stop()


def test_a_sleeping_worker_finds_more_than_a_thousand_messages(cloud):
    """Mosquitto's default keeps 1,000 and tells the publisher Success for the rest."""

    credentials = cloud.credentials(worker_of(GATEWAY))
    received: list[bytes] = []
    subscribed: list[bool] = []

    def session() -> Client:
        worker = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        worker.tls_set_context(tls_context(credentials))
        worker.on_message = lambda _client, _data, message: received.append(message.payload)
        worker.on_subscribe = lambda *_args: subscribed.append(True)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        worker.connect(HOST, cloud.port, clean_start=False, properties=properties)
        worker.loop_start()
        return worker

    worker = session()
    worker.subscribe(topics.subscription(topics.partition_of(GATEWAY)), qos=1)
    wait_until(lambda: subscribed, what="subscription")
    worker.disconnect()
    worker.loop_stop()
    with connected(cloud.port, cloud.credentials(GATEWAY)) as gateway:
        for number in range(1_200):
            gateway.client.publish(topics.build(GATEWAY, topics.Leaf.TELEMETRY), str(number).encode(), qos=1)
        for _ in range(1_200):
            gateway.answers.get(timeout=10)

    worker = session()
    try:
        wait_until(lambda: len(received) == 1_200, what="all that was published while it slept")
    finally:
        worker.disconnect()
        worker.loop_stop()
    assert received == [str(number).encode() for number in range(1_200)]


def test_a_cooler_reports_to_its_gateway_and_to_nobody_else(clinic):
    with (
        connected(clinic.port, clinic.credentials(GATEWAY)) as gateway,
        connected(clinic.port, clinic.credentials("cooler-0001")) as cooler,
        connected(clinic.port, clinic.credentials("cooler-0002")) as neighbour,
        connected(clinic.port, clinic.credentials(OTHER)) as unknown,
    ):
        for peer in (gateway, neighbour, unknown):
            peer.subscribe("coolers/+/telemetry")

        assert cooler.publish("coolers/cooler-0001/telemetry", b"{}") == 0
        assert cooler.publish("coolers/cooler-0002/telemetry", b"{}") == NOT_AUTHORIZED

        message = gateway.receive()
        assert message is not None
        assert message.topic == "coolers/cooler-0001/telemetry"
        assert neighbour.receive(SILENCE_S) is None
        assert unknown.receive(SILENCE_S) is None


def test_the_server_certificate_can_be_renewed_without_a_restart(cloud):
    def end() -> dt.datetime:
        context = tls_context(cloud.credentials(GATEWAY))
        with socket.create_connection((HOST, cloud.port)) as raw, context.wrap_socket(raw, server_hostname="localhost") as secure:
            certificate = secure.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc

    before = end()
    later = Authority(cloud.authority.folder, clock=ManualClock(wall=CLOCK.wall_ms() + 3_600_000))
    later.issue_server(["localhost"], [HOST]).write(cloud.files.folder, "server")
    # The new certificate begins five minutes before its issue, so an hour ahead it is not valid yet; only its dates matter here.
    cloud.service.reload()

    wait_until(lambda: served_after(end, before), what="the renewed certificate")


def served_after(end: Callable[[], dt.datetime], before: dt.datetime) -> bool:
    try:
        return end() > before
    except ssl.SSLCertVerificationError:
        return True


def test_the_texts_name_every_partition_and_no_anonymous_way_in(tmp_path):
    text = configuration(Broker("0.0.0.0", 8883), BrokerFolder(tmp_path))  # noqa: S104

    assert "allow_anonymous false" in text
    assert "require_certificate true" in text
    assert [line for line in access_list(Realm.CLOUD).splitlines() if line.startswith("user ")] == [f"user {name}" for name in INGEST_NAMES]
