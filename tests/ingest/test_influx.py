"""The InfluxDB projection on the real InfluxDB 1.6.7: exact counts whatever fails, and the same points at every rebuild."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from ingest.influx.projector import NAME
from ingest.projection import RejectReason, State, advance, place_cursor, position
from ingest.schema import projection_reject
from ingest.store import Store
from protocol.profile import parse
from protocol.reading import Quality
from provisioning import registry
from tests.ingest.influx_support import DATABASE, count, drain, everything, projection, running, series, sqlite_store, v1
from tests.support.blocks import PROFILE, START_MS, Machine, make_frame, make_rows, put, session
from tests.support.services import Influxd, wait_until

pytestmark = pytest.mark.service

ROOT = Path(__file__).parent.parent.parent
OTHER = Machine("cooler-0002", stream=8)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = sqlite_store(tmp_path)
    yield one
    one.close()


@pytest.fixture
def server(influxd: Influxd) -> Influxd:
    influxd.create_database(DATABASE)
    return influxd


def full(machine: Machine, *, blocks: int, first_seq: int = 1, rows: int = 60) -> list[bytes]:
    """Blocks without a missing cell."""
    t0_ms = START_MS + (first_seq - 1) * rows * 1000
    return [
        make_frame(
            make_rows(t0_ms=t0_ms + index * rows * 1000, count=rows, seed=first_seq + index, missing=0),
            seq=first_seq + index,
            machine=machine,
        )
        for index in range(blocks)
    ]


def rejects(store: Store) -> list:
    with store.reading() as connection:
        return list(connection.execute(select(projection_reject).order_by(projection_reject.c.id)))


def test_every_row_becomes_one_point_with_the_fixed_tags(store: Store, server: Influxd) -> None:
    newest = put(store, [*full(Machine(), blocks=3), *full(OTHER, blocks=2)])
    one = projection(store, v1(server))

    assert drain(one) == 5

    assert count(server) == 300 == one.totals.points
    assert count(server, where="WHERE device = 'cooler-0002'") == 120
    tags = [found["tags"] for found in everything(server)]
    assert tags == [
        {"device": name, "gateway": "gw-test-1", "model": "icecap-cooler", "site": "clinic-a"} for name in ("cooler-0001", "cooler-0002")
    ]
    with store.reading() as connection:
        assert position(connection, NAME) == newest
    one.close()


def test_gzip_gives_the_same_points(store: Store, server: Influxd) -> None:
    put(store, session(Machine(), blocks=3))
    plain = projection(store, v1(server))
    drain(plain)
    before = everything(server)
    server.query(f'DROP DATABASE "{DATABASE}"')
    server.create_database(DATABASE)
    with store.transaction() as connection:
        place_cursor(connection, NAME, arrival=0, now_ms=0)
    packed = projection(store, v1(server, gzip=True))

    drain(packed)

    assert everything(server) == before
    plain.close()
    packed.close()


def test_a_rebuild_by_another_process_gives_the_same_points_also_after_late_blocks(store: Store, server: Influxd) -> None:
    frames = session(Machine(), blocks=6)
    late = [frames[0], frames[2], frames[3], frames[1], frames[5], frames[4]]
    for index, data in enumerate(late):  # one at a time with a fresh projection for some: what is remembered must not matter
        put(store, [data])
        one = projection(store, v1(server))
        drain(one)
        one.close()
        del index
    before = everything(server)
    server.query(f'DROP DATABASE "{DATABASE}"')
    server.create_database(DATABASE)
    with store.transaction() as connection:
        place_cursor(connection, NAME, arrival=0, now_ms=0)

    rebuilt = projection(store, v1(server))
    drain(rebuilt)

    assert everything(server) == before
    rebuilt.close()


def test_influxdb_away_for_a_while_stops_nothing_and_loses_nothing(store: Store, server: Influxd) -> None:
    one = projection(store, v1(server))
    with running(one) as runner:
        put(store, full(Machine(), blocks=5))
        wait_until(lambda: one.totals.blocks == 5, what="first blocks projected")
        server.stop()
        put(store, full(Machine(), blocks=5, first_seq=6))
        wait_until(lambda: runner.status.state is State.WAITING, what="the outage noticed")
        assert runner.status.reason == "unreachable"
        put(store, full(Machine(), blocks=5, first_seq=11))  # ingestion goes on
        server.start()
        wait_until(lambda: one.totals.blocks == 15, 30, "caught up")

    assert count(server) == 15 * 60


def test_influxdb_killed_in_mid_write_ends_with_exact_counts(store: Store, server: Influxd) -> None:
    one = projection(store, v1(server, timeout_s=5.0))
    frames = full(Machine(), blocks=60)
    with running(one):
        for index in range(0, 60, 10):
            put(store, frames[index : index + 10])
            wait_until(lambda expected=index: one.totals.blocks >= expected, 30, "some blocks projected")
            server.kill()
            server.start()
        wait_until(lambda: one.totals.blocks == 60, 30, "caught up")

    assert count(server) == 60 * 60


def test_a_frozen_influxdb_times_out_and_is_caught_up_later(store: Store, server: Influxd) -> None:
    one = projection(store, v1(server, timeout_s=0.3))
    put(store, full(Machine(), blocks=10))
    with running(one) as runner:
        wait_until(lambda: one.totals.blocks == 10, what="first blocks")
        server.pause()
        put(store, full(Machine(), blocks=10, first_seq=11))
        wait_until(lambda: runner.status.state is State.WAITING, what="the time-out")
        assert runner.status.reason == "timed_out"
        server.resume()
        wait_until(lambda: one.totals.blocks == 20, 30, "caught up")

    assert count(server) == 20 * 60


KILLED_AFTER_THE_ANSWER = """
import os, signal, sys
from ingest.influx import InfluxSettings, open_sink
from ingest.store import Store
from tests.ingest.influx_support import projection

