"""The bytes that reach InfluxDB depend on the stored blocks alone: not on batches, restarts, or what was remembered."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from ingest.influx.lines import block_lines, prefix
from ingest.influx.projector import GAP_MS, NAME
from ingest.influx.sink import Refused
from ingest.schema import cursor
from ingest.store import Store
from protocol.block import Rows
from protocol.series import CoolerTags
from tests.ingest.influx_support import drain, projection, sqlite_store
from tests.support.blocks import PROFILE, START_MS, Machine, make_frame, make_rows, put


class Recorder:
    """Keeps every line; takes everything."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, body: bytes) -> Refused | None:
        self.lines += body.splitlines(keepends=True)
        return None

    def close(self) -> None:
        """Nothing open."""


def expected(blocks: list[tuple[Machine, Rows]]) -> list[bytes]:
    """By the rule: before a block comes the machine's block of an earlier arrival that ended last before it, and not long before."""
    out: list[bytes] = []
    for arrival, (machine, rows) in enumerate(blocks):
        earlier = [
            (int(other.ts_ms[-1]), number, other)
            for number, (owner, other) in enumerate(blocks[:arrival])
            if owner.device == machine.device and other.ts_ms[-1] < rows.ts_ms[0]
        ]
        ended_ms, _, before = max(earlier, key=lambda one: one[:2], default=(0, 0, None))
        warm = before if before is not None and rows.ts_ms[0] - ended_ms <= GAP_MS else None
        head = prefix(CoolerTags(machine.device, machine.gateway, "icecap-cooler", "clinic-a"))
        out += block_lines(head, PROFILE, rows, warm).splitlines(keepends=True)
    return out


def record(store: Store) -> list[bytes]:
    recorder = Recorder()
    one = projection(store, recorder)
    drain(one)
    return recorder.lines


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_any_order_any_batches_any_restarts_give_the_bytes_of_the_rule(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("rebuild"))
    machines = (Machine("cooler-0001", stream=1), Machine("cooler-0002", stream=2))
    blocks: list[tuple[Machine, Rows]] = []
    for machine in machines:
        at_ms = START_MS
        for _ in range(6):
            count = rng.randint(1, 40)
            blocks.append((machine, make_rows(t0_ms=at_ms, count=count, seed=rng.randint(0, 999), missing=0.1)))
            at_ms += 1000 * (count + rng.choice([0, 0, 5, 29, 31, 90, -count]))  # next, a short gap, a long one, or the same time once more
    rng.shuffle(blocks)
    frames = [make_frame(rows, seq=seq, machine=machine) for seq, (machine, rows) in enumerate(blocks, 1)]

    recorder = Recorder()
    one = projection(store, recorder)
    while frames:
        size = rng.randint(1, 4)
        put(store, frames[:size])
        frames = frames[size:]
        if rng.random() < 0.3:
            one = projection(store, recorder)  # a restart remembers nothing
        one._limit = rng.randint(1, 5)
        one.step()
    drain(one)

    assert recorder.lines == expected(blocks)
    with store.transaction() as connection:
        connection.execute(delete(cursor).where(cursor.c.name == NAME))
    assert record(store) == recorder.lines
    store.close()
