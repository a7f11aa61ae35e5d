"""The cloud side for tests: a broker on mutual TLS, an ingest service on it (in this process or as its own), and a gateway that talks."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.config import Config, parse
from ingest.link import client_id
from ingest.service import Service, make_clock, make_timer
from protocol import receipt, topics
from protocol.receipt import Receipt
from protocol.units import GatewayId
from tests.ingest.frames import GATEWAY
from tests.support.mtls import Peer, TlsBroker, connected
from tests.support.services import HOST, wait_until

REPOSITORY = Path(__file__).parents[2]
PARTITION = topics.partition_of(GatewayId(GATEWAY))

# Runs the real command line after a line of the test's own, for faults that only the process itself can have.
WRAPPED = "import sys\n{before}\nfrom icecap import main\nsys.argv = ['icecap', 'ingest', 'run', '--config', {config!r}]\nmain()\n"


def config_text(broker: TlsBroker, database: str, *, partitions: Sequence[str] = (PARTITION,), more: str = "") -> str:
    """A configuration whose certificates are issued here."""
    for partition in partitions:
        broker.credentials(client_id(partition))
    listed = ", ".join(f'"{one}"' for one in partitions)
    return f"""
database = "{database}"
partitions = [{listed}]
rollup = false
{more}
[broker]
host = "{HOST}"
port = {broker.port}
ca = "{broker.folder / "root.crt"}"
cert_dir = "{broker.folder / "clients"}"
[health]
socket = "{broker.folder / "ingest.sock"}"
"""


def config_of(broker: TlsBroker, database: str, **given) -> Config:
    return parse(config_text(broker, database, **given), folder=broker.folder, environment=os.environ)


@contextmanager
def serving(config: Config) -> Iterator[Service]:
    """An ingest service in this process, connected."""
    service = Service(config, clock=make_clock(config.clock), timer=make_timer(), rng=random.Random(1))
    thread = threading.Thread(target=service.run, name="service")
    thread.start()
    try:
        wait_until(lambda: all(state.up for state in service.consumer.states()), 15, "the sessions to be up")
        yield service
    finally:
        service.ending.set()
        thread.join(10)


@dataclass(slots=True)
class Process:
    """An ingest service as a process of its own."""

    config: Path
    socket: Path
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, before: str = "", *, wait: bool = True) -> None:
        """Start it; ``before`` is a line of Python that runs in it first."""
        with self.log.open("ab") as log:
            code = WRAPPED.format(before=before, config=str(self.config))
            self.process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=log, stdout=log)
        if wait:
            wait_until(self.is_well, 40, f"ingest to be well; its log: {self.log.read_text()[-2000:]}")

    def is_well(self) -> bool:
        from ingest.health import ask

        try:
            return ask(self.socket).ok
        except OSError:
            return False

    def wait(self, timeout_s: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def heard(peer: Peer, *, stream: int = 11) -> list[Receipt]:
    """The receipts of a stream that have come by now."""
    found = []
    while (message := peer.receive(0.5)) is not None:
        decoded = receipt.decode(bytes(message.payload))
        if isinstance(decoded, Receipt) and decoded.stream == stream:
            found.append(decoded)
    return found


def receipts(peer: Peer, *, until: int, stream: int = 11, timeout_s: float = 15) -> Receipt:
    """The first receipt that covers ``until``."""
    found: list[Receipt] = []

    def look() -> Receipt | None:
        if message := peer.receive(0.1):
            decoded = receipt.decode(bytes(message.payload))
            assert isinstance(decoded, Receipt)
            found.append(decoded)
        return next((one for one in found if one.stream == stream and one.up_to >= until), None)

    covering = wait_until(look, timeout_s, f"a receipt up to {until}; seen: {found[-3:]}")
    assert covering is not None
    return covering


@contextmanager
def gateway_on(broker: TlsBroker, name: str = GATEWAY) -> Iterator[Peer]:
    """A gateway that listens for its receipts."""
    with connected(broker.port, broker.credentials(name)) as peer:
        assert peer.subscribe(topics.build(GatewayId(name), topics.Leaf.RECEIPT)) < 0x80
        yield peer
