"""The one-minute table: exact, exactly once, and the same whatever the order in which blocks came."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from ingest.profiles import Profiles
from ingest.projection import RejectReason, place_cursor, position
from ingest.rollup import CODE_ROLLED_MAX, NAME, Minute, RollupProjection, merge, minutes, rebuild
from ingest.schema import cursor, projection_reject, rollup_1m
from ingest.store import Store
from protocol.clock import ManualClock
from protocol.profile import Profile
from protocol.reading import Quality
from tests.ingest.influx_support import sqlite_store
from tests.support.blocks import PROFILE, START_MS, Machine, make_frame, make_rows, put

PROFILES = Profiles()


def rollup(store: Store, profiles: Profiles = PROFILES) -> RollupProjection:
    return RollupProjection(store, profiles=profiles.find, clock=ManualClock())


def drain(one: RollupProjection) -> int:
    passed = 0
    while step := one.step():
        passed += step
    return passed


def table(store: Store) -> dict:
    with store.reading() as connection:
        return {(row.device, row.channel, row.minute_ms): tuple(row)[3:] for row in connection.execute(select(rollup_1m))}


def expected(all_rows: list) -> dict:
    """The slow way: every cell into its minute, in plain Python."""
    cells: dict = {}
    for device, rows in all_rows:
        for row, ts_ms in enumerate(rows.ts_ms.tolist()):
            for place, channel in enumerate(PROFILE.channels):
                code = int(rows.codes[row, place]) if rows.quality[row, place] == Quality.OK else None
                cells.setdefault((device, channel.name, ts_ms - ts_ms % 60_000), []).append((ts_ms, code))
    found = {}
    for key, samples in cells.items():
        good = [(ts_ms, code) for ts_ms, code in samples if code is not None]
        codes = [code for _, code in good]
        last_ms, last = max(good) if good else (0, None)
        found[key] = (
            len(good),
            sum(codes),
            min(codes, default=None),
            max(codes, default=None),
            last,
            last_ms,
            len(samples) - len(good),
        )
    return found


def some_blocks(seed: int) -> list:
    """Three machines; blocks that cross minutes, many cells missing, some minutes without any valid cell of a channel."""
    blocks = []
    for number in range(3):
        for index in range(3):
            count = 20 + 17 * index
            rows = make_rows(t0_ms=START_MS + 37_000 * index + 11_000 * number, count=count, seed=seed + 10 * number + index, missing=0.2)
            rows.quality[:, 4] = Quality.SENTINEL
            rows.codes[:, 4] = 0
            blocks.append((Machine(f"cooler-{number:04d}", stream=number + 1), index + 1, rows))
    return blocks


def test_every_number_is_what_plain_python_counts(store: Store) -> None:
    blocks = some_blocks(1)
    put(store, [make_frame(rows, seq=seq, machine=machine) for machine, seq, rows in blocks])

    assert drain(rollup(store)) == 9

    assert table(store) == expected([(machine.device, rows) for machine, _, rows in blocks])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_late_and_repeated_blocks_give_the_same_table(tmp_path_factory: pytest.TempPathFactory, order: random.Random, seed: int) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("rollup"))
    blocks = some_blocks(seed)
    frames = [make_frame(rows, seq=seq, machine=machine) for machine, seq, rows in blocks]
    sent = [*frames, *order.sample(frames, 4)]
    order.shuffle(sent)
    while sent:
        batch = sent[: order.randint(1, 5)]
        sent = sent[len(batch) :]
        put(store, batch)
        if order.random() < 0.5:
            drain(rollup(store))
    drain(rollup(store))

    assert table(store) == expected([(machine.device, rows) for machine, _, rows in blocks])
    store.close()


def test_a_rebuild_gives_the_same_table(store: Store) -> None:
    put(store, [make_frame(rows, seq=seq, machine=machine) for machine, seq, rows in some_blocks(2)])
    drain(rollup(store))
    before = table(store)

    with store.transaction() as connection:
        rebuild(connection, now_ms=0)
    assert table(store) == {}
    drain(rollup(store))

    assert table(store) == before


def test_two_workers_at_once_count_each_block_once(store: Store) -> None:
    frames = [
        make_frame(make_rows(t0_ms=START_MS + 60_000 * index, count=10, seed=index, missing=0), seq=index + 1) for index in range(120)
    ]
    put(store, frames)
    with ThreadPoolExecutor(2) as pool:
        for worker in [pool.submit(drain, rollup(store)) for _ in range(2)]:
            worker.result()

    with store.reading() as connection:
        total = select(func.sum(rollup_1m.c.n)).where(rollup_1m.c.channel == "ambient_temp")
        assert connection.execute(total).scalar_one() == 1200
        assert position(connection, NAME) == 120


def test_a_failure_before_the_commit_leaves_neither_effect_nor_cursor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, [make_frame(make_rows(), seq=1)])
    one = rollup(store)

    def fails(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ingest.rollup.reject", fails)
    with pytest.raises(KeyboardInterrupt):
        one.step()
    assert table(store) == {}
    with store.reading() as connection:
        assert connection.execute(select(cursor)).all() == []


def test_a_block_of_an_unknown_profile_is_counted_once_when_it_becomes_known(store: Store) -> None:
    newer = Profile("later-cooler", 3, "Later", "Icecap", 2, PROFILE.channels)
    machine = Machine("cooler-0007", profile=newer)
    put(store, [make_frame(make_rows(seed=3), seq=1, machine=machine), make_frame(make_rows(t0_ms=START_MS + 60_000, seed=4), seq=2)])
    drain(rollup(store))
    assert {key[0] for key in table(store)} == {"cooler-0001"}

    known = Profiles({("later-cooler", 3): newer})
    drain(rollup(store, known))
    drain(rollup(store, known))

    rows = make_rows(seed=3)
    mine = {key: value for key, value in table(store).items() if key[0] == "cooler-0007"}
    assert mine == expected([("cooler-0007", rows)])
    with store.reading() as connection:
        reasons = connection.execute(select(projection_reject.c.reason, projection_reject.c.resolved_ms)).all()
    assert [reason for reason, _ in reasons] == [RejectReason.UNKNOWN_PROFILE]
    assert reasons[0].resolved_ms is not None


def test_a_code_of_more_than_48_bits_counts_as_invalid_and_stops_nothing(tmp_path: Path) -> None:
    rows = make_rows(count=2, missing=0)
    rows.codes[:, PROFILE.index("lifetime_s")] = [CODE_ROLLED_MAX + 1, -(2**63)]
    found = minutes("cooler-0001", PROFILE, rows)
    assert found["cooler-0001", "lifetime_s", START_MS] == Minute(0, 0, None, None, None, 0, 2)


MINUTES = st.one_of(
    st.builds(lambda invalid: Minute(0, 0, None, None, None, 0, invalid), st.integers(0, 5)),
    st.builds(
        lambda codes, last_ms, invalid: Minute(len(codes), sum(codes), min(codes), max(codes), codes[0], last_ms, invalid),
        st.lists(st.integers(-50, 50), min_size=1, max_size=4),
        st.integers(1, 4),
        st.integers(0, 5),
    ),
)


@given(MINUTES, MINUTES, MINUTES)
def test_merging_does_not_depend_on_the_order(one: Minute, two: Minute, three: Minute) -> None:
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MINUTES, min_size=1, max_size=5))
def test_the_databases_merge_is_the_same_as_ours(store: Store, parts: list[Minute]) -> None:
    from ingest.rollup import _add

    with store.transaction() as connection:
        connection.execute(delete(rollup_1m))
        for part in parts:
            _add(connection, {("cooler-0001", "flow_1", START_MS): part})
    whole = parts[0]
    for part in parts[1:]:
        whole = merge(whole, part)

    (found,) = table(store).values()
    assert Minute(*found) == whole


def test_minutes_before_1970_and_rows_out_of_order_are_summed_too() -> None:
    rows = make_rows(t0_ms=-90_000, count=60, missing=0)
    mixed = np.random.default_rng(3).permutation(60)
    shuffled = make_rows(t0_ms=-90_000, count=60, missing=0)
    shuffled.ts_ms[:], shuffled.codes[:] = rows.ts_ms[mixed], rows.codes[mixed]

    assert minutes("cooler-0001", PROFILE, shuffled) == minutes("cooler-0001", PROFILE, rows)
    assert {key[2] for key in minutes("cooler-0001", PROFILE, rows)} == {-120_000, -60_000}


def test_rewinding_to_a_place_closes_open_rejects_beyond_it(store: Store) -> None:
    newer = Profile("later-cooler", 3, "Later", "Icecap", 2, PROFILE.channels)
    put(store, [make_frame(make_rows(), seq=1, machine=Machine("cooler-0007", profile=newer))])
    drain(rollup(store))
    with store.transaction() as connection:
        place_cursor(connection, NAME, arrival=0, now_ms=9)
    drain(rollup(store))

    with store.reading() as connection:
        rows = connection.execute(select(projection_reject.c.resolved_ms).order_by(projection_reject.c.id)).all()
    assert [row.resolved_ms for row in rows] == [9, None]
