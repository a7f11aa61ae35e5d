"""A recorded rig through the whole path: CSV, gate, outbox, TLS broker, ingest, store. Every row arrives, every code within its bound."""

import csv
import datetime as dt
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from ingest import schema
from ingest.store import Store
from protocol import block, frame, profile
from protocol.block import Rows
from protocol.clock import MachineClock
from protocol.frame import Frame
from protocol.reading import Quality
from simulator.stage import Settings, environment, prepare
from simulator.supervisor import Supervisor
from tests.support.services import wait_until

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RIG = SHARED / "skab" / "other_10.csv"
SERIAL = "skab-rig-1"

# column of the recording, decimals of the channel, its noise, its bound (both in its unit; bound 0: lossless)
CHANNELS = {
    "accelerometer_1": ("Accelerometer1RMS", 6, 0.003, 0.0005),
    "accelerometer_2": ("Accelerometer2RMS", 6, 0.003, 0.0),
    "motor_current": ("Current", 5, 0.5, 0.005),
    "pressure": ("Pressure", 6, 0.3, 0.0),
    "temperature": ("Temperature", 4, 0.2, 0.05),
    "thermocouple": ("Thermocouple", 4, 0.01, 0.0),
    "voltage": ("Voltage", 3, 10.0, 0.5),
    "flow": ("Volume Flow RateRMS", 4, 1.0, 0.0),
}


def rig_profile() -> str:
    head = 'id = "skab-rig"\nversion = 1\nmodel = "water rig"\nmaker = "lab"\ncircuits = 1\n'
    channels = [
        f'[[channel]]\nname = "{name}"\nunit = "1"\nrole = "state"\ndecimals = {decimals}\nlo = -1000\nhi = 1000\n'
        f"sigma = {sigma}\nmax_error = {bound}\n"
        for name, (_, decimals, sigma, bound) in CHANNELS.items()
    ]
    return head + "\n".join(channels)


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ic-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not RIG.exists(), reason=f"the recording {RIG.name} is not beside the project")
def test_every_row_of_a_recorded_rig_arrives_within_its_stated_bound(require: Callable[[str], Path], place: Path) -> None:
    require("mosquitto")
    with RIG.open(newline="") as file:
        recorded = list(csv.DictReader(file, delimiter=";"))

    arrived = play(place, RIG)

    own = profile.parse(rig_profile())
    times = [round(dt.datetime.fromisoformat(row["datetime"]).replace(tzinfo=dt.UTC).timestamp() * 1000) for row in recorded]
    assert [ts_ms for rows in arrived for ts_ms in rows.ts_ms.tolist()] == times
    line = rejected = 0
    for rows in arrived:
        for at in range(len(rows.ts_ms)):
            for index, channel in enumerate(own.channels):
                raw = channel.code(float(recorded[line][CHANNELS[channel.name][0]]))
                if rows.quality[at, index] == Quality.OK:
                    assert abs(int(rows.codes[at, index]) - raw) <= own.max_error_codes[index], (line, channel.name)
                else:
                    rejected += 1
                    assert rows.rejected[at * len(own.channels) + index] == raw, "a rejected sample keeps what was sent"
            line += 1
    assert 0 < rejected < 0.05 * line * len(own.channels), "this recording has glitches, and they are few"


def play(place: Path, recording: Path) -> list[Rows]:
    """Run brokers, ingest and a gateway that replays ``recording``; return the blocks of the store in order."""
    machine = MachineClock(time.time_ns, time.monotonic_ns, lambda: True)
    stage = prepare(Settings(place / "stage", place, coolers=1), machine=machine, say=lambda _line: None)
    columns = "\n".join(f'{name} = "{column}"' for name, (column, *_) in CHANNELS.items())
    home = place / "stage" / "gw-demo-1"
    (home / "rig.toml").write_text(rig_profile())
    config = home / "edge.toml"
    config.write_text(
        config.read_text()
        + '\n[[profile]]\nfile = "rig.toml"\n'
        + f'[[source.replay]]\nname = "rig"\nfile = "{recording}"\nserial = "{SERIAL}"\nprofile = "skab-rig"\n'
        + f'time_column = "datetime"\ntime_format = "%Y-%m-%d %H:%M:%S"\ndelimiter = ";"\nspeed = 0\n[source.replay.columns]\n{columns}\n'
    )
    supervisor = Supervisor(place, time.monotonic, {**os.environ, **environment()})
    try:
        for program in stage.programs:
            if program.name != "console":
                supervisor.start(program)
                wait_until(lambda name=program.name: supervisor.is_ready(name), 60, program.name)
        store = Store.open(stage.database)
        lines = sum(1 for _ in recording.open()) - 1
        try:
            wait_until(lambda: sum(len(rows.ts_ms) for rows in blocks(store)) >= lines, 60, "every row in the store")
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{supervisor.log_tail('gateway')}\n{supervisor.log_tail('ingest')}") from error
        found = blocks(store)
        store.close()
        return found
    finally:
        supervisor.stop()


def blocks(store: Store) -> list[Rows]:
    with store.reading() as connection:
        query = select(schema.block.c.data).where(schema.block.c.device == SERIAL).order_by(schema.block.c.seq)
        frames = [frame.decode(data) for data in connection.execute(query).scalars()]
    rows = [block.decode(one.body) for one in frames if isinstance(one, Frame)]
    assert len(rows) == len(frames)
    return [one for one in rows if isinstance(one, Rows)]
