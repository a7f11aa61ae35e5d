"""Supervisor: child processes that are started in order, restarted when they die, and gone when it is done. Not for production: systemd is.

Invariant: after ``stop`` none of the children runs, whatever they were doing, and should this process be killed itself, the kernel ends
them (where it can: ``setpriv --pdeathsig`` of util-linux).
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from protocol.clock import Timer

__all__ = ["Program", "Supervisor", "SupervisorError"]

STOP_S = 8.0  # a gateway seals and closes in well under a second; a loaded machine may need some
PAUSE_S = 0.2  # before a restart; doubled with each death in a row
PAUSE_S_MAX = 5.0  # a person who watches must not think that it gave up
SETTLED_S = 10.0  # who lived this long did not die of its start
LOG_TAIL_CHARS = 2_000


class SupervisorError(Exception):
    """A program that does not start; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to start. ``ready`` says when it serves; without it, being alive is enough."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool] | None = None


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started_s: float
    deaths_in_row: int = 0
    restarts: int = 0
    due_s: float | None = None
    """When it is to be started again; ``None`` while it lives."""


@dataclass(slots=True)
class Supervisor:
    """Children by name, in the order of their start. Used from one thread: the kernel ties a child's life to the thread that made it."""

    logs: Path
    timer: Timer
    environment: Mapping[str, str]
    children: dict[str, _Child] = field(default_factory=dict)

    def start(self, program: Program) -> None:
        """Start a program. Raises ``SupervisorError`` when there is one of that name."""
        if program.name in self.children:
            raise SupervisorError(f"{program.name} runs already")
        self.children[program.name] = _Child(program, self._spawn(program), self.timer())

    def is_ready(self, name: str) -> bool:
        """Whether it serves. Raises ``SupervisorError`` when it died instead."""
        child = self.children[name]
        if (code := child.process.poll()) is not None:
            raise SupervisorError(f"{name} ended with {code} at its start; its log ends:\n{self.log_tail(name)}")
        return child.program.ready is None or child.program.ready()

    def tend(self) -> list[str]:
        """Restart who has died, after a pause that grows with each death in a row; return the names of those started now."""
        started = []
        now_s = self.timer()
        for name, child in self.children.items():
            if child.due_s is None and child.process.poll() is not None:
                lived_s = now_s - child.started_s
                child.deaths_in_row = 0 if lived_s > SETTLED_S else child.deaths_in_row + 1
                child.due_s = now_s + min(PAUSE_S_MAX, PAUSE_S * 2**child.deaths_in_row)
            if child.due_s is not None and now_s >= child.due_s:
                child.process, child.started_s, child.due_s = self._spawn(child.program), now_s, None
                child.restarts += 1
                started.append(name)
        return started

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut would. ``tend`` starts it again. Raises ``KeyError`` for an unknown name."""
        self.children[name].process.kill()

    def stop(self) -> None:
        """End all children, the last started first: politely, then by force."""
        for child in reversed(self.children.values()):
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
                try:
                    child.process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    child.process.kill()
            child.process.wait()
        self.children.clear()

    def stop_one(self, name: str) -> None:
        """End one child for good."""
        child = self.children.pop(name)
        Supervisor(self.logs, self.timer, self.environment, {name: child}).stop()

    def restarts(self) -> dict[str, int]:
        """How often each child was started again."""
        return {name: child.restarts for name, child in self.children.items()}

    def rss_bytes(self) -> dict[str, int]:
        """Resident memory of each living child."""
        found = {}
        for name, child in self.children.items():
            try:
                found[name] = int(psutil.Process(child.process.pid).memory_info().rss)
            except psutil.Error:
                continue  # it died a moment ago
        return found

    def log_tail(self, name: str) -> str:
        """The end of what a child has said."""
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace")[-LOG_TAIL_CHARS:] if path.exists() else ""

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        with (self.logs / f"{program.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*_leash(), *program.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends the children in order
            )


def _leash() -> tuple[str, ...]:
    """What makes the kernel end a child with its parent."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
