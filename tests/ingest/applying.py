"""Messages into a store and rows out of it, for the tests of apply."""

from typing import Any

from sqlalchemy import Table, select

from ingest import schema
from ingest.apply import Applied, apply_batch
from ingest.arrivals import Incoming
from ingest.profiles import Profiles
from ingest.store import Store
from protocol.receipt import Gap, Receipt
from tests.ingest.frames import START_MS

NOW_MS = START_MS + 7_200_000
PROFILES = Profiles()


def apply_in(store: Store, *messages: Incoming) -> Applied:
    with store.transaction() as connection:
        return apply_batch(connection, messages, profiles=PROFILES, now_ms=NOW_MS)


def rows_in(store: Store, table: Table) -> list[Any]:
    with store.reading() as connection:
        return list(connection.execute(select(table)))


def receipt_of(applied: Applied) -> Receipt:
    assert len(applied.receipts) == 1
    return applied.receipts[0].receipt


def receipt(up_to: int, *gaps: Gap, seen: int | None = None) -> Receipt:
    return Receipt(11, up_to, gaps, "", NOW_MS, seen=max(up_to, seen or 0))


def kinds(store: Store) -> list[str]:
    return sorted(row.kind for row in rows_in(store, schema.event))
