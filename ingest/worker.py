"""Worker: takes batches from a source, commits them, acknowledges, sends receipts. One thread, so that acknowledgements keep their order.

Hops from the broker to the ledger: ``Link.on_message`` → ``Worker.turn`` → ``apply_batch`` → ``write``.

Invariant: nothing is acknowledged before its commit, no receipt leaves before it either, and no message can stop the ones behind it.
"""

import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from ingest import sessions
from ingest.apply import Applied, Reader, apply_batch, read_nothing
from ingest.arrivals import Incoming, read
from ingest.profiles import Profiles
from ingest.source import Source
from ingest.store import Store, StoreDownError
from protocol.clock import Clock, Timer

__all__ = ["Totals", "Worker"]

RECEIVE_S = 0.5  # how soon a stop is noticed when nothing comes
BACK_OFF_S = 0.2  # the first wait for a database that is down is up to this
BACK_OFF_S_MAX = 10.0  # the broker keeps everything meanwhile, so there is no hurry; but a database that is back is used soon
NOTES_MAX = 1024  # connections not yet written down while the database is away: the newest are kept

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Totals:
    """What the worker did since its start; read by health from another thread."""

    batches: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    store_failures: int = 0
    store_down: bool = False
    poison: int = 0
    sessions_lost: int = 0
    commit_s: float = 0.0


class Worker:
    """The one that writes."""

    def __init__(self, store: Store, source: Source, *, profiles: Profiles, clock: Clock, timer: Timer, rng: random.Random) -> None:
        self.totals = Totals()
        self._store, self._source, self._profiles, self._clock, self._timer, self._rng = store, source, profiles, clock, timer, rng
        self._notes: deque[tuple[str, bool]] = deque(maxlen=NOTES_MAX)
        self._stop = threading.Event()
        self._failures = 0

    def note_session(self, client_id: str, present: bool) -> None:  # noqa: FBT001 - a callback with the library's own shape
        """Have a connection written down; called from network threads."""
        self._notes.append((client_id, present))

    def stop(self) -> None:
        """End after the batch in hand; one that cannot be committed is left to the broker."""
        self._stop.set()

    def run(self) -> None:
        """Work until told to stop."""
        while not self._stop.is_set():
            self.turn()

    def turn(self) -> None:
        """One batch: receive, commit (until the database takes it), acknowledge, send receipts."""
        deliveries = self._source.receive(RECEIVE_S)
        self._write_notes()
        began_s = self._timer()
        applied: list[Applied] = []
        while deliveries and not applied:
            messages = [delivery.message for delivery in deliveries]
            try:
                with self._store.transaction() as connection:
                    applied = [apply_batch(connection, messages, profiles=self._profiles, now_ms=self._clock.wall_ms())]
            except StoreDownError as error:
                if not self._wait_for_store(error):
                    return  # told to stop: nothing was acknowledged, the broker keeps it
            except Exception:
                log.exception("ingest_batch_failed", messages=len(messages))
                applied = self._one_by_one(messages)
                if not applied:
                    return
        if not applied:
            return
        self._store_is_back()
        self.totals.commit_s += self._timer() - began_s
        self._source.ack(deliveries)
        for one in applied:
            for addressed in one.receipts:
                self._source.receipt(addressed)
            self._count(one)
        self.totals.batches += 1

    def _one_by_one(self, messages: Sequence[Incoming]) -> list[Applied]:
        """Something in the batch raised: the message that does it is kept unread, the others go on; empty when told to stop.

        Raises when even keeping it unread fails: that is no message's fault.
        """
        done: list[Applied] = []
        for message in messages:
            reader: Reader = read
            kept = len(done)
            while len(done) == kept:
                try:
                    with self._store.transaction() as connection:
                        now_ms = self._clock.wall_ms()
                        done.append(apply_batch(connection, [message], profiles=self._profiles, now_ms=now_ms, reader=reader))
                except StoreDownError as error:
                    if not self._wait_for_store(error):
                        return []
                except Exception:
                    if reader is read_nothing:
                        raise
                    log.exception("ingest_poison", topic=message.topic, size=len(message.payload))
                    self.totals.poison += 1
                    reader = read_nothing
        return done

    def _wait_for_store(self, error: StoreDownError) -> bool:
        """Wait before the next attempt; false when told to stop meanwhile."""
        self._failures += 1
        self.totals.store_failures += 1
        if not self.totals.store_down:
            log.warning("ingest_store_down", error=str(error))
        self.totals.store_down = True
        return not self._stop.wait(self._rng.uniform(0, min(BACK_OFF_S_MAX, BACK_OFF_S * 2 ** min(self._failures, 16))))

    def _store_is_back(self) -> None:
        if self.totals.store_down:
            log.info("ingest_store_back", failures=self._failures)
        self._failures = 0
        self.totals.store_down = False

    def _count(self, applied: Applied) -> None:
        self.totals.messages.update(outcome.value for outcome in applied.outcomes)
        self.totals.refusals.update({reason.value: count for reason, count in applied.refusals.items()})
        for one in applied.happenings:
            log.warning("ingest_event", kind=one.kind, gateway=one.gateway, device=one.device, detail=one.detail)

    def _write_notes(self) -> None:
        while self._notes:
            client_id, present = self._notes[0]
            try:
                with self._store.transaction() as connection:
                    lost = sessions.note(connection, client_id, present=present, now_ms=self._clock.wall_ms())
            except StoreDownError:
                return  # tried again at the next turn
            self._notes.popleft()
            if lost:
                self.totals.sessions_lost += 1
                log.warning("ingest_session_lost", client=client_id)
