"""The agent's small parts: watchdog, clock watch, notices, health socket, logs, keepsakes, live values, waits for the disk."""

import asyncio
import json
import random
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import intake as intake_module
from edge import keepsakes, logs
from edge.asking import ask
from edge.backoff import Backoff
from edge.clockwatch import STEP_MS_MIN, ClockWatch
from edge.condition import ConditionedRow, Conditioner
from edge.config import ServiceManager
from edge.errors import EdgeError
from edge.health import REQUEST_BYTES_MAX, HealthServer, Part, Report
from edge.intake import Intake
from edge.live import LiveBoard
from edge.notify import Notifier
from edge.outbox import AppendResult, OutboxBusyError, OutboxFaultError
from edge.sources.memory import QUARANTINE_BYTES_MAX, Quarantine, Refused, Subscriptions
from edge.sources.status import SourceStatus
from edge.vitals import COMMIT_STUCK_S, LAG_S_MAX, SOURCE_SILENT_S_MAX, Vitals, complaints
from protocol.clock import ClockQuality, ManualClock
from protocol.facts import ClockStepped
from protocol.reading import Quality, Reading
from protocol.refusal import Reason, Refusal
from tests.edge.rig import COOLER, PROFILE, stamp
from tests.support.services import eventually

ROOT = Path(__file__).parents[2]
WELL = SourceStatus("clinic", "mqtt", ok=True, why="", has_succeeded=True, silent_s=0.0)


def reading(number: int = 1, flow: int | None = 300, ts_ms: int | None = None) -> Reading:
    codes = tuple(flow if channel.name == "flow_1" else None for channel in PROFILE.channels)
    return Reading(COOLER, stamp().wall_ms if ts_ms is None else ts_ms, stamp(), codes, number, 1)


# --- watchdog and clock


def test_the_watchdog_is_fed_while_everything_moves() -> None:
    assert complaints(Vitals(0.1, 1.0, (WELL,))) == []


@pytest.mark.parametrize(
    "vitals",
    [
        Vitals(LAG_S_MAX + 1, 0.0, (WELL,)),
        Vitals(0.0, COMMIT_STUCK_S + 1, (WELL,)),
        Vitals(0.0, 0.0, (replace(WELL, ok=False, silent_s=SOURCE_SILENT_S_MAX + 1),)),
    ],
    ids=["loop held", "disk stuck", "source gone"],
)
def test_the_watchdog_starves_when_a_part_of_ours_stands_still(vitals: Vitals) -> None:
    assert len(complaints(vitals)) == 1


def test_a_source_that_never_worked_does_not_restart_the_gateway_for_ever() -> None:
    never = replace(WELL, ok=False, has_succeeded=False, silent_s=None)

    assert complaints(Vitals(0.0, 0.0, (never, replace(never, silent_s=1e9)))) == []


@given(st.lists(st.integers(-500, 500), max_size=50))
def test_slewing_is_no_step(slews: list[int]) -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    for slew in slews:
        clock.advance(1000)
        clock.step_wall(slew)

        assert watch.look() is None


@pytest.mark.parametrize("step_ms", [STEP_MS_MIN, -STEP_MS_MIN, 86_400_000, -86_400_000])
def test_a_step_is_stated_once(step_ms: int) -> None:
    clock = ManualClock(trust=ClockQuality.INFORMATIVE)
    watch = ClockWatch(clock)
    clock.advance(5000)
    clock.step_wall(step_ms)

    assert [watch.look(), watch.look()] == [ClockStepped(step_ms, ClockQuality.INFORMATIVE), None]
    assert watch.steps == 1


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_back_off_stays_between_zero_and_its_ceiling(seed: int, failures: int) -> None:
    backoff = Backoff(random.Random(seed), base_s=1.0, cap_s=60.0)

    waits = [backoff.next_s() for _ in range(failures)]

    assert all(0 <= wait <= min(60.0, 2.0**index) for index, wait in enumerate(waits))


