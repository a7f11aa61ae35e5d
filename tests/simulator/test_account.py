from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, insert

from ingest import schema
from ingest.store import Store
from protocol import block, frame
from protocol.clock import ClockQuality
from protocol.reading import Stamp
from protocol.units import DeviceId, GatewayId
from simulator.account import Account, duplicates, newest_arrival, projected
from simulator.runs import Runs

GATEWAY = GatewayId("gw-demo-1")
COOLER = DeviceId("cooler-0001")
NOW_MS = 1_768_209_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(f"sqlite:///{tmp_path / 'cloud.db'}")
    made.migrate()
    yield made
    made.close()


def put(
    connection: Connection,
    arrival: int,
    numbers: list[int],
    *,
    boot: int = 7,
    gateway: GatewayId = GATEWAY,
    ts_ms: int = NOW_MS,
    damage: bool = False,
) -> None:
    rows = block.Rows(
        ts_ms=np.full(len(numbers), ts_ms, dtype=np.int64),
        codes=np.zeros((len(numbers), 2), dtype=np.int64),
        quality=np.zeros((len(numbers), 2), dtype=np.uint8),
        counters=np.array(numbers, dtype=np.int64),
        source_boot=boot,
        rejected={},
    )
    stamp = Stamp(1, 1, ts_ms, ClockQuality.RELATIVE)
    head = frame.FrameHead(frame.Identity(gateway, 5, arrival), frame.Kind.BLOCK, stamp, COOLER, "icecap-cooler", 1)
    values = {
        "arrival": arrival,
        "gateway": gateway,
        "stream": 5,
        "seq": arrival,
        "device": COOLER,
        "profile": "icecap-cooler",
        "profile_version": 1,
        "session": b"",
        "boot": "1",
        "monotonic_ms": 1,
        "wall_ms": ts_ms,
        "clock_quality": 3,
        "t0_ms": ts_ms,
        "t1_ms": ts_ms,
        "rows": len(numbers),
        "source_boot": f"{boot:x}",
        "sha256": bytes(32),
        "data": frame.encode(head, block.encode(rows))[: -1 if damage else None],
        "received_ms": ts_ms,
    }
    connection.execute(insert(schema.block).values(values))


@pytest.fixture
def look(store: Store) -> Callable[..., Account]:
    def account(*blocks: tuple[int, list[int]], after: int = 0, now_ms: int = NOW_MS, **fields: object) -> Account:
        with store.transaction() as connection:
            for arrival, numbers in blocks:
                put(connection, arrival, numbers, **fields)
        made = Account([GATEWAY], after_arrival=after, scale=60)
        with store.reading() as connection:
            made.read(connection, now_ms=now_ms)
        return made

    return account


def test_a_row_that_is_in_no_block_is_lost(look):
    account = look((1, [1, 2, 3]), (2, [5]))

    assert account.lost({COOLER: {7: Runs([1, 2, 3, 4, 5])}}) == 1
    assert account.lost({COOLER: {7: Runs([1, 2, 3, 5])}}) == 0
    assert (account.blocks, account.rows, account.twice) == (2, 4, 0)


def test_another_boot_and_another_cooler_are_other_rows(look):
    account = look((1, [1, 2, 3]))

    assert account.lost({COOLER: {8: Runs([1])}}) == 1
    assert account.lost({"cooler-0002": {7: Runs([1])}}) == 1


def test_a_row_that_is_in_two_blocks_is_counted(look):
    assert look((1, [1, 2, 3]), (2, [3, 4])).twice == 1


def test_blocks_of_earlier_runs_and_other_gateways_do_not_count(look):
    assert look((1, [1]), (2, [2]), after=1).rows == 1
    assert look((3, [1]), after=2, gateway=GatewayId("gw-other")).rows == 0


def test_a_block_that_cannot_be_read_is_told(look, store):
    with store.transaction() as connection:
        put(connection, 1, [1])
        put(connection, 2, [2], damage=True)
    account = Account([GATEWAY], after_arrival=0, scale=60)

    with store.reading() as connection:
        account.read(connection, now_ms=NOW_MS)

    assert account.unreadable == 1
    assert account.lost({COOLER: {7: Runs([1])}}) == 0


def test_latency_is_in_real_milliseconds(look):
    """Six scaled seconds are a tenth of a real one."""
    account = look((1, list(range(1, 101))), now_ms=NOW_MS + 6_000)

    assert 100 <= account.latency().p50_ms <= 105
    assert 100 <= account.latency().p99_ms <= 105
    assert account.latency().rows == 100


def test_what_the_store_says_of_itself(store):
    with store.transaction() as connection:
        assert newest_arrival(connection) == 0
        put(connection, 4, [1, 2])
        put(connection, 5, [3])
        connection.execute(insert(schema.cursor).values(name="influx", arrival=4, updated_ms=0))

        assert newest_arrival(connection) == 5
        assert projected(connection, cursor="influx", after_arrival=0) == 2
        assert projected(connection, cursor="nobody", after_arrival=0) == 0
        assert duplicates(connection, [GATEWAY]) == 0
