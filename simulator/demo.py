"""Demo: the whole path on one machine, real but for the coolers, until somebody stops it. It stages, starts, tends, measures, cleans up.

    coolers (here) ─► clinic broker ─► gateway ─► cloud broker ─► ingest ─► store ─► console

Invariant: whatever happens in between, at the end no process, port or file of it is left (but the folder that the caller named).
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from ingest.influx import projector as influx
from ingest.store import Store, StoreError
from protocol.clock import MachineClock, Timer
from protocol.profile import builtin
from simulator import account
from simulator.account import Account
from simulator.faults import Fault
from simulator.publish import Feed, payload
from simulator.report import Report
from simulator.stage import GATEWAY, PROFILE, Settings, Stage, StageError, environment, prepare, push_boards
from simulator.supervisor import Supervisor
from simulator.world import World

__all__ = ["Demo", "Kill", "Progress", "parse_kills"]

READY_S = 60.0  # a cold start of all processes on a loaded two-core machine
DRAIN_S = 60.0  # a gateway that was killed last comes back, sends again what has no receipt for 30 s, and ingest commits
TICK_S = 0.02  # a second of sixty-fold time lasts 17 ms
LOOK_S = 0.05  # between looks into the store: the resolution of the latency


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for a process, so many real seconds after the coolers began."""

    name: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the rows are now; all counts are of rows."""

    seconds: float
    made: int
    acknowledged: int
    kept: int
    in_cloud: int
    blocks: int
    restarts: dict[str, int]

    @property
    def underway(self) -> int:
        """Acknowledged by the clinic's broker and not in the cloud yet: in queues and in the gateways' outboxes."""
        return max(0, self.acknowledged - self.in_cloud)


@dataclass(slots=True)
class Demo:
    """A demonstration. ``run`` does everything; ``stop`` may be called from a signal handler."""

    settings: Settings
    machine: MachineClock
    timer: Timer
    wait: Callable[[float], bool]
    """Sleeps so many seconds or less; true when the demonstration is to stop."""
    say: Callable[[str], None]
    show: Callable[[Progress], None]
    announce: Callable[[Stage], None]
    kills: Sequence[Kill] = ()
    faults: dict[str, list[Fault]] = field(default_factory=dict)

    def run(self, seconds: float | None) -> Report:
        """Run for ``seconds`` (or until stopped), wait for what is under way, and report.

        Raises ``StageError`` and ``SupervisorError`` when it cannot begin.
        """
        with _folders(self.settings) as settings:
            stage = prepare(settings, machine=self.machine, say=self.say)
            logs = stage.settings.folder / "logs"
            logs.mkdir(exist_ok=True)
            supervisor = Supervisor(logs, self.timer, environment())
            store = Store.open(stage.database)
            try:
                self._start(stage, supervisor)
                return self._play(_Scene(self, stage, supervisor, store), seconds)
            finally:
                store.close()
                supervisor.stop()

    def _start(self, stage: Stage, supervisor: Supervisor) -> None:
        names = [program.name for program in stage.programs]
        if unknown := [kill.name for kill in self.kills if kill.name not in names]:
            raise StageError(f"there is no process {', '.join(unknown)} to kill; there are: {', '.join(names)}")
        self.say("brokers, ingest, gateways and console")
        for program in stage.programs:
            supervisor.start(program)
        deadline_s = self.timer() + READY_S
        waiting = names
        while waiting and self.timer() < deadline_s and not self.wait(TICK_S):
            waiting = [name for name in waiting if not supervisor.is_ready(name)]
        if stage.settings.service("GRAFANA_URL"):
            self.say(push_boards())
        self.announce(stage)

    def _play(self, scene: "_Scene", seconds: float | None) -> Report:
        try:
            scene.play(seconds)
            drained = scene.drain()
        finally:
            scene.close()
        return scene.report(drained=drained)


class _Scene:
    """The part between start and end: coolers report, the store is watched, children are tended."""

    def __init__(self, demo: Demo, stage: Stage, supervisor: Supervisor, store: Store) -> None:
        self._demo, self._stage, self._supervisor, self._store = demo, stage, supervisor, store
        self._profile = builtin(PROFILE)
        self._world = World(stage.clinic, self._profile, start_ms=stage.clock.wall_ms(), faults=demo.faults)
        self._account = Account(stage.gateways, after_arrival=stage.after_arrival, scale=stage.settings.scale)
        self._feeds = {
            serial: Feed(serial, stage.wire, timer=demo.timer, chance=random.Random(f"{stage.settings.seed}/{serial}/wire"))
            for serial in stage.clinic.serials
        }
        self._duplicates_before = self._duplicates()
        for _row in self._world.rows_until(stage.clock.wall_ms()):
            pass  # while the machines were brought to the present, the present went on; a burst of old rows would spoil the latency
        self._began_s = demo.timer()
        self._looked_s = 0.0
        self._kills = sorted(demo.kills, key=lambda kill: kill.at_s)
        self._rss: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """Real seconds since the coolers began."""
        return self._demo.timer() - self._began_s

    def play(self, seconds: float | None) -> None:
        """Let the coolers report until the time is over or somebody stops."""
        while seconds is None or self.seconds < seconds:
            for row in self._world.rows_until(self._stage.clock.wall_ms()):
                self._feeds[row.serial].offer(row, payload(row, self._profile))
            while self._kills and self.seconds >= self._kills[0].at_s:
                kill = self._kills.pop(0)
                self._demo.say(f"kill -9 {kill.name}")
                self._supervisor.kill(kill.name)
            self._tick()
            if self._demo.wait(TICK_S):
                return

    def drain(self) -> bool:
        """Wait until all that was acknowledged is in the store, for so long at most; tell whether it is."""
        self._demo.say("waiting for what is under way")
        deadline_s = self._demo.timer() + DRAIN_S
        while self._demo.timer() < deadline_s:
            self._tick()
            progress = self.progress()
            has_arrived = not progress.kept and not progress.underway and not self._account.lost(self._acknowledged())
            if has_arrived and not (self._stage.settings.service("INFLUX_URL") and self._projected() < self._account.rows):
                return True
            self._demo.wait(TICK_S)
        return False

    def _tick(self) -> None:
        for feed in self._feeds.values():
            feed.pump()
        for name in self._supervisor.tend():
            self._demo.say(f"{name} was started again")
        if self._demo.timer() - self._looked_s >= LOOK_S:
            self._looked_s = self._demo.timer()
            self._look()
            self._demo.show(self.progress())

    def _look(self) -> None:
        """Take in what is new in the store. A database that is away for a moment is asked again later."""
        try:
            with self._store.reading() as connection:
                self._account.read(connection, now_ms=self._stage.clock.wall_ms())
        except StoreError as error:
            self._demo.say(f"the store does not answer: {error}")
        self._rss.update(self._supervisor.rss_bytes())

    def _duplicates(self) -> int:
        with self._store.reading() as connection:
            return account.duplicates(connection, self._stage.gateways)

    def _projected(self) -> int:
        with self._store.reading() as connection:
            return account.projected(connection, cursor=influx.NAME, after_arrival=self._stage.after_arrival)

    def _acknowledged(self) -> dict[str, account.Boots]:
        return {serial: feed.acknowledged for serial, feed in self._feeds.items()}

    def progress(self) -> Progress:
        """Where the rows are."""
        tallies = [feed.tally for feed in self._feeds.values()]
        return Progress(
            seconds=self.seconds,
            made=sum(one.made for one in tallies),
            acknowledged=sum(one.acknowledged for one in tallies),
            kept=sum(one.kept for one in tallies),
            in_cloud=self._account.rows - self._account.twice,
            blocks=self._account.blocks,
            restarts=self._supervisor.restarts(),
        )

    def report(self, *, drained: bool) -> Report:
        """The figures at the end. It ends the gateways, for nobody else may open the store of one that runs."""
        progress, latency = self.progress(), self._account.latency()
        for program in self._stage.programs:
            if program.name.startswith(GATEWAY):
                self._supervisor.stop_one(program.name)
        outboxes = [self._stage.settings.folder / gateway / "data" / "outbox.db" for gateway in self._stage.gateways]
        return Report(
            seconds=round(progress.seconds, 1),
            scale=self._stage.settings.scale,
            seed=self._stage.settings.seed,
            coolers=len(self._feeds),
            gateways=len(self._stage.gateways),
            readings_sent=progress.made,
            readings_acknowledged=progress.acknowledged,
            publishes=sum(feed.tally.publishes for feed in self._feeds.values()),
            readings_kept=progress.kept,
            blocks_appended=sum(account.numbered(outbox) for outbox in outboxes),
            blocks_received=self._account.blocks,
            rows_received=self._account.rows,
            points_projected=self._projected() if self._stage.settings.service("INFLUX_URL") else None,
            duplicates_dropped=self._duplicates() - self._duplicates_before,
            lost=self._account.lost(self._acknowledged()),
            twice=self._account.twice,
            unreadable_blocks=self._account.unreadable,
            latency_p50_ms=latency.p50_ms,
            latency_p99_ms=latency.p99_ms,
            rss_bytes={**self._rss, "demo": int(psutil.Process().memory_info().rss)},
            restarts=progress.restarts,
            drained=drained,
        )

    def close(self) -> None:
        """Take the coolers off the broker."""
        for feed in self._feeds.values():
            feed.close()


def parse_kills(text: str) -> list[Kill]:
    """Return the kills in ``NAME@SECONDS,NAME@SECONDS``. Raises ``ValueError`` for anything else."""
    kills = []
    for part in filter(None, text.split(",")):
        name, _, at_s = part.partition("@")
        try:
            kills.append(Kill(name, float(at_s)))
        except ValueError:
            raise ValueError(f"kill {part!r}: want NAME@SECONDS, for example ingest@20") from None
    return kills


@contextmanager
def _folders(settings: Settings) -> Iterator[Settings]:
    """The named folder, or one that goes again; and always one with a short name, for a socket's path holds 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="icecap-") as short:
        sockets = Path(short)
        folder = settings.folder if settings.folder != Path() else sockets / "demo"
        yield replace(settings, folder=folder, sockets=sockets)
