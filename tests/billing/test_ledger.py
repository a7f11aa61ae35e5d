"""The ledger: balanced, append-only, idempotent for ever, its chain provable; the same on both engines."""

import random
import threading
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ingest.billing import ledger
from ingest.billing.ledger import USE, LedgerError, Posting, Transaction
from ingest.store import Store, StoreDownError

NOW_MS = 1_767_225_600_000


def commit_of(session: str, *, scope: str = "gw-a", price_minor: int = 350_00) -> Transaction:
    return Transaction(
        key=f"commit:{session}",
        kind="commit",
        at_ms=NOW_MS,
        postings=(
            Posting(f"reserved:{session}", USE, -1),
            Posting("redeemed:course-1", USE, 1),
            Posting("deferred:course-1", "USD", -price_minor),
            Posting("revenue:course-1", "USD", price_minor),
        ),
        scope=scope,
    )


def post(store: Store, one: Transaction) -> bool:
    with store.transaction() as connection:
        return ledger.post(connection, one, posted_ms=NOW_MS)


def faults(store: Store) -> list[ledger.Fault]:
    with store.reading() as connection:
        return ledger.verify(connection)


def test_a_transaction_is_written_once_however_often_it_comes(store):
    assert [post(store, commit_of("s1")) for _ in range(5)] == [True, False, False, False, False]

    with store.reading() as connection:
        assert ledger.balance(connection, "revenue:course-1", "USD") == 350_00
        assert ledger.balance(connection, "redeemed:course-1", USE) == 1
        assert ledger.balance(connection, "nobody", "USD") == 0


def test_the_order_of_postings_does_not_make_another_transaction(store):
    one = commit_of("s1")
    post(store, one)

    assert post(store, replace(one, postings=one.postings[::-1])) is False


def test_a_known_key_with_another_content_is_refused_and_changes_nothing(store):
    post(store, commit_of("s1"))

    with pytest.raises(LedgerError, match="another content"):
        post(store, commit_of("s1", price_minor=200_00))

    with store.reading() as connection:
        assert ledger.balance(connection, "revenue:course-1", "USD") == 350_00


@pytest.mark.parametrize(
    "postings",
    [
        (),
        (Posting("a", "USD", 1),),
        (Posting("a", "USD", 1), Posting("b", "USD", -2)),
        (Posting("a", "USD", 1), Posting("b", "EUR", -1)),
        (Posting("a", USE, 1), Posting("b", "USD", -1)),
        (Posting("a", "USD", 0), Posting("b", "USD", 0)),
        (Posting("a", "USD", 1.5), Posting("b", "USD", -1.5)),
        (Posting("a", "USD", True), Posting("b", "USD", -1)),
        (Posting("a", "USD", 2**53 + 1), Posting("b", "USD", -(2**53) - 1)),
        (*(Posting(f"a{n}", "USD", 1) for n in range(64)), Posting("b", "USD", -64)),
    ],
)
def test_what_does_not_balance_is_never_written(store, postings):
    with pytest.raises(LedgerError):
        post(store, Transaction("bad", "bad", NOW_MS, postings))

    with store.reading() as connection:
        assert ledger.balances(connection) == {}


@pytest.mark.parametrize("verb", ["update {} set number = 9", "delete from {}"])
@pytest.mark.parametrize("table", ["ledger_transaction", "ledger_entry"])
def test_the_database_refuses_to_change_what_is_written(store, verb, table):
    post(store, commit_of("s1"))

    with pytest.raises((DBAPIError, StoreDownError), match="evidence"), store.transaction() as connection:
        connection.execute(text(verb.format(table)))

    assert faults(store) == []


def test_a_reversal_takes_back_exactly_and_only_once(store):
    post(store, commit_of("s1"))

    with store.transaction() as connection:
        first = ledger.reverse(connection, "commit:s1", at_ms=NOW_MS + 5, posted_ms=NOW_MS + 5, reason="treatment voided")
        again = ledger.reverse(connection, "commit:s1", at_ms=NOW_MS + 9, posted_ms=NOW_MS + 9, reason="treatment voided")
        assert (first, again) == (True, False)
        assert ledger.balances(connection) == {}
        with pytest.raises(LedgerError, match="no transaction"):
            ledger.reverse(connection, "reverse:commit:s1", at_ms=0, posted_ms=0, reason="no")
        with pytest.raises(LedgerError, match="no transaction"):
            ledger.reverse(connection, "nosuch", at_ms=0, posted_ms=0, reason="no")
    assert faults(store) == []


def test_any_order_of_arrival_gives_the_same_balances(store):
    rng = random.Random(7)
    wanted = [commit_of(f"s{n}", scope=f"gw-{n % 3}") for n in range(30)]
    arriving = wanted * 2
    rng.shuffle(arriving)

    written = sum(post(store, one) for one in arriving)

    assert written == len(wanted)
    with store.reading() as connection:
        assert ledger.balance(connection, "revenue:course-1", "USD") == 30 * 350_00
    assert faults(store) == []


def test_two_chains_do_not_touch_each_other(store):
    post(store, commit_of("s1", scope="gw-a"))
    post(store, commit_of("s2", scope="gw-b"))
    post(store, commit_of("s3", scope="gw-a"))

    with store.reading() as connection:
        numbers = connection.execute(text("select scope, number from ledger_transaction order by scope, number")).all()
    assert [tuple(row) for row in numbers] == [("gw-a", 1), ("gw-a", 2), ("gw-b", 1)]


def test_eight_writers_of_the_same_events_write_each_once(store):
    written: list[bool] = []

    def work() -> None:
        written.extend(post(store, commit_of(f"s{n}")) for n in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (sum(written), len(written)) == (10, 80)
    assert faults(store) == []


TAMPER = {
    "an amount": ("update ledger_entry set amount = amount * 2 where number = 2 and commodity = 'USD'", "does not fit"),
    "one leg": ("update ledger_entry set amount = amount + 1 where number = 2 and line = 0", "sum to zero"),
    "a date": ("update ledger_transaction set at_ms = at_ms + 1 where number = 2", "does not fit"),
    "a whole transaction": ("delete from ledger_transaction where number = 2", "follows 1"),
    "its entries": ("delete from ledger_entry where number = 2", "postings"),
    "the last one and the head": ("delete from ledger_transaction where number = 3", "head"),
}


@pytest.mark.parametrize("what", TAMPER)
def test_f27_an_edit_behind_the_triggers_is_found(store, what):
    for n in range(3):
        post(store, commit_of(f"s{n}"))
    statement, fault = TAMPER[what]
    with store.transaction() as connection:
        if store.dialect == "postgresql":
            connection.execute(text("set session_replication_role = replica"))
        else:
            for table in ("ledger_transaction", "ledger_entry"):
                for verb in ("update", "delete"):
                    connection.execute(text(f"drop trigger {table}_{verb}_refused"))
        connection.execute(text(statement))

    assert any(fault in one.what for one in faults(store))
