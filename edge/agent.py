"""Agent: builds the gateway from its configuration, wires it, supervises it, stops it. No logic of readings or records.

    sources ─▶ intake ─▶ outbox ─▶ uplink ─▶ cloud          health · watchdog · clock watch beside them

Invariant: the store is open before any source and any connection, and it is closed last; a source that dies is shown and started again.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import PackageNotFoundError, version

import structlog

from edge import keepsakes
from edge.backoff import Backoff
from edge.clockwatch import ClockWatch
from edge.config import Config
from edge.errors import EdgeError
from edge.health import HealthServer, Report
from edge.intake import Intake
from edge.live import LIVE_INTERVAL_S, LiveBoard
from edge.machine import Machine
from edge.metrics import Snapshot, render
from edge.notify import Notifier
from edge.outbox import Outbox, OutboxFaultError
from edge.report import make_report
from edge.sources.mqtt import MqttReader
from edge.sources.replay import ReplayReader
from edge.sources.surroundings import Surroundings
from edge.uplink import Uplink, UplinkLimits
from edge.vitals import Vitals, complaints
from protocol.facts import ConfigurationApplied, Fact
from protocol.reading import Stamp
from protocol.state import Presence
from protocol.topics import Lane

__all__ = ["VERSION", "Agent", "Exit"]

BEAT_S = 0.5  # how often the loop's lag, the clock and the watchdog are looked at
SYNC_LOOKS = 20  # every how many looks at the clock the kernel is asked whether it is kept: ten seconds
DEATHS_MAX = 10  # a source that dies so often in a row without ever working is a bug that a restart may show better
SOURCE_BASE_S = 1.0
SOURCE_CAP_S = 60.0

log = structlog.get_logger("edge.agent")
Reader = MqttReader | ReplayReader


def _installed_version() -> str:
    """The installed version; ``0`` in a tree that is not installed."""
    try:
        return version("icecap")
    except PackageNotFoundError:
        return "0"


VERSION = _installed_version()
"""Asked once, at import: the answer comes from files."""


class Exit(IntEnum):
    """Why the process ended (sysexits.h), for the service manager and for people."""

    OK = 0
    SOURCE = 69
    """A source died again and again without ever working."""
    BUG = 70
    STORE = 74
    """The store cannot be opened: the disk, another gateway's store, a newer schema."""
    LOCKED = 75
    """Another agent has the store open."""
    CONFIG = 78


class _SourceDeadError(EdgeError):
    """A source cannot be kept alive."""


@dataclass(slots=True)
class _Beat:
    """What the last look at ourselves found; seconds are real."""

    lag_s: float = 0.0
    complaints: tuple[str, ...] = ()


