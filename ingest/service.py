"""Service: the ingest process, built and kept running: sessions, the worker, projections, health. Decides nothing about messages.

Invariant: only the worker is needed to take messages in. When it dies the service ends, so that whoever watches the process restarts it;
a projection that dies is restarted here, and nobody else waits for it. A stop takes at most ``STOP_S``.
"""

import random
import threading
import time
from collections.abc import Callable
from importlib import metadata

import structlog

from ingest.config import ClockConfig, Config
from ingest.consumer import Consumer
from ingest.health import HealthServer, Metrics, Part, Report
from ingest.influx.gateways import GatewayProjection
from ingest.influx.projector import InfluxProjection
from ingest.influx.sink import open_sink
from ingest.projection import Projection, Runner, State, Status, full_jitter_s
from ingest.rollup import RollupProjection
from ingest.store import Store, StoreDownError
from ingest.worker import Worker
from protocol.clock import Clock, MachineClock, ScaledClock, Timer

__all__ = ["STOP_S", "Service", "make_clock", "make_timer"]

STOP_S = 5.0  # what a supervisor may expect; the batch in hand, the connections and the projections share it
WORKER_STOP_S = 2.0  # for the batch in hand
PROJECTION_STOP_S = 1.0  # a write in flight is repeated after the next start, so nobody waits for a slow sink

log = structlog.get_logger(__name__)


def make_clock(settings: ClockConfig) -> Clock:
    """The clock that the configuration names. The machine's own is not asked whether it is synchronised: receipts carry no quality."""
    if settings.kind == "scaled":
        return ScaledClock(time.monotonic_ns, settings.origin_ns, settings.start_wall_ms, settings.scale)
    return MachineClock(time.time_ns, time.monotonic_ns, lambda: False)


def make_timer() -> Timer:
    """Real seconds."""
    return lambda: time.monotonic_ns() / 1e9


class Service:
    """One ingest process."""

    def __init__(self, config: Config, *, clock: Clock, timer: Timer, rng: random.Random) -> None:
        self._config, self._clock, self._timer, self._rng = config, clock, timer, rng
        self.ending = threading.Event()
        self.failed = False
        self.store = Store.open(config.database)
        self.consumer = Consumer(config.broker, config.partitions, clock=clock, timer=timer, rng=rng, on_session=self._on_session)
        self.worker = Worker(self.store, self.consumer, profiles=config.profiles, clock=clock, timer=timer, rng=rng)
        self._runners: dict[str, Runner] = {}
        self._metrics = Metrics(self.worker.totals, self.consumer, self._projection_states)
        self._health = (
            HealthServer(config.health_socket, report=self.report, metrics=self._metrics.text) if config.health_socket is not None else None
        )
        self._worker_thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._projection_threads = [
            threading.Thread(target=self._project, args=(name, make), name=f"projection-{name}", daemon=True)
            for name, make in self._projections().items()
        ]

    def run(self) -> bool:
        """Serve until ``ending`` is set; returns whether it ended well. Raises ``StoreError`` for a database that it must not touch."""
        if self._health is not None:
            self._health.start()
        try:
            if self._migrate():
                self.consumer.start()
                self._worker_thread.start()
                for thread in self._projection_threads:
                    thread.start()
                log.info("ingest_started", partitions=len(self._config.partitions), store=self.store.dialect)
                self.ending.wait()
        finally:
            self._stop()
        return not self.failed

    def report(self) -> Report:
        """What health shows."""
        totals, states = self.worker.totals, self.consumer.states()
        down = [state for state in states if not state.up]
        why = "; ".join(sorted({f"{state.why or 'connecting'}" for state in down}))
        parts = {
            "store": Part(not totals.store_down, "the database is away; the broker keeps what comes" if totals.store_down else ""),
            "broker": Part(not down, f"{len(down)} of {len(states)} sessions down: {why}" if down else "", {"up": len(states) - len(down)}),
            "worker": Part(self._worker_thread.is_alive(), "", {"batches": totals.batches, "waiting": len(self.consumer.inbox)}),
        }
        ok = all(part.ok for part in parts.values())
        for status in self._projection_states():
            working = status.state in {State.STARTING, State.WORKING, State.UP_TO_DATE}
            text = "" if working else f"{status.reason}: {status.detail}"
            parts[f"projection {status.name}"] = Part(working, text, {"passed": status.passed, "failures": status.failures})
        return Report(ok, metadata.version("icecap"), self._clock.wall_ms(), parts)

    def _migrate(self) -> bool:
        """Bring the tables up to date, waiting for a database that is away; false when told to end before."""
        failures = 0
        while not self.ending.is_set():
            try:
                self.store.migrate()
            except StoreDownError as error:
                failures += 1
                if failures == 1:
                    log.warning("ingest_store_down", error=str(error))
                self.worker.totals.store_down = True
                self.ending.wait(full_jitter_s(self._rng, failures))
            else:
                self.worker.totals.store_down = False
                return True
        return False

    def _projections(self) -> dict[str, Callable[[], Projection]]:
        store, clock, find = self.store, self._clock, self._config.profiles.find
        made: dict[str, Callable[[], Projection]] = {}
        if self._config.rollup:
            made["rollup"] = lambda: RollupProjection(store, profiles=find, clock=clock)
        if (influx := self._config.influx) is not None:
            made["influx"] = lambda: InfluxProjection(store, open_sink(influx), profiles=find, clock=clock)
            made["gateways"] = lambda: GatewayProjection(store, open_sink(influx), clock=clock)
        return made

    def _work(self) -> None:
        try:
            self.worker.run()
        except Exception:
            self.failed = True
            log.exception("ingest_worker_died")
        finally:
            self.ending.set()

    def _project(self, name: str, make: Callable[[], Projection]) -> None:
        """Run one projection; a bug in it costs a restart after a wait, never the process."""
        failures = 0
        while not self.ending.is_set():
            runner = Runner(make(), timer=self._timer, rng=self._rng, stop=self.ending)
            self._runners[name] = runner
            try:
                runner.run()
            except Exception:
                failures += 1
                log.exception("projection_died", projection=name)
                self.ending.wait(full_jitter_s(self._rng, failures))

    def _projection_states(self) -> list[Status]:
        return [runner.status for _, runner in sorted(self._runners.items())]

    def _on_session(self, client_id: str, present: bool) -> None:  # noqa: FBT001 - a callback with the library's own shape
        self.worker.note_session(client_id, present)

    def _stop(self) -> None:
        """The worker first, so that what it has in hand is acknowledged; then the connections; then the rest."""
        self.ending.set()
        self.worker.stop()
        if self._worker_thread.is_alive():
            self._worker_thread.join(WORKER_STOP_S)
        self.consumer.stop()
        end_s = self._timer() + PROJECTION_STOP_S
        for thread in self._projection_threads:
            if thread.is_alive():
                thread.join(max(0.0, end_s - self._timer()))
        if self._health is not None:
            self._health.stop()
        self.store.close()
        log.info("ingest_stopped", failed=self.failed)
