"""Finding the bad lines of a refused batch: all of them, nothing else, in a bounded number of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.influx.deliver import CANARY, LINES_REJECTED_MAX, Item, deliver
from ingest.influx.sink import Fault, Refused, SinkError
from ingest.projection import StoredBlock


class PoisonServer:
    """Stores whole bodies without a bad line, refuses the others; like 2.x it stores nothing of a refused body."""

    def __init__(self, *, canary: bool = True, size_max: int = 10**9) -> None:
        self.canary, self.size_max = canary, size_max
        self.stored: set[bytes] = set()
        self.requests = 0

    def write(self, body: bytes) -> Refused | None:
        self.requests += 1
        if len(body) > self.size_max:
            return Refused("body too large", too_large=True)
        if not self.canary or b"bad" in body:
            return Refused("unable to parse")
        self.stored |= set(body.splitlines())
        return None

    def close(self) -> None:
        """Nothing open."""


def item(number: int, lines: list[bytes]) -> Item:
    return Item(
        StoredBlock(number, "gw-test-1", 7, number, "cooler-0001", "icecap-cooler", 1, 0, 0, b""), b"".join(line + b"\n" for line in lines)
    )


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=12))
def test_exactly_the_bad_lines_stay_behind_and_every_good_one_is_stored(bad: list[list[bool]]) -> None:
    server = PoisonServer()
    lines = [[b"%s-%d-%d" % (b"bad" if one else b"good", block, row) for row, one in enumerate(rows)] for block, rows in enumerate(bad)]

    rejects = deliver(server, [item(block, rows) for block, rows in enumerate(lines)])

    assert {one.line.encode() for one in rejects} == {line for rows in lines for line in rows if line.startswith(b"bad")}
    assert {line for rows in lines for line in rows if line.startswith(b"good")} <= server.stored
    assert all(one.line.encode() in lines[one.stored.arrival] for one in rejects)


def test_one_bad_line_among_thousands_costs_few_requests() -> None:
    server = PoisonServer()
    blocks = [[b"good-%d-%d" % (block, row) for row in range(60)] for block in range(100)]
    blocks[42][17] = b"bad"

    rejects = deliver(server, [item(block, rows) for block, rows in enumerate(blocks)])

    assert [one.stored.arrival for one in rejects] == [42]
    assert server.requests < 35


def test_a_block_of_bad_lines_becomes_a_bounded_number_of_rejects() -> None:
    server = PoisonServer()

    rejects = deliver(server, [item(0, [b"bad-%d" % row for row in range(1000)]), item(1, [b"good"])])

    assert len(rejects) == LINES_REJECTED_MAX + 1
    assert f"{1000 - LINES_REJECTED_MAX} more lines" in rejects[-1].detail
    assert b"good" in server.stored


def test_a_server_that_refuses_a_good_line_too_is_at_fault_and_nothing_is_called_bad() -> None:
    server = PoisonServer(canary=False)

    with pytest.raises(SinkError) as caught:
        deliver(server, [item(0, [b"good"])])

    assert caught.value.fault is Fault.REFUSES_ALL


def test_a_body_that_is_too_large_is_split_without_a_reject() -> None:
    server = PoisonServer(size_max=100)
    lines = [[b"good-%03d-%03d" % (block, row) for row in range(40)] for block in range(4)]

    assert deliver(server, [item(block, rows) for block, rows in enumerate(lines)]) == []
    assert server.stored == {line for rows in lines for line in rows}
    assert not any(line.startswith(CANARY) for line in server.stored)
