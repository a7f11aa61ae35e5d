import threading
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from ingest import schema
from ingest.apply import apply_batch
from ingest.arrivals import Incoming
from ingest.store import Store
from protocol.facts import AlarmRaised
from protocol.topics import Lane
from tests.ingest.applying import NOW_MS, PROFILES, apply_in
from tests.ingest.conftest import OTHER_GATEWAY
from tests.ingest.frames import Gateway, flipped, rows_of, with_version

UNORDERED = {
    "arrival",
    "received_ms",
    "first_ms",
    "last_ms",
    "duplicates",
    "times",
    "id",
    "at_ms",
    "wall_ms",
    "clock_quality",
    "resolved_ms",
}
COMPARED = ("block", "fact", "tombstone", "parked", "stream", "gap", "last_value", "device_seen", "event", "dead_letter")


def tables(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for name in COMPARED:
        table = schema.metadata.tables[name]
        kept = [column for column in table.c if column.name not in UNORDERED or (name == "device_seen" and column.name.endswith("_ms"))]
        found[name] = sorted((tuple(row) for row in connection.execute(select(*kept))), key=repr)
    return found


def a_day_of_two_gateways() -> list[Incoming]:
    one, two = Gateway(), Gateway(OTHER_GATEWAY)
    messages = [one.block(device=f"cooler-{at % 2:04d}") for at in range(6)]
    messages += [two.block(rows=rows_of(100 + 5 * at, 5), device="cooler-0000") for at in range(4)]
    messages += [one.fact() for _ in range(4)]
    messages += [one.fact(previous=b"x" * 32), one.fact()]
    messages += [two.fact(AlarmRaised("cooler-0000", "no_flow", 1, "critical"), lane=Lane.ALARM) for _ in range(3)]
    messages += [one.tombstone(9, 12), with_version(two.block(), 9), flipped(one.block(seq=20), 333), one.tombstone(4, 5)]
    return messages


DAY = a_day_of_two_gateways()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_order_and_repetition_of_the_same_frames_gives_the_same_tables(store: Store, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(DAY)) + data.draw(st.lists(st.sampled_from(DAY), max_size=10))
    sizes = data.draw(st.lists(st.integers(1, 8), min_size=len(shuffled), max_size=len(shuffled)))

    def result(messages: Sequence[Incoming], cuts: Sequence[int]) -> dict[str, list[tuple[Any, ...]]]:
        with store.transaction() as connection:
            undone = connection.begin_nested()
            rest = list(messages)
            for size in cuts:
                if rest:
                    apply_batch(connection, rest[:size], profiles=PROFILES, now_ms=NOW_MS)
                    rest = rest[size:]
            found = tables(connection)
            undone.rollback()
        return found

    assert result(shuffled, sizes) == result(DAY, [len(DAY)])


def test_arrival_numbers_are_dense_and_in_order_of_commits(store: Store) -> None:
    gateway = Gateway()
    for _ in range(5):
        apply_in(store, gateway.block(), gateway.fact(), flipped(gateway.block(seq=99), 50))

    with store.reading() as connection:
        numbers = sorted(
            [*connection.execute(select(schema.block.c.arrival)).scalars(), *connection.execute(select(schema.fact.c.arrival)).scalars()]
        )
        counted = connection.execute(select(schema.counter.c.value).where(schema.counter.c.name == schema.ARRIVAL)).scalar_one()
        dead = connection.execute(select(func.count()).select_from(schema.dead_letter)).scalar_one()

    assert numbers == list(range(1, 11))
    assert (counted, dead) == (10, 1)


def test_two_workers_on_one_database_keep_arrival_dense_and_in_order_of_commits(store: Store) -> None:
    seen: list[int] = []
    gateways = [Gateway(), Gateway(OTHER_GATEWAY)]
    work = [[gateway.block(rows=rows_of(1, 2)) for _ in range(20)] for gateway in gateways]
    failures: list[BaseException] = []

    def apply_all(messages: list[Incoming]) -> None:
        try:
            for message in messages:
                apply_in(store, message)
        except BaseException as error:
            failures.append(error)
            raise

    def watch() -> None:  # a projection: whatever it has passed must never change beneath it
        while len(seen) < 40 and not failures:
            with store.reading() as connection:
                here = seen[-1] if seen else 0
                seen.extend(
                    connection.execute(
                        select(schema.block.c.arrival).where(schema.block.c.arrival > here).order_by(schema.block.c.arrival)
                    ).scalars()
                )

    threads = [threading.Thread(target=apply_all, args=(one,)) for one in work] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert seen == list(range(1, 41))