# --- notices


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_notices_reach_the_service_manager(tmp_path: Path, kind: str) -> None:
    is_abstract = kind == "abstract"
    name = f"@icecap-{random.SystemRandom().getrandbits(64)}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        manager.settimeout(5)
        notifier = Notifier(ServiceManager(name))
        notifier.ready()
        notifier.alive("12 rows")
        notifier.stopping()
        notifier.close()

        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1\nSTATUS=12 rows", b"STOPPING=1"]


def test_without_or_with_a_dead_service_manager_notices_are_nothing(tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "nobody")):
        notifier = Notifier(ServiceManager(address))
        notifier.ready()
        notifier.close()


# --- health socket

REPORT = Report(True, "gw-test-1", "0", 1, 2, "S", 3.0, {"outbox": Part(True)})


def served(tmp_path: Path, *requests: bytes) -> list[bytes]:
    async def scene() -> list[bytes]:
        server = HealthServer(tmp_path / "run" / "edge.sock", report=lambda: REPORT, metrics=lambda: b"icecap 1\n")
        task = asyncio.create_task(server.run())
        await eventually(server.path.exists, 5, "the socket")
        await eventually(lambda: server.path.stat().st_mode & 0o777 == 0o660, 5, "its mode")
        answers = []
        for request in requests:
            reader, writer = await asyncio.open_unix_connection(server.path)
            writer.write(request)
            answers.append(await asyncio.wait_for(reader.read(), 10))
            writer.close()
        task.cancel()
        await asyncio.wait([task])
        return answers

    return asyncio.run(scene())


def test_health_answers_its_two_addresses_and_refuses_the_rest(tmp_path: Path) -> None:
    end = b" HTTP/1.1\r\n\r\n"
    answers = served(
        tmp_path,
        b"GET /healthz" + end,
        b"GET /metrics" + end,
        b"GET /x" + end,
        b"POST /healthz" + end,
        b"\r\n\r\n",
        b"GET /" + b"a" * 20_000,
    )

    assert [answer.split(b" ")[1] if answer else b"" for answer in answers] == [b"200", b"200", b"404", b"405", b"405", b""]
    assert json.loads(answers[0].partition(b"\r\n\r\n")[2])["gateway"] == "gw-test-1"
    assert REQUEST_BYTES_MAX < 20_000


def test_asking_a_socket_where_nobody_is_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="is it running"):
        ask(tmp_path / "edge.sock", "/healthz")


# --- logs and keepsakes


def test_log_values_are_short_and_printable() -> None:
    event = logs._tame(None, "info", {"event": "x", "why": "a\n\x1b[31mred", "long": "y" * 5000, "number": 7, "exception": "a\nb"})

    assert event == {"event": "x", "why": "a\\n\\x1b[31mred", "long": "y" * logs.LINE_CHARS_MAX, "number": 7, "exception": "a\nb"}


def test_gates_go_on_after_a_clean_stop_and_start_afresh_without_a_file(tmp_path: Path) -> None:
    before = {COOLER: Conditioner(PROFILE)}
    for second in range(20):
        before[COOLER].take(reading(second, 300, second * 1000))
    keepsakes.save_gates(tmp_path, before)
    after, fresh = {COOLER: Conditioner(PROFILE)}, {COOLER: Conditioner(PROFILE)}
    keepsakes.load_gates(tmp_path, after)
    (tmp_path / "gates.bin").write_bytes(b"noise")
    keepsakes.load_gates(tmp_path, fresh)

    row = reading(21, 301, 21_000)
    assert after[COOLER].take(row) == before[COOLER].take(row)
    assert fresh[COOLER].take(row) != after[COOLER].take(row)


def test_the_applied_digest_is_remembered_and_noise_is_none(tmp_path: Path) -> None:
    assert keepsakes.load_digest(tmp_path) == b""
    keepsakes.save_digest(tmp_path, b"\x01\x02")
    assert keepsakes.load_digest(tmp_path) == b"\x01\x02"
    (tmp_path / "applied").write_text("no hex")
    assert keepsakes.load_digest(tmp_path) == b""
    keepsakes.save_digest(tmp_path / "absent", b"\x01")  # logged, not raised


