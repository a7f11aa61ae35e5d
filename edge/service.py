"""Service: the process around the agent: opens the store, hears signals, applies a changed configuration, ends with a code that says why.

    SIGTERM, SIGINT: stop        SIGHUP: read the file again; the same meaning changes nothing, a wrong file leaves the running one

Invariant: the store is opened before and closed after everything else; a changed configuration never touches what waits in it.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import structlog

from edge.agent import Agent, Exit
from edge.config import Config, ConfigError, load, service_manager
from edge.machine import Machine
from edge.notify import Notifier
from edge.outbox import Host, Limits, Outbox, OutboxError, OutboxLockedError
from edge.settings import OutboxConfig
from protocol.units import MS_PER_S

__all__ = ["STOP_S", "serve"]

STOP_S = 5.0  # from the signal to the end of the process: below the patience of systemd and of any supervisor

log = structlog.get_logger("edge.service")


class _Control:
    """What the signals asked for."""

    def __init__(self, on_stopping: Callable[[], None]) -> None:
        self.is_stopping = False
        self.wake = asyncio.Event()
        self._on_stopping = on_stopping
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.wake.set)

    def stop(self) -> None:
        """Begin to end; a second signal adds nothing."""
        if not self.is_stopping:
            log.info("service_stopping")
            self._on_stopping()
        self.is_stopping = True
        self.wake.set()


async def serve(path: Path, config: Config, *, on_stopping: Callable[[], None]) -> Exit:
    """Run the gateway until it is told to stop; ``on_stopping`` is called once, when the process begins to end."""
    control = _Control(on_stopping)
    notifier = Notifier(service_manager())
    try:
        while True:
            ended = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_next_config(path, config, control, ended), name="reload")
                code = await _run_once(config, notifier, ended)
                changed = watcher.result() if watcher.done() else None
                watcher.cancel()
            if changed is None or code is not Exit.OK:
                return code
            config = changed
    finally:
        notifier.close()


async def _next_config(path: Path, config: Config, control: _Control, ended: asyncio.Event) -> Config | None:
    """Wait for a stop (``None``) or for a file that means something else; ``ended`` tells the agent."""
    while True:
        await control.wake.wait()
        control.wake.clear()
        if control.is_stopping:
            ended.set()
            return None
        try:
            changed = await asyncio.to_thread(load, path)
        except ConfigError as error:
            log.error("configuration_refused", errors=error.errors)  # noqa: TRY400 - the errors say it all
            continue
        if changed.digest != config.digest:
            log.info("configuration_changed", digest=changed.digest.hex()[:16])
            ended.set()
            return changed
        log.info("configuration_unchanged", digest=config.digest.hex()[:16])


async def _run_once(config: Config, notifier: Notifier, ended: asyncio.Event) -> Exit:
    """Open the store, run the agent, close the store."""
    machine = await asyncio.to_thread(Machine.start, config.clock)
    host = Host(gateway=config.gateway, boot=machine.boot, clock=machine.clock, timer=machine.timer, rng=machine.rng)
    try:
        outbox = await asyncio.to_thread(_open_outbox, config, host)
    except OutboxLockedError as error:
        log.error("store_locked", why=str(error))  # noqa: TRY400 - the message says who and what to do
        return Exit.LOCKED
    except (OutboxError, OSError) as error:
        log.error("store_not_opened", why=str(error))  # noqa: TRY400 - the message says what and what to do
        return Exit.STORE
    try:
        return await Agent(config, machine, outbox, notifier).run(ended)
    finally:
        if not await asyncio.shield(asyncio.to_thread(outbox.close)):
            log.warning("store_closed_late")


def _open_outbox(config: Config, host: Host) -> Outbox:
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Outbox.open(config.data_dir, host, _limits(config.outbox))


def _limits(settings: OutboxConfig) -> Limits:
    return Limits(
        telemetry_bytes_max=settings.telemetry_bytes_max,
        seal_rows=settings.seal_rows,
        seal_age_ms_session=settings.seal_age_s_session * MS_PER_S,
        seal_age_ms_idle=settings.seal_age_s_idle * MS_PER_S,
        commit_interval_ms=settings.commit_interval_ms,
    )