class DiesAfterTheAnswer:
    def __init__(self, sink): self.sink, self.left = sink, 2
    def write(self, body):
        answer = self.sink.write(body)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    def close(self): self.sink.close()

one = projection(Store.open(sys.argv[1]), DiesAfterTheAnswer(open_sink(InfluxSettings(sys.argv[2], "icecap", api="v1"))))
one._limit = 4
while one.step():
    one._limit = 4
"""


def test_killed_between_the_answer_and_the_cursor_it_writes_the_same_points_again(store: Store, server: Influxd, tmp_path: Path) -> None:
    put(store, full(Machine(), blocks=20))
    child = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_THE_ANSWER, f"sqlite:///{tmp_path / 'cloud.db'}", server.url],
        cwd=ROOT,
        env=os.environ,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    with store.reading() as connection:
        assert position(connection, NAME) == 4  # eight blocks are in InfluxDB
    assert count(server) == 8 * 60

    one = projection(store, v1(server))
    assert drain(one) == 16

    assert count(server) == 20 * 60
    one.close()


def test_one_point_of_the_wrong_type_is_set_aside_and_the_rest_flows(store: Store, server: Influxd) -> None:
    """1.6.7 answers 400 "partial write" and drops the one point; in the store it stays as it came."""
    poison = make_rows(count=60, seed=5, missing=0)
    tank = PROFILE.index("tank_level")
    poison.quality[:, tank] = Quality.MISSING
    poison.quality[17, tank] = Quality.OK
    good = [make_rows(t0_ms=START_MS + index * 60_000, seed=index, missing=0) for index in range(1, 8)]
    for rows in good:
        rows.quality[:, tank] = Quality.MISSING
    import urllib.request

    text = b'cooler,device=x,gateway=x,model=x,site=x tank_level="full" %d\n' % (START_MS * 1_000_000)
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/write?db={DATABASE}", text, method="POST")).close()
    frames = [make_frame(rows, seq=seq) for seq, rows in enumerate([*good[:3], poison, *good[3:]], 1)]
    put(store, frames)
    one = projection(store, v1(server))

    assert drain(one) == 8

    assert count(server, where="WHERE device = 'cooler-0001'") == 8 * 60 - 1
    (found,) = rejects(store)
    assert (found.arrival, found.gateway, found.stream, found.seq) == (4, "gw-test-1", 7, 4)
    assert found.reason == RejectReason.REFUSED_BY_SERVER
    assert "field type conflict" in found.detail
    assert f"{int(poison.ts_ms[17])}000000" in found.line
    assert one.totals.points == 8 * 60 - 1
    one.close()


def test_a_set_aside_point_is_tried_again_when_a_person_asks(store: Store, server: Influxd) -> None:
    test_one_point_of_the_wrong_type_is_set_aside_and_the_rest_flows(store, server)
    server.query('DROP MEASUREMENT "cooler"', database=DATABASE)
    with store.transaction() as connection:
        connection.execute(projection_reject.update().values(reason=RejectReason.RETRY.value))
        advance(connection, NAME, old=8, new=8, now_ms=1)
    one = projection(store, v1(server))

    drain(one)

    assert count(server) == 60  # the one block, whole this time
    assert all(found.resolved_ms is not None for found in rejects(store))
    one.close()


def test_a_missing_database_makes_it_wait_and_sets_nothing_aside(store: Store, influxd: Influxd) -> None:
    put(store, full(Machine(), blocks=2))
    one = projection(store, v1(influxd))
    with running(one) as runner:
        wait_until(lambda: runner.status.state is State.WAITING, what="the refusal")
        assert runner.status.reason == "no_database"
        assert rejects(store) == []
        influxd.create_database(DATABASE)
        wait_until(lambda: one.totals.blocks == 2, 30, "written")

    assert count(influxd) == 120


def test_a_block_of_an_unknown_profile_waits_for_it_and_holds_up_nobody(store: Store, server: Influxd) -> None:
    profile = parse(
        'id="new-cooler"\nversion=2\nmodel="New"\nmaker="Icecap"\ncircuits=1\n'
        '[[channel]]\nname="ambient_temp"\nunit="degC"\nrole="ambient_temp"\ndecimals=2\nlo=-20.0\nhi=70.0\nsigma=0.02\n'
    )
    stranger = Machine("cooler-0009", stream=9, profile=profile)
    strange = [
        make_frame(make_rows(profile, t0_ms=START_MS + index * 60_000, missing=0), seq=index + 1, machine=stranger) for index in range(2)
    ]
    put(store, [*strange, *full(Machine(), blocks=1)])
    before = projection(store, v1(server))
    drain(before)
    assert count(server) == 60
    assert [found.reason for found in rejects(store)] == [RejectReason.UNKNOWN_PROFILE] * 2
    before.close()

    after = projection(store, v1(server), profiles=lambda name, version: profile if (name, version) == ("new-cooler", 2) else PROFILE)
    drain(after)

    assert count(server, where="WHERE device = 'cooler-0009'") == 120
    assert all(found.resolved_ms is not None for found in rejects(store))
    assert drain(after) == 0
    after.close()


def test_another_version_of_a_known_profile_is_unknown_too(store: Store, server: Influxd) -> None:
    from protocol.profile import Profile

    newer = Profile(PROFILE.id, PROFILE.version + 1, PROFILE.model, PROFILE.maker, PROFILE.circuits, PROFILE.channels)
    put(store, [make_frame(make_rows(), seq=1, machine=Machine(profile=newer))])
    one = projection(store, v1(server))
    drain(one)

    assert [found.reason for found in rejects(store)] == [RejectReason.UNKNOWN_PROFILE]
    assert count(server) == 0
    one.close()


def test_the_site_is_where_the_machine_stood_when_it_measured(store: Store, server: Influxd) -> None:
    with store.transaction() as connection:
        registry.add_site(connection, registry.Site("clinic-b", "Clinic B", "Europe/Berlin", 0))
        registry.add_gateway(connection, "gw-test-5", site_id="clinic-b", at_ms=0)
        registry.place_device(connection, "cooler-0001", gateway_id="gw-test-1", profile="icecap-cooler", at_ms=0)
        registry.place_device(connection, "cooler-0001", gateway_id="gw-test-5", profile="icecap-cooler", at_ms=START_MS + 60_000)
    put(store, full(Machine(), blocks=2))
    one = projection(store, v1(server))
    drain(one)

    assert [(found["tags"]["site"], len(found["values"])) for found in everything(server)] == [("clinic-a", 60), ("clinic-b", 60)]
    one.close()


def test_a_rewind_while_it_runs_is_followed(store: Store, server: Influxd) -> None:
    put(store, full(Machine(), blocks=3))
    one = projection(store, v1(server))
    with running(one):
        wait_until(lambda: one.totals.blocks == 3, what="first pass")
        with store.transaction() as connection:
            place_cursor(connection, NAME, arrival=1, now_ms=0)
        wait_until(lambda: one.totals.blocks == 5, what="two blocks once more")

    assert count(server) == 180
    assert [found["columns"][0] for found in series(server, "SHOW MEASUREMENTS")] == ["name"]


def test_points_older_than_the_database_keeps_hold_up_nothing_and_are_no_rejects(store: Store, server: Influxd) -> None:
    assert b"error" not in server.query(f'ALTER RETENTION POLICY "autogen" ON "{DATABASE}" DURATION 1d SHARD DURATION 1h DEFAULT')
    now_ms = int(time.time() * 1000)  # InfluxDB compares with its own clock
    recent = [make_frame(make_rows(t0_ms=now_ms - 120_000 + index * 60_000, seed=index, missing=0), seq=3 + index) for index in range(2)]
    put(store, [*full(Machine(), blocks=2), *recent])
    one = projection(store, v1(server))

    assert drain(one) == 4

    assert count(server) == 120
    assert rejects(store) == []
    one.close()
