import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from ingest import schema
from ingest.store import WAL_BYTES_MAX, Store, StoreDownError, StoreError
from provisioning import registry

TOMBSTONE = {"gateway": "gw-test-1", "stream": 1, "first": 1, "last": 2, "cause": 1, "rows": 0, "lane": "t", "wall_ms": 0, "received_ms": 0}


def test_migrations_make_exactly_the_tables_of_the_schema(store: Store) -> None:
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, [schema.metadata, registry.metadata])  # type: ignore[arg-type]  # it takes several; its stub does not

    comments = {"add_table_comment", "modify_comment"}  # they document the schema and are not part of the database
    left = [one for group in differences for one in (group if isinstance(group, list) else [group]) if one[0] not in comments]
    assert left == []


def test_migrating_twice_changes_nothing(store: Store) -> None:
    before = store.version()

    store.migrate()

    assert store.version() == before
    assert before[0] == before[1] != ""


def test_many_processes_may_migrate_at_once(store_url: str) -> None:
    stores = [Store.open(store_url) for _ in range(4)]
    threads = [threading.Thread(target=one.migrate) for one in stores]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(one.version()[0] == one.version()[1] for one in stores)
    for one in stores:
        one.close()


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    with store.transaction() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))

    with pytest.raises(StoreError, match="newer than this program"):
        store.migrate()


@pytest.mark.parametrize("statement", ["update tombstone set rows = 5", "delete from tombstone"])
def test_evidence_cannot_be_changed(store: Store, statement: str) -> None:
    with store.transaction() as connection:
        connection.execute(insert(schema.tombstone).values(TOMBSTONE))

    with pytest.raises(DBAPIError, match="evidence"), store.transaction() as connection:
        connection.execute(text(statement))

    with store.reading() as connection:
        assert connection.execute(select(schema.tombstone.c.rows)).scalars().all() == [0]


@pytest.mark.parametrize("name", schema.IMMUTABLE)
def test_every_table_of_evidence_has_its_triggers(store: Store, name: str) -> None:
    asked = {
        "sqlite": "select count(*) from sqlite_master where type = 'trigger' and tbl_name = :name",
        "postgresql": "select count(*) from information_schema.triggers where event_object_table = :name",
    }

    with store.reading() as connection:
        count = connection.execute(text(asked[store.dialect]), {"name": name}).scalar_one()

    assert count == 2  # update and delete; PostgreSQL's truncate is on the same trigger and not listed there


def test_a_failed_block_leaves_nothing(store: Store) -> None:
    with pytest.raises(IntegrityError), store.transaction() as connection:
        connection.execute(insert(schema.tombstone), [TOMBSTONE, TOMBSTONE])

    with store.reading() as connection:
        assert connection.execute(select(schema.tombstone)).all() == []


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises((DBAPIError, StoreDownError)), store.reading() as connection:
        connection.execute(insert(schema.tombstone).values(TOMBSTONE))


def test_a_reader_sees_one_moment(store: Store) -> None:
    with store.reading() as reader:
        assert reader.execute(select(schema.tombstone)).all() == []
        with store.transaction() as writer:
            writer.execute(insert(schema.tombstone).values(TOMBSTONE))
        assert reader.execute(select(schema.tombstone)).all() == []


def test_two_writers_wait_for_each_other(store: Store) -> None:
    with store.transaction() as connection:
        connection.execute(insert(schema.counter).values(name="test", value=0))

    def add() -> None:
        for _ in range(25):
            with store.transaction() as connection:
                value = connection.execute(
                    select(schema.counter.c.value).where(schema.counter.c.name == "test").with_for_update()
                ).scalar_one()
                connection.execute(update(schema.counter).where(schema.counter.c.name == "test").values(value=value + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.reading() as connection:
        assert connection.execute(select(schema.counter.c.value).where(schema.counter.c.name == "test")).scalar_one() == 100


@pytest.mark.parametrize("url", ["sqlite://", "mysql://localhost/x", "no address", "postgresql+psycopg2://localhost/x"])
def test_an_address_that_cannot_work_is_refused_by_name(url: str) -> None:
    with pytest.raises(StoreError, match="database"):
        Store.open(url)


def test_a_database_that_is_away_is_down_not_a_bug(free_port) -> None:
    store = Store.open(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")

    with pytest.raises(StoreDownError), store.transaction():
        pass


def test_sqlite_is_durable_and_leaves_checkpoints_to_the_store(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'one.db'}")

    with store.transaction() as connection:
        asked = {
            name: connection.execute(text(f"pragma {name}")).scalar_one() for name in ("journal_mode", "synchronous", "wal_autocheckpoint")
        }
    store.close()

    assert asked == {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0}


def test_a_long_wal_is_moved_into_the_database_while_writers_are_kept_out(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'one.db'}")
    store.migrate()
    wal = tmp_path / "one.db-wal"
    with store.transaction() as connection:
        connection.execute(text("create table filler (data blob)"))

    sizes = []
    for _ in range(60):
        with store.transaction() as connection:
            connection.execute(text("insert into filler values (zeroblob(1000000))"))
        sizes.append(wal.stat().st_size)

    assert max(sizes) < WAL_BYTES_MAX + 3_000_000  # it begins again from the front
    assert (tmp_path / "one.db").stat().st_size > 30_000_000
    store.close()


def test_a_checkpoint_gives_way_to_a_busy_writer(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'one.db'}?timeout=0.1")
    store.migrate()
    other = sqlite3.connect(tmp_path / "one.db", isolation_level=None)
    other.execute("begin immediate")

    store.checkpoint()

    other.execute("rollback")
    other.close()
    store.close()


def test_every_table_has_a_primary_key_in_both_engines(store: Store) -> None:
    with store.reading() as connection:
        look = inspect(connection)
        assert [name for name in schema.metadata.tables if not look.get_pk_constraint(name)["constrained_columns"]] == []
