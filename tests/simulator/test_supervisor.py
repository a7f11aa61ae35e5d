import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from simulator.stage import environment
from simulator.supervisor import Program, Supervisor, SupervisorError
from tests.support.services import wait_until

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path, time.monotonic, environment())
    yield made
    made.stop()


def pid_of(supervisor: Supervisor, name: str) -> int:
    return supervisor.children[name].process.pid


def has_spoken(supervisor: Supervisor, name: str, times: int = 1) -> bool:
    return supervisor.log_tail(name).count("up") >= times


def test_a_killed_child_comes_back(supervisor):
    supervisor.start(Program("one", SLEEPER))
    first = pid_of(supervisor, "one")

    supervisor.kill("one")

    assert wait_until(supervisor.tend, what="a restart") == ["one"]
    assert pid_of(supervisor, "one") != first
    assert supervisor.restarts() == {"one": 1}


def test_a_child_that_dies_again_and_again_is_not_hammered(tmp_path):
    seconds = [0.0]
    supervisor = Supervisor(tmp_path, lambda: seconds[0], environment())
    supervisor.start(Program("dying", [sys.executable, "-c", "raise SystemExit(3)"]))
    starts = []
    for _ in range(60):
        supervisor.children["dying"].process.wait()
        starts += [seconds[0]] * len(supervisor.tend())
        seconds[0] += 0.5

    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 5.0
    supervisor.stop()


def test_a_child_that_dies_at_its_start_shows_its_last_words(supervisor):
    supervisor.start(Program("broken", [sys.executable, "-c", "raise SystemExit('no such port')"]))
    supervisor.children["broken"].process.wait()

    with pytest.raises(SupervisorError, match="no such port"):
        supervisor.is_ready("broken")


def test_stop_ends_the_polite_and_the_stubborn(tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.supervisor.STOP_S", 0.5)
    supervisor = Supervisor(tmp_path, time.monotonic, environment())
    for name, argv in (("polite", SLEEPER), ("stubborn", STUBBORN)):
        supervisor.start(Program(name, argv))
    wait_until(lambda: has_spoken(supervisor, "polite") and has_spoken(supervisor, "stubborn"), what="both are up")
    pids = [pid_of(supervisor, name) for name in ("polite", "stubborn")]

    supervisor.stop()

    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_ctrl_c_of_the_terminal_does_not_reach_the_children(supervisor):
    supervisor.start(Program("one", SLEEPER))

    assert os.getpgid(pid_of(supervisor, "one")) != os.getpgrp()


def test_memory_is_told_for_every_child(supervisor):
    supervisor.start(Program("one", SLEEPER))
    wait_until(lambda: has_spoken(supervisor, "one"), what="it is up")

    assert supervisor.rss_bytes()["one"] > 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_children_die_with_a_supervisor_that_is_killed(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from simulator.supervisor import Program, Supervisor
        supervisor = Supervisor(Path({str(tmp_path)!r}), time.monotonic, {{}})
        supervisor.start(Program("one", {SLEEPER!r}))
        print(supervisor.children["one"].process.pid, flush=True)
        time.sleep(600)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment()})
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until(lambda: "up" in (tmp_path / "one.log").read_text(), what="the child is up")

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE, what="the child is gone")
