"""Consumer: the persistent sessions of the partitions that this worker holds, kept connected. A ``Source`` on MQTT; it writes nothing.

    broker → Link.on_message → Inbox → Consumer.receive → (commit) → Consumer.ack → Link.ack → broker

Invariant: acknowledgements leave in the order of receipt, from one thread, on the connection that brought the message, after the commit.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from ingest.inbox import Inbox
from ingest.link import BrokerSettings, Handle, Link, client_id
from ingest.receipts import Addressed
from ingest.source import Delivery
from protocol import topics
from protocol.clock import Clock, Timer

__all__ = ["Consumer", "PartitionState"]

BACK_OFF_S = 0.5  # the first wait is up to this
BACK_OFF_S_MAX = 30.0  # a broker that returns is found within half a minute by every session
STEADY_S = 30.0  # a connection that lived shorter counts as a failure: accept-then-kick must not become a loop
CHECK_S = 0.5  # how soon a dead network thread and a stop are noticed
STOP_S = 3.0  # below the service's five seconds for everything

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What health shows of one session."""

    partition: str
    up: bool
    unacked: int
    connections: int
    why: str


class Consumer:
    """Sessions of ``partitions``; one thread keeps each connected."""

    def __init__(
        self,
        settings: BrokerSettings,
        partitions: Sequence[str],
        *,
        clock: Clock,
        timer: Timer,
        rng: random.Random,
        on_session: Callable[[str, bool], None],
    ) -> None:
        self.partitions = tuple(partitions)
        self.counts: Counter[str] = Counter()
        self.inbox = Inbox()
        self._settings, self._clock, self._timer, self._rng, self._on_session = settings, clock, timer, rng, on_session
        self._links: dict[str, Link] = {}
        self._connections: Counter[str] = Counter()
        self._why: dict[str, str] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._keep, args=(one,), name=f"keep-{one}", daemon=True) for one in self.partitions]

    def start(self) -> None:
        """Begin to connect."""
        for thread in self._threads:
            thread.start()

    def receive(self, timeout_s: float) -> Sequence[Delivery]:
        """See ``Source``."""
        return self.inbox.take(timeout_s)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See ``Source``."""
        for delivery in deliveries:
            handle = delivery.handle
            if isinstance(handle, Handle):
                handle.link.ack(handle)

    def receipt(self, addressed: Addressed) -> None:
        """See ``Source``."""
        link = self._links.get(topics.partition_of(addressed.gateway))
        if link is None or not link.is_up:
            self.counts["receipts_lost"] += 1
            return
        link.receipt(addressed)

    def states(self) -> list[PartitionState]:
        """Every session as it is now."""
        return [self._state(partition) for partition in self.partitions]

    def stop(self) -> None:
        """Disconnect; the sessions and what is unacknowledged in them stay with the broker. Returns within ``STOP_S``."""
        end_s = self._timer() + STOP_S
        self._stop.set()
        self.inbox.close()
        for link in list(self._links.values()):
            link.end("closed by us")
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end_s - self._timer()))

    def _state(self, partition: str) -> PartitionState:
        link = self._links.get(partition)
        up = link is not None and link.is_up
        return PartitionState(partition, up, link.unacked if link else 0, self._connections[partition], self._why.get(partition, ""))

    def _keep(self, partition: str) -> None:
        """Keep one session connected until told to stop: full jitter between attempts, so that sixteen do not march in step."""
        failures = 0
        while not self._stop.is_set():
            began_s = self._timer()
            why = self._connection(partition)
            if why != self._why.get(partition) and not self._stop.is_set():
                log.warning("ingest_session_down", client=client_id(partition), why=why)
            self._why[partition] = why
            failures = 1 if self._timer() - began_s >= STEADY_S else failures + 1
            self._stop.wait(self._rng.uniform(0, min(BACK_OFF_S_MAX, BACK_OFF_S * 2 ** min(failures, 16))))

    def _connection(self, partition: str) -> str:
        """One connection from beginning to end; returns why it ended."""
        link = Link(
            partition, self._settings, inbox=self.inbox, counts=self.counts, wall_ms=self._clock.wall_ms, on_session=self._on_session
        )
        try:
            link.open()
        except (OSError, ValueError) as error:
            link.close()
            return f"{type(error).__name__}: {error}"
        self._links[partition] = link
        self._connections[partition] += 1
        while not link.ended.wait(CHECK_S) and not self._stop.is_set():
            link.check()
        link.close()
        self.inbox.drop(lambda delivery: isinstance(delivery.handle, Handle) and delivery.handle.link is link)
        return link.why