def test_subscriptions_are_of_one_client_id(tmp_path: Path) -> None:
    subscriptions = Subscriptions(tmp_path / "kept.json")
    assert subscriptions.load("gw-1") == frozenset()
    subscriptions.save("gw-1", frozenset({"a/+", "b/#"}))

    assert subscriptions.load("gw-1") == {"a/+", "b/#"}
    assert subscriptions.load("gw-2") == frozenset()
    (tmp_path / "kept.json").write_text("{")
    assert subscriptions.load("gw-1") == frozenset()


def test_the_quarantine_keeps_the_newest_in_two_bounded_files(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "refused.jsonl")
    for number in range(0, 600, 20):
        payloads = [(one, b"%03d" % one + b"x" * 8000) for one in range(number, number + 20)]
        quarantine.add([Refused("clinic", "t", payload, one, Refusal(Reason.BAD_JSON, "x")) for one, payload in payloads])

    files = sorted(tmp_path.iterdir())
    newest = json.loads(quarantine.path.read_bytes().splitlines()[-1])
    assert [path.name for path in files] == ["refused.jsonl", "refused.old"]
    assert all(path.stat().st_size <= QUARANTINE_BYTES_MAX for path in files)
    assert newest["wall_ms"] == 599
    assert newest["size"] == 8003


# --- live values and waits for the disk


def test_live_shows_the_newest_row_of_each_cooler_once() -> None:
    board, gate = LiveBoard(), Conditioner(PROFILE)
    for row in [gate.take(reading(number, 300 + number, number * 1000)) for number in (1, 3, 2)]:
        board.show(row)

    shown = board.take()

    assert [(live.device, live.ts_ms) for live in shown] == [(COOLER, 3000)]
    assert set(shown[0].values_milli) == {"flow_1"}
    assert board.take() == []
    board.show(gate.take(reading(9, None, 9000)))
    assert len(board.take()) == 1  # coasted


class Sick:
    """A store that is busy, then faulty, then well."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def append_rows(self, rows: Sequence[ConditionedRow]) -> Future[AppendResult]:
        self.calls["all"] += 1
        if self.calls["all"] == 1:
            raise OutboxBusyError("full")
        future: Future[AppendResult] = Future()
        if self.calls["all"] == 2:
            future.set_exception(OutboxFaultError("disk I/O error"))
        else:
            future.set_result(AppendResult(len(rows), 0))
        return future


def test_rows_wait_for_a_busy_and_a_failing_disk_and_are_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "RETRY_S", 0.01)
    store, now = Sick(), iter(range(1000))
    intake = Intake(store, {COOLER: PROFILE}, live=LiveBoard(), timer=lambda: float(next(now)))

    async def scene() -> AppendResult:
        batch = intake.submit([reading(1), reading(2, 99_999)])
        assert intake.waits_s > 0
        return await intake.settle(batch)

    assert asyncio.run(scene()) == AppendResult(2, 0)
    assert intake.counts == {"store_busy": 1, "append_faults": 1, "rows_stored": 2, "rows_duplicate": 0}
    assert intake.fault == ""
    assert intake.waits_s == 0
    assert intake.quality[Quality.RANGE] == 1


# --- the unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: apt-get install systemd")
def test_the_unit_is_sound_and_exposes_little() -> None:
    unit = ROOT / "edge" / "systemd" / "icecap-edge.service"
    verify = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    security = subprocess.run(["systemd-analyze", "security", "--offline=true", str(unit)], capture_output=True, text=True, check=False)

    complaints_ = [line for line in verify.stderr.splitlines() if "icecap-edge" in line and "is not executable" not in line]
    exposure = float(security.stdout.rpartition("exposure level for icecap-edge.service: ")[2].split()[0])
    assert complaints_ == []
    assert exposure <= 2.5
