"""The cursor loop, the once-a-minute gateway points and the command line that rewinds."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from ingest.influx import Fault, GatewayProjection, SinkError, open_sink
from ingest.influx.gateways import NAME as GATEWAYS
from ingest.influx.projector import NAME
from ingest.profiles import Profiles
from ingest.projection import BLOCK_COLUMNS, ProjectionError, Runner, State, advance, position
from ingest.projection_cli import app, arrival_of
from ingest.rollup import RollupProjection
from ingest.schema import rollup_1m
from ingest.store import Store, StoreDownError
from protocol.clock import ManualClock
from tests.ingest.influx_support import DATABASE, count, drain, projection, series, sqlite_store, v1
from tests.ingest.test_influx import full
from tests.support.blocks import START_MS, Machine, make_frame, make_rows, put
from tests.support.services import Influxd, wait_until


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    one = sqlite_store(tmp_path)
    yield one
    one.close()


class Scripted:
    """A projection that does what it is told: numbers are passed records, exceptions are raised."""

    name = "scripted"

    def __init__(self, *turns: int | Exception) -> None:
        self.turns, self.closed = list(turns), False

    def step(self) -> int:
        turn = self.turns.pop(0) if self.turns else 0
        if isinstance(turn, Exception):
            raise turn
        return turn

    def close(self) -> None:
        self.closed = True


def runner(one: Scripted, stop: threading.Event) -> Runner:
    return Runner(one, timer=time.monotonic, rng=random.Random(1), stop=stop, poll_s=0.005)


def test_failures_of_the_world_are_waited_out_and_work_goes_on() -> None:
    stop = threading.Event()
    one = Scripted(3, ProjectionError("unreachable", "refused"), StoreDownError("database: locked"), 2)
    loop = runner(one, stop)
    seen: set[State] = set()
    thread = threading.Thread(target=loop.run)
    thread.start()
    wait_until(lambda: seen.add(loop.status.state) or loop.status.passed == 5, what="all records")
    wait_until(lambda: loop.status.state is State.UP_TO_DATE, what="up to date")
    stop.set()
    thread.join()

    assert State.WAITING in seen
    assert loop.status.failures == 0
    assert loop.status.state is State.STOPPED
    assert one.closed


def test_a_bug_is_not_retried_but_ends_the_loop() -> None:
    one = Scripted(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        runner(one, threading.Event()).run()
    assert one.closed


def test_the_server_s_retry_after_is_the_least_wait() -> None:
    loop = runner(Scripted(ProjectionError("throttled", "", 17.0)), threading.Event())
    assert loop._turn() >= 17.0


def test_stopping_does_not_wait_for_a_back_off() -> None:
    stop = threading.Event()
    loop = runner(Scripted(ProjectionError("throttled", "", 60.0)), stop)
    thread = threading.Thread(target=loop.run)
    thread.start()
    wait_until(lambda: loop.status.state is State.WAITING, what="the wait")
    started = time.monotonic()
    stop.set()
    thread.join()
    assert time.monotonic() - started < 1.0


def test_a_cursor_moves_only_from_where_the_step_began(store: Store) -> None:
    with store.transaction() as connection:
        assert advance(connection, "one", old=None, new=5, now_ms=1)
        assert not advance(connection, "one", old=None, new=7, now_ms=1)
        assert not advance(connection, "one", old=4, new=7, now_ms=1)
        assert advance(connection, "one", old=5, new=7, now_ms=1)
        assert position(connection, "one") == 7


def test_blocks_are_read_in_the_order_of_commits_by_the_arrival_key(sqlite: Store) -> None:
    from ingest.schema import block

    query = select(*BLOCK_COLUMNS).where(block.c.arrival > 5).order_by(block.c.arrival).limit(100)
    with sqlite.reading() as connection:
        plan = str(connection.exec_driver_sql(f"explain query plan {query.compile(compile_kwargs={'literal_binds': True})}").all())
    assert "USING INTEGER PRIMARY KEY" in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.service
def test_gateways_are_seen_once_a_minute_and_each_record_is_counted_once(store: Store, influxd: Influxd) -> None:
    influxd.create_database(DATABASE)
    clock = ManualClock(wall=START_MS + 600_000)
    one = GatewayProjection(store, open_sink(v1(influxd)), clock=clock)
    put(store, full(Machine(), blocks=1))
    one.step()  # counting begins here
    put(store, [*full(Machine(), blocks=2, first_seq=2), *full(Machine("cooler-0009", "gw-test-2", 5), blocks=1)])
    one.step()  # the same minute: nothing
    clock.advance(60_000)
    one.step()
    put(store, [make_frame(make_rows(t0_ms=START_MS + 360_000), seq=7)])  # 4 to 6 are missing
    clock.advance(60_000)
    one.step()
    one.close()

    found = {
        entry["tags"]["gateway"]: entry for entry in series(influxd, "SELECT blocks, rows, gaps, facts, lag_ms FROM gateway GROUP BY *")
    }
    assert set(found) == {"gw-test-1", "gw-test-2"}
    assert found["gw-test-1"]["tags"]["site"] == "clinic-a"
    first, second, third = (values[1:] for values in found["gw-test-1"]["values"])
    assert first[:2] == [0, 0]
    assert second[:4] == [2, 120, 0, 0]
    assert third[:4] == [1, 60, 3, 0]
    assert second[4] == START_MS + 660_000 - (START_MS + 179_000)
    assert [values[1] for values in found["gw-test-2"]["values"]] == [1, 0]
    with store.reading() as connection:
        assert position(connection, GATEWAYS) == 5


@pytest.mark.service
def test_gateway_points_wait_for_a_dead_sink_and_count_what_came_meanwhile(sqlite: Store, influxd: Influxd) -> None:
    influxd.create_database(DATABASE)
    clock = ManualClock(wall=START_MS + 600_000)
    one = GatewayProjection(sqlite, open_sink(v1(influxd)), clock=clock)
    put(sqlite, full(Machine(), blocks=1))
    one.step()
    influxd.stop()
    put(sqlite, full(Machine(), blocks=2, first_seq=2))
    clock.advance(60_000)
    with pytest.raises(ProjectionError):
        one.step()
    put(sqlite, full(Machine(), blocks=3, first_seq=4))
    clock.advance(60_000)
    influxd.start()
    one.step()
    one.close()

    assert series(influxd, "SELECT sum(blocks) FROM gateway")[0]["values"][0][1] == 5


def run(*arguments: str, database: str) -> str:
    result = CliRunner().invoke(app, [arguments[0], *arguments[1:], "--database", database])
    assert result.exit_code == 0, result.output
    return result.output


def test_rewind_takes_a_start_a_number_an_age_or_a_time(sqlite: Store) -> None:
    put(sqlite, full(Machine(), blocks=3))  # received at the end of each minute
    with sqlite.reading() as connection:
        assert arrival_of(connection, "start") == 0
        assert arrival_of(connection, "2") == 2
        assert arrival_of(connection, "61s") == 1
        assert arrival_of(connection, "1d") == 0
        assert arrival_of(connection, "2026-01-01T00:02:30") == 2
        assert arrival_of(connection, "2026-01-01T01:02:30+01:00") == 2
        assert arrival_of(connection, "2027-01-01") == 3
        for bad in ("4", "soon", "-1", "15"):
            with pytest.raises(ValueError):
                arrival_of(connection, bad)


@pytest.mark.service
def test_the_command_rewinds_and_a_running_projection_writes_again(sqlite: Store, influxd: Influxd, tmp_path: Path) -> None:
    influxd.create_database(DATABASE)
    database = f"sqlite:///{tmp_path / 'cloud.db'}"
    put(sqlite, full(Machine(), blocks=3))
    one = projection(sqlite, v1(influxd))
    drain(one)
    influxd.query(f'DROP DATABASE "{DATABASE}"')
    influxd.create_database(DATABASE)

    assert "record 3 → 1" in run("rewind", NAME, "--to", "1", database=database)
    drain(one)
    assert count(influxd) == 120
    run("rewind", NAME, "--to", "start", database=database)
    drain(one)
    assert count(influxd) == 180
    one.close()


def test_the_command_rebuilds_the_roll_up_only_from_the_start(sqlite: Store, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'cloud.db'}"
    put(sqlite, full(Machine(), blocks=1))
    one = RollupProjection(sqlite, profiles=Profiles().find, clock=ManualClock())
    one.step()
    refused = CliRunner().invoke(app, ["rewind", "rollup", "--to", "1", "--database", database])
    assert refused.exit_code == 2
    assert "start" in refused.output

    run("rewind", "rollup", "--to", "start", database=database)

    with sqlite.reading() as connection:
        assert connection.execute(select(rollup_1m)).first() is None
    assert one.step() == 1


def test_the_commands_show_where_projections_are_and_what_they_left_out(sqlite: Store, tmp_path: Path) -> None:
    from protocol.profile import Profile
    from tests.support.blocks import PROFILE

    database = f"sqlite:///{tmp_path / 'cloud.db'}"
    newer = Profile("later-cooler", 3, "Later", "Icecap", 2, PROFILE.channels)
    put(sqlite, [make_frame(make_rows(), seq=1, machine=Machine("cooler-0007", profile=newer))])
    one = RollupProjection(sqlite, profiles=Profiles().find, clock=ManualClock())
    one.step()

    shown = run("status", database=database)
    assert "never ran" in shown
    assert "rollup" in shown
    left_out = run("rejects", "rollup", database=database)
    assert "1 left out" in left_out
    assert "gw-test-1" in left_out
    assert "1 will be tried again" in run("retry", "rollup", database=database)
    assert CliRunner().invoke(app, ["rewind", "nonsense", "--to", "start", "--database", database]).exit_code == 2


@pytest.mark.service
def test_both_engines_project_the_same_points(store: Store, influxd: Influxd) -> None:
    """The same assertions on SQLite and PostgreSQL: points, cursor, what is set aside and what becomes of it."""
    from protocol.profile import Profile
    from tests.support.blocks import PROFILE

    influxd.create_database(DATABASE)
    newer = Profile("later-cooler", 3, "Later", "Icecap", 2, PROFILE.channels)
    stranger = make_frame(make_rows(seed=9, missing=0), seq=1, machine=Machine("cooler-0007", stream=9, profile=newer))
    put(store, [*full(Machine(), blocks=2), stranger])
    first = projection(store, v1(influxd))
    drain(first)
    first.close()
    assert count(influxd) == 120

    second = projection(store, v1(influxd), Profiles({("later-cooler", 3): newer}).find)
    drain(second)
    second.close()

    assert count(influxd) == 180
    with store.reading() as connection:
        assert position(connection, NAME) == 3
    left = series(influxd, "SELECT count(ambient_temp), count(ambient_temp_smooth), max(lifetime_s) FROM cooler GROUP BY device")
    assert [(one["tags"]["device"], one["values"][0][1:]) for one in left] == [
        ("cooler-0001", [120, 120, 7_200_000]),
        ("cooler-0007", [60, 60, 7_200_000]),
    ]


def test_after_a_time_out_smaller_batches_and_after_success_larger_ones(sqlite: Store) -> None:
    class Slow:
        """Answers in time only to small bodies."""

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def write(self, body: bytes) -> None:
            lines = body.count(b"\n")
            self.sizes.append(lines)
            if lines > 60:
                raise SinkError(Fault.TIMED_OUT, "too slow for that")

        def close(self) -> None:
            """Nothing open."""

    put(sqlite, full(Machine(), blocks=64))
    slow = Slow()
    one = projection(sqlite, slow)
    late = 0
    while one.totals.blocks < 64:
        try:
            one.step()
        except ProjectionError:
            late += 1

    assert slow.sizes[0] == 64 * 60
    assert one.totals.points == 64 * 60 == sum(size for size in slow.sizes if size <= 60)
    assert late <= 7 + 3  # seven to get down to one block, then one try at two after every twenty in time
    assert slow.sizes.count(120) >= 2
