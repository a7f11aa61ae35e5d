"""A real process with an outbox, killed at random moments and at chosen system calls, and lied to by its disk.

``ICECAP_SWEEP=1`` tries every call of a run instead of a sample.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.outbox import BOOT, Inventory, assert_nothing_lost, open_store, take_inventory

pytestmark = pytest.mark.slow

FULL_SWEEP = os.environ.get("ICECAP_SWEEP") == "1"
ROOT = Path(__file__).resolve().parents[2]
RUN_S = 60.0


@dataclass
class Said:
    """What a worker acknowledged before it ended."""

    code: int
    rows: list[int] = field(default_factory=list)
    facts: list[int] = field(default_factory=list)
    errors: int = 0
    done: tuple[int, ...] | None = None
    noise: str = ""


def parse(code: int, output: bytes, noise: bytes) -> Said:
    said = Said(code, noise=noise.decode()[-2000:])
    for line in output.decode().splitlines():
        kind, *words = line.split()
        if kind == "r":
            said.rows.append(int(words[0]))
        elif kind == "f":
            said.facts.append(int(words[0]))
        elif kind == "error":
            said.errors += 1
        elif kind == "done":
            said.done = tuple(map(int, words))
    return said


def command(folder: Path, first: int, steps: int) -> list[str]:
    return [sys.executable, "-m", "tests.faults.worker", str(folder), str(first), str(steps)]


def run_traced(strace: Path, folder: Path, inject: str, *, first: int = 1, steps: int = 10) -> Said:
    """Run a worker to its end under an injected fault."""
    call = inject.partition(":")[0]
    argv = [str(strace), "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}", *command(folder, first, steps)]
    done = subprocess.run(argv, capture_output=True, cwd=ROOT, timeout=RUN_S, check=False)
    if b"strace:" in done.stderr and b"attach" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.decode()[:200]}")
    return parse(done.returncode, done.stdout, done.stderr)


def check(folder: Path, said: Said) -> Inventory:
    """What was said is there; what is there twice or was never offered is an error."""
    open_store(folder, boot=BOOT, seed=99).close()
    found = take_inventory(folder)
    assert_nothing_lost(found, rows=said.rows, facts_=said.facts)
    assert "outbox_file_damaged" not in found.events
    return found


def test_kill_9_at_random_moments_loses_nothing_over_many_lives(tmp_path):
    rng = random.Random(int(os.environ.get("ICECAP_SEED", "5")))
    rows: list[int] = []
    facts: list[int] = []
    for life in range(int(os.environ.get("ICECAP_KILLS", "4"))):
        process = subprocess.Popen(command(tmp_path, 1 + life * 1_000_000, 100_000), stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        output = b"".join(process.stdout.readline() for _ in range(rng.randrange(5, 60)))
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        output += process.stdout.read()
        process.wait()
        process.stdout.close()
        said = parse(-9, output[: output.rfind(b"\n") + 1], b"")
        rows += said.rows
        facts += said.facts
        check(tmp_path, Said(-9, rows, facts))
    assert len(rows) > 50


WRITES = 300 if FULL_SWEEP else 8


@pytest.mark.parametrize("number", range(1, 301, 300 // WRITES))
def test_kill_9_at_the_nth_write_loses_nothing(require, tmp_path, number):
    said = run_traced(require("strace"), tmp_path, f"pwrite64:signal=SIGKILL:when={number}")

    check(tmp_path, said)
    assert said.code != 0


@pytest.mark.parametrize("number", range(28, 90) if FULL_SWEEP else (30, 37, 44, 53))
def test_a_sync_that_fails_once_is_resolved_by_reading_back(require, tmp_path, number):
    """The commit is unknown: SQLite says that it was rolled back, and the row may be on the disk."""
    said = run_traced(require("strace"), tmp_path, f"fdatasync:error=EIO:when={number}")

    check(tmp_path, said)
    assert said.code == 0, said.noise
    assert said.errors == 0, "one failing sync is repaired without the caller"
    assert (len(said.rows), len(said.facts)) == (50, 10)
    assert said.done is not None
    _, _, reopened, mirror_faults = said.done
    assert reopened + mirror_faults == 1, "the fault was met"


def test_a_disk_that_never_syncs_again_acknowledges_nothing_more(require, tmp_path):
    said = run_traced(require("strace"), tmp_path, "fdatasync:error=EIO:when=40+")

    check(tmp_path, said)
    assert said.errors > 0
    assert len(said.rows) < 50


@pytest.mark.parametrize("number", range(60, 240, 3) if FULL_SWEEP else (90, 140, 190))
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_write_that_fails_once_loses_nothing(require, tmp_path, error, number):
    said = run_traced(require("strace"), tmp_path, f"pwrite64:error={error}:when={number}")

    check(tmp_path, said)
    assert said.code == 0, said.noise
    assert len(said.rows) + 5 * said.errors >= 50