class Agent:
    """One gateway with one configuration, from start to stop."""

    def __init__(self, config: Config, machine: Machine, outbox: Outbox, notifier: Notifier) -> None:
        self._config = config
        self._machine = machine
        self._outbox = outbox
        self._notifier = notifier
        self._live = LiveBoard()
        self._intake = Intake(outbox, config.devices, live=self._live, timer=machine.timer)
        self._watch = ClockWatch(machine.clock)
        self._readers = self._make_readers()
        self._deaths: Counter[str] = Counter()
        self._last_words: dict[str, str] = {}
        self._beat = _Beat()
        self._started_s = machine.timer()
        limits = UplinkLimits(unreceipted_max=config.outbox.in_flight_unreceipted_max)
        presence = Presence(online=True, boot=machine.boot, version=VERSION)
        self._uplink = Uplink(config.cloud, outbox, presence, gateway=config.gateway, limits=limits, timer=machine.timer, rng=machine.rng)

    def _make_readers(self) -> tuple[Reader, ...]:
        config = self._config
        around = Surroundings(
            intake=self._intake,
            devices=config.devices,
            stamp=self._stamp,
            clock=self._machine.clock,
            timer=self._machine.timer,
            rng=self._machine.rng,
            folder=config.data_dir,
        )
        return (
            *(MqttReader(source, around, client_id=config.gateway) for source in config.mqtt),
            *(ReplayReader(source, around) for source in config.replay),
        )

    def _stamp(self) -> Stamp:
        clock = self._machine.clock
        return Stamp(self._machine.boot, clock.monotonic_ms(), clock.wall_ms(), clock.quality())

    async def run(self, stop: asyncio.Event) -> Exit:
        """Work until ``stop`` is set. Raises only what is a bug."""
        await self._apply_configuration()
        await asyncio.to_thread(keepsakes.load_gates, self._config.data_dir, self._intake.conditioners)
        health = HealthServer(self._config.health.socket, report=self._report, metrics=self._metrics)
        code = Exit.OK
        try:
            async with asyncio.TaskGroup() as group:
                parts: dict[str, Coroutine[object, object, None]] = {
                    "health": health.run(),
                    "uplink": self._uplink.run(),
                    "live": self._show_live(),
                    "beat": self._beat_on(),
                    "clock": self._watch_clock(),
                    **{f"source-{reader.name}": self._supervise(reader) for reader in self._readers},
                }
                tasks = [group.create_task(part, name=name) for name, part in parts.items()]
                self._notifier.ready()
                log.info("agent_ready", gateway=self._config.gateway, sources=len(self._readers), boot=self._machine.boot)
                await stop.wait()
                self._notifier.stopping()
                for task in tasks:
                    task.cancel()
        except* _SourceDeadError as dead:
            log.error("source_dead", why=str(dead.exceptions[0]))  # noqa: TRY400 - a trace of a known end helps nobody
            code = Exit.SOURCE
        await asyncio.to_thread(keepsakes.save_gates, self._config.data_dir, self._intake.conditioners)
        return code

    async def _apply_configuration(self) -> None:
        """State in the audit lane which configuration runs, once per configuration."""
        config = self._config
        if await asyncio.to_thread(keepsakes.load_digest, config.data_dir) == config.digest:
            return
        await self._keep(ConfigurationApplied("edge", config.version, config.digest))
        await asyncio.to_thread(keepsakes.save_digest, config.data_dir, config.digest)
        log.info("configuration_applied", version=config.version, digest=config.digest.hex()[:16])

    async def _keep(self, fact: Fact) -> None:
        """Append a fact to the alarm and audit lane; while the disk fails, again and again."""
        while True:
            try:
                await asyncio.wrap_future(self._outbox.append_fact(Lane.ALARM, fact))
            except OutboxFaultError as error:
                log.warning("fact_not_stored", why=str(error))
                await asyncio.sleep(1.0)
            else:
                return

    async def _supervise(self, reader: Reader) -> None:
        """Keep a source alive: a fault in it is shown, counted and answered by a new start after a while."""
        backoff = Backoff(self._machine.rng, base_s=SOURCE_BASE_S, cap_s=SOURCE_CAP_S)
        while True:
            try:
                await reader.run()
            except (Exception, ExceptionGroup) as error:
                self._deaths[reader.name] += 1
                self._last_words[reader.name] = _last_words(error)
                # In a thread: to print a trace, source files are read.
                await asyncio.to_thread(log.error, "source_died", source=reader.name, deaths=self._deaths[reader.name], exc_info=error)
                if backoff.failures >= DEATHS_MAX and not reader.status().has_succeeded:
                    raise _SourceDeadError(f"{reader.name}: {self._last_words[reader.name]}") from error
                await asyncio.sleep(backoff.next_s())
                self._last_words.pop(reader.name, None)
            else:
                return

    async def _show_live(self) -> None:
        while True:
            await asyncio.sleep(LIVE_INTERVAL_S)
            for message in self._live.take():
                self._uplink.publish_live(message)

    async def _beat_on(self) -> None:
        """Measure the loop's lag and feed the watchdog while everything moves."""
        timer = self._machine.timer
        while True:
            before_s = timer()
            await asyncio.sleep(BEAT_S)
            self._beat.lag_s = max(0.0, timer() - before_s - BEAT_S)
            if not self._outbox.is_alive:
                raise RuntimeError("the store's thread is gone; only a new process has a store again")
            found = tuple(complaints(self._vitals()))
            if found != self._beat.complaints:
                log.warning("unwell", why=found)
            self._beat.complaints = found
            if not found:
                self._notifier.alive(f"{self._intake.counts['rows_stored']} rows stored, {self._outbox.stats().staged} staged")

    async def _watch_clock(self) -> None:
        """State every jump of the wall clock as a fact, and keep asking the kernel whether the clock is kept."""
        looks = 0
        while True:
            await asyncio.sleep(BEAT_S)
            looks += 1
            if looks % SYNC_LOOKS == 0:
                self._machine.sync.refresh()
            if (step := self._watch.look()) is not None:
                log.warning("clock_stepped", step_ms=step.step_ms)
                await self._keep(step)

    def _vitals(self) -> Vitals:
        statuses = tuple(reader.status() for reader in self._readers)
        return Vitals(self._beat.lag_s, self._intake.waits_s, statuses)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            sources=tuple(reader.status() for reader in self._readers),
            source_deaths=self._deaths,
            outbox=self._outbox.stats(),
            uplink=self._uplink.status(),
            intake=self._intake.counts,
            rejected=self._intake.quality,
            commit_s=self._intake.commit_s,
            waits_s=self._intake.waits_s,
            lag_s=self._beat.lag_s,
            uptime_s=self._machine.timer() - self._started_s,
            clock_steps=self._watch.steps,
        )

    def _metrics(self) -> bytes:
        return render(self._snapshot())

    def _report(self) -> Report:
        return make_report(
            self._snapshot(),
            stamp=self._stamp(),
            gateway=self._config.gateway,
            version=VERSION,
            last_words=self._last_words,
            complaints=self._beat.complaints,
            store_fault=self._intake.fault,
        )


def _last_words(error: BaseException) -> str:
    """The innermost error of a group in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
