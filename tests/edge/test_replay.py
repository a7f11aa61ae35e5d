"""A recording is played row by row: every line arrives or is refused by number, and twice is once."""

import asyncio
import csv
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge.intake import Intake
from edge.live import LiveBoard
from edge.outbox import Outbox
from edge.settings import ReplayColumn, ReplaySource
from edge.sources.replay import ReplayReader
from protocol.clock import ManualClock
from protocol.profile import Profile, parse
from protocol.reading import Quality
from protocol.refusal import Reason
from tests.edge.rig import COOLER, PROFILE, opened, stored, surroundings
from tests.support.services import eventually

RECORDINGS = Path(__file__).parents[3] / "shared" / "data"
T0 = 1_581_168_647_000  # 2020-02-08T13:30:47Z


def settings(file: Path, **changes: object) -> ReplaySource:
    values: dict[str, object] = {
        "name": "rig",
        "file": file,
        "serial": COOLER,
        "profile": "icecap-cooler",
        "time_column": "when",
        "columns": {"flow_1": "flow", "coolant_temp_1": ReplayColumn(column="fahrenheit", multiply=5 / 9, add=-160 / 9)},
        "speed": 0.0,
    }
    return ReplaySource(**{**values, **changes})  # type: ignore[arg-type]


def play(outbox: Outbox, source: ReplaySource, folder: Path) -> ReplayReader:
    reader = ReplayReader(source, surroundings(outbox, folder))
    asyncio.run(reader.run())
    return reader


def test_every_line_becomes_a_row_or_a_counted_refusal(tmp_path: Path) -> None:
    lines = ["when,flow,fahrenheit", "0,3.0,32", "1,,32.036", "x,3.0,32", "2,abc,32", "3,nan,", "4.25,1e999,32", "5,3.1,32.036"]
    (tmp_path / "rig.csv").write_text("\n".join(lines))

    with opened(tmp_path / "box") as outbox:
        reader = play(outbox, settings(tmp_path / "rig.csv", start_wall_ms=T0), tmp_path)
        found = stored(outbox)

    assert reader.counts["messages"] == 7
    assert reader.refusals == {Reason.BAD_VALUE: 4}
    assert [number for _device, _boot, number in found.keys] == [1, 2, 7]
    assert found.times == [T0, T0 + 1000, T0 + 5000]
    assert found.column("coolant_temp_1") == [0, 2, 2]
    _frame, rows = found.blocks[0]
    assert rows.quality[1, PROFILE.index("flow_1")] == Quality.MISSING
    assert reader.status().ok


def test_the_same_recording_again_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "rig.csv").write_text("when;flow;fahrenheit\n" + "".join(f"{second};3.0;32\n" for second in range(700)))
    source = settings(tmp_path / "rig.csv", delimiter=";", time_format="s")

    with opened(tmp_path / "box") as outbox:
        play(outbox, source, tmp_path)
        again = play(outbox, source, tmp_path)

        assert len(stored(outbox).times) == 700
    assert again._around.intake.counts["rows_duplicate"] == 700


def test_dates_are_read_by_pattern_as_utc(tmp_path: Path) -> None:
    (tmp_path / "rig.csv").write_text("when,flow,fahrenheit\n2020-02-08 13:30:47,3.0,32\n")

    with opened(tmp_path / "box") as outbox:
        play(outbox, settings(tmp_path / "rig.csv", time_format="%Y-%m-%d %H:%M:%S"), tmp_path)

        assert stored(outbox).times == [T0]


def test_speed_follows_the_clock(tmp_path: Path) -> None:
    (tmp_path / "rig.csv").write_text("when,flow,fahrenheit\n0,3.0,32\n10,3.0,32\n20,3.0,32\n")
    clock = ManualClock()

    async def scene(outbox: Outbox) -> None:
        around = surroundings(outbox, tmp_path)
        object.__setattr__(around, "clock", clock)
        reader = ReplayReader(settings(tmp_path / "rig.csv", speed=2.0), around)
        task = asyncio.create_task(reader.run())
        for seconds, expected in ((0, 1), (4, 1), (1, 2), (5, 3)):
            clock.advance(seconds * 1000)
            await eventually(lambda: around.intake.counts["rows_stored"] >= expected, 5, "the row that is due")  # noqa: B023
            assert around.intake.counts["rows_stored"] == expected
        await asyncio.wait_for(task, 5)

    with opened(tmp_path / "box") as outbox:
        asyncio.run(scene(outbox))


