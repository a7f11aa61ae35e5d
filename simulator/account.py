"""Account: what the cloud's store really holds, row by row, against what the clinic's broker acknowledged. It believes no counter.

Every block that arrived since the beginning is decoded; a row is (cooler, its boot, its sample number). Invariant: ``lost`` counts
acknowledged rows that are in no block, ``twice`` rows that are in more than one place; both come from the stored bytes.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from ingest import schema
from protocol import block, frame
from protocol.refusal import Refusal
from simulator.runs import Runs

__all__ = ["Account", "Boots", "Latency", "duplicates", "newest_arrival", "numbered", "projected"]

READ_BLOCKS_MAX = 2_000  # blocks decoded in one go, so that a look at the store never takes long
BUCKET_MS = 5  # of the latency histogram

Boots = dict[int, Runs]


@dataclass(frozen=True, slots=True)
class Latency:
    """Real milliseconds from a sample's time to the moment at which its block was seen in the store."""

    p50_ms: float
    p99_ms: float
    rows: int


class Account:
    """What has been found in the store so far."""

    def __init__(self, gateways: Iterable[str], *, after_arrival: int, scale: int) -> None:
        """Count the blocks of ``gateways`` that arrived after ``after_arrival``; ``scale`` is how many times faster the clock runs."""
        self.found: dict[str, Boots] = defaultdict(lambda: defaultdict(Runs))
        self.blocks = self.rows = self.twice = self.unreadable = 0
        self._gateways = list(gateways)
        self._arrival = after_arrival
        self._scale = scale
        self._delays: Counter[int] = Counter()

    def read(self, connection: Connection, *, now_ms: int) -> int:
        """Take in the blocks that are new in the store, at ``now_ms`` of the shared clock; return how many."""
        table = schema.block.c
        wanted = select(table.arrival, table.data).where(table.arrival > self._arrival, table.gateway.in_(self._gateways))
        rows = connection.execute(wanted.order_by(table.arrival).limit(READ_BLOCKS_MAX)).all()
        for row in rows:
            self._arrival = row.arrival
            self._take(row.data, now_ms)
        return len(rows)

    def _take(self, data: bytes, now_ms: int) -> None:
        self.blocks += 1
        opened = frame.decode(data)
        rows = opened if isinstance(opened, Refusal) else block.decode(opened.body)
        if isinstance(opened, Refusal) or isinstance(rows, Refusal) or rows.counters is None:
            self.unreadable += 1
            return
        runs = self.found[str(opened.head.device)][rows.source_boot]
        for number, ts_ms in zip(rows.counters.tolist(), rows.ts_ms.tolist(), strict=True):
            self.rows += 1
            self.twice += not runs.add(number)
            self._delays[(now_ms - ts_ms) // (self._scale * BUCKET_MS)] += 1

    def lost(self, acknowledged: Mapping[str, Boots]) -> int:
        """How many acknowledged rows are in no block, by cooler, boot and sample number."""
        return sum(
            1
            for serial, boots in acknowledged.items()
            for boot, runs in boots.items()
            for one in runs
            if one not in self._runs(serial, boot)
        )

    def _runs(self, serial: str, boot: int) -> Runs:
        return self.found.get(serial, {}).get(boot, Runs())

    def latency(self) -> Latency:
        """The median and the 99th percentile; the resolution is that of looking."""
        return Latency(self._percentile(0.50), self._percentile(0.99), self._delays.total())

    def _percentile(self, share: float) -> float:
        wanted = share * self._delays.total()
        seen = 0
        for bucket in sorted(self._delays):
            seen += self._delays[bucket]
            if seen >= wanted:
                return float((bucket + 1) * BUCKET_MS)
        return 0.0


def newest_arrival(connection: Connection) -> int:
    """The highest arrival number in the store: what came before a demonstration began."""
    return int(connection.execute(select(func.max(schema.block.c.arrival))).scalar() or 0)


def projected(connection: Connection, *, cursor: str, after_arrival: int) -> int:
    """How many rows a projection has passed since ``after_arrival``."""
    at = select(schema.cursor.c.arrival).where(schema.cursor.c.name == cursor).scalar_subquery()
    table = schema.block.c
    passed = select(func.sum(table.rows)).where(table.arrival > after_arrival, table.arrival <= at)
    return int(connection.execute(passed).scalar() or 0)


def numbered(outbox: Path) -> int:
    """How many telemetry records a gateway has numbered: read from its own store, without touching it."""
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return int(connection.execute("select coalesce(sum(next_seq - 1), 0) from stream where lane = 't'").fetchone()[0])


def duplicates(connection: Connection, gateways: Iterable[str]) -> int:
    """Redelivered records that the cloud recognised and did not store again."""
    table = schema.stream.c
    return int(connection.execute(select(func.sum(table.duplicates)).where(table.gateway.in_(list(gateways)))).scalar() or 0)