@pytest.mark.parametrize(("change", "error"), [({"time_column": "clock"}, "no column clock"), ({"file": Path("/nowhere.csv")}, "nowhere")])
def test_a_recording_that_cannot_be_played_says_why(tmp_path: Path, change: dict[str, object], error: str) -> None:
    (tmp_path / "rig.csv").write_text("when,flow,fahrenheit\n")

    with opened(tmp_path / "box") as outbox, pytest.raises((ValueError, OSError), match=error):
        play(outbox, msgspec.structs.replace(settings(tmp_path / "rig.csv"), **change), tmp_path)


def test_a_line_that_is_no_csv_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "rig.csv").write_text("when,flow,fahrenheit\n0," + "9" * 200_000 + ",32\n1,3.0,32\n")

    with opened(tmp_path / "box") as outbox:
        reader = play(outbox, settings(tmp_path / "rig.csv"), tmp_path)

        assert [number for _device, _boot, number in stored(outbox).keys] == [2]
    assert reader.refusals == {Reason.BAD_VALUE: 1}


RIG_CHANNELS = {
    "accelerometer_1": ("Accelerometer1RMS", "1", "state", 6, 100.0),
    "accelerometer_2": ("Accelerometer2RMS", "1", "state", 6, 100.0),
    "current": ("Current", "A", "pump_current", 5, 100.0),
    "pressure": ("Pressure", "kPa", "pressure", 6, 100.0),
    "motor_temp": ("Temperature", "degC", "condenser_temp", 4, 200.0),
    "fluid_temp": ("Thermocouple", "degC", "coolant_temp", 4, 100.0),
    "voltage": ("Voltage", "V", "mains_voltage", 3, 400.0),
    "flow": ("Volume Flow RateRMS", "l/min", "flow", 4, 1000.0),
}


def rig_profile() -> Profile:
    """A site's own profile for a recorded water loop: every digit of the recording is a code."""
    text = 'id = "water-loop"\nversion = 1\nmodel = "Loop"\nmaker = "Lab"\ncircuits = 1\n'
    for name, (_column, unit, role, decimals, top) in RIG_CHANNELS.items():
        text += f'[[channel]]\nname = "{name}"\nunit = "{unit}"\nrole = "{role}"\ndecimals = {decimals}\n'
        text += f"lo = {-top}\nhi = {top}\nsigma = 0.05\n"
    return parse(text)


@pytest.mark.skipif(not (RECORDINGS / "skab").is_dir(), reason="no recordings beside the repository (shared/data/skab)")
@pytest.mark.parametrize("name", ["other_1.csv", "anomaly-free_anomaly-free.csv"])
def test_a_recorded_rig_comes_back_code_by_code_with_rejected_samples_marked(tmp_path: Path, name: str) -> None:
    profile, file = rig_profile(), RECORDINGS / "skab" / name
    with file.open(newline="") as lines:
        recorded = list(csv.DictReader(lines, delimiter=";"))
    source = settings(
        file,
        profile="water-loop",
        time_column="datetime",
        time_format="%Y-%m-%d %H:%M:%S",
        delimiter=";",
        columns={channel: column for channel, (column, *_rest) in RIG_CHANNELS.items()},
    )

    with opened(tmp_path / "box") as outbox:
        around = surroundings(outbox, tmp_path)
        around = replace(
            around, devices={COOLER: profile}, intake=Intake(outbox, {COOLER: profile}, live=LiveBoard(), timer=time.monotonic)
        )
        asyncio.run(ReplayReader(source, around).run())
        blocks = stored(outbox).blocks

    codes: dict[int, list[int | None]] = {}
    rejected = 0
    for _frame, rows in blocks:
        assert rows.counters is not None
        assert rows.rejected_lost == 0
        for row, number in enumerate(rows.counters):
            cells = [rows.rejected.get(row * len(profile.channels) + at) for at in range(len(profile.channels))]
            good = rows.quality[row] == Quality.OK
            rejected += int((~good).sum())
            codes[int(number)] = [int(rows.codes[row, at]) if good[at] else cells[at] for at in range(len(profile.channels))]
    assert sorted(codes) == list(range(1, len(recorded) + 1))
    for number, line in enumerate(recorded, 1):
        expected = [channel.code(float(line[RIG_CHANNELS[channel.name][0]])) for channel in profile.channels]
        assert codes[number] == expected
    assert 0 < rejected < 0.2 * len(recorded) * len(profile.channels)
