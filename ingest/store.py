"""Store: the cloud's database as one object: SQLite by default, PostgreSQL in production. Not the tables (``schema``), not the writes.

Invariant: a transaction that returns is on the disk (WAL and synchronous=FULL; PostgreSQL's synchronous_commit=on), and on SQLite a
checkpoint runs only while its connection keeps every writer out. The latter fences SQLite's WAL-reset bug (3.7.0 to 3.51.2: two
connections, one commits while the other checkpoints, and the database is damaged), since Python's own SQLite is as old as the system's.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from ingest.errors import IngestError

__all__ = ["Store", "StoreDownError", "StoreError"]

BUSY_MS = 10_000  # the longest write of another process is a batch or a migration; after this it is stuck
CONNECT_S = 5  # PostgreSQL that does not answer a connection in this time is down
WAL_BYTES_MAX = 16 * 1024 * 1024  # checkpoint beyond this: some thousand blocks, and a WAL of this size is read back in well under a second
POOL_CONNECTIONS_MAX = 8  # the worker, the projections and a few readers of one process
MIGRATION_LOCK = 4_945_421  # any number that no other program in the database uses: "IC" in ASCII, twice


class StoreError(IngestError):
    """The database is there but not usable: wrong address, wrong version, damaged."""


class StoreDownError(StoreError):
    """The world failed: connection lost, disk full, locked too long. The transaction may or may not have been committed; try it again."""


class Store:
    """A database. Thread-safe; one per process."""

    def __init__(self, engine: Engine, wal: Path | None) -> None:
        self._engine = engine
        self._wal = wal

    @classmethod
    def open(cls, url: str) -> Self:
        """Return the store at an SQLAlchemy address (``sqlite:////absolute/path`` or ``postgresql+psycopg://…``). Connects on first use.

        Raises ``StoreError`` for an address of another kind.
        """
        try:
            parsed = make_url(url)
            backend = parsed.get_backend_name()
        except Exception as error:
            raise StoreError(f"database address {url!r}: {error}") from error
        if backend == "sqlite":
            return cls(*_open_sqlite(parsed))
        if backend == "postgresql":
            return cls(_open_postgresql(parsed), None)
        raise StoreError(f"database address: {backend} is neither sqlite nor postgresql")

    @property
    def engine(self) -> Engine:
        """The engine beneath, for what needs one (schema comparison, console)."""
        return self._engine

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A writing transaction: committed at the end of the block, rolled back by an exception.

        Raises ``StoreDownError`` when the database fails. The outcome of a failed commit is unknown: what runs inside must bear repetition.
        """
        with _named_failures(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection
        if self._wal is not None and _size(self._wal) > WAL_BYTES_MAX:
            self.checkpoint()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view; writing in it fails. Raises ``StoreDownError`` when the database fails."""
        with _named_failures(), self._engine.connect().execution_options(writes=False) as connection, connection.begin():
            yield connection

    def checkpoint(self) -> None:
        """SQLite: move the WAL into the database while no writer can commit. A reader or a busy writer only postpones it."""
        if self._wal is None:
            return
        path = self._wal.with_name(self._wal.name.removesuffix("-wal"))
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as gate, closing(sqlite3.connect(path, timeout=0)) as worker:
            try:
                gate.execute("begin immediate")
                worker.execute("pragma synchronous=full")
                worker.execute("pragma wal_checkpoint(passive)").fetchall()
            except sqlite3.OperationalError:
                return  # a writer is busy; the next commit tries again
            finally:
                if gate.in_transaction:
                    gate.execute("rollback")

    def migrate(self) -> None:
        """Bring the tables to this version. Safe when several processes start at once.

        Raises ``StoreError`` when the database is of a newer version than this program.
        """
        with self.transaction() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            _refuse_newer(connection)
            command.upgrade(_alembic(connection), "head")

    def version(self) -> tuple[str, str]:
        """The version of the database (empty before the first migration) and the one that this program wants."""
        with self.reading() as connection:
            return _current(connection), _wanted()

    def close(self) -> None:
        """Close every connection; the last one of all processes empties SQLite's WAL."""
        self._engine.dispose()


def _open_sqlite(url: URL) -> tuple[Engine, Path]:
    if not url.database or url.database == ":memory:":
        raise StoreError("database address: a store in memory keeps nothing; give a path")
    path = Path(url.database)
    engine = create_engine(
        url, pool_size=POOL_CONNECTIONS_MAX, max_overflow=0, connect_args={"isolation_level": None, "timeout": BUSY_MS / 1000}
    )

    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=wal",
            "synchronous=full",
            "foreign_keys=on",
            "wal_autocheckpoint=0",  # see the module's invariant
            "mmap_size=0",
            "temp_store=memory",
            "cache_size=-16384",
        ):
            cursor.execute(f"pragma {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        # The driver's own transactions begin late and deferred: a writer must hold the lock from its first statement, or two of them that
        # read before they write end in "database is locked" whatever the time-out.
        writes = bool(connection.get_execution_options().get("writes", True))
        connection.exec_driver_sql(f"pragma query_only={'off' if writes else 'on'}")
        connection.exec_driver_sql("begin immediate" if writes else "begin")

    return engine, path.with_name(path.name + "-wal")


def _open_postgresql(url: URL) -> Engine:
    if url.get_driver_name() != "psycopg":
        raise StoreError("database address: write postgresql+psycopg://…")
    engine = create_engine(
        url,
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_S, "options": "-c synchronous_commit=on -c timezone=UTC"},
    )

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        if not connection.get_execution_options().get("writes", True):
            connection.exec_driver_sql("set transaction isolation level repeatable read read only")

    return engine


@contextmanager
def _named_failures() -> Iterator[None]:
    """Tell failures of the world (``StoreDownError``) from bugs in a statement, which pass through."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        raise StoreDownError(f"database: {_first_line(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreDownError(f"database: {_first_line(error)}") from error
        raise


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).partition("\n")[0][:200]


def _alembic(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _wanted() -> str:
    return ScriptDirectory.from_config(_alembic(None)).get_current_head() or ""


def _current(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


def _refuse_newer(connection: Connection) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_alembic(None)).walk_revisions()}
    current = _current(connection)
    if current and current not in known:
        raise StoreError(f"the database is at version {current!r}, newer than this program ({_wanted()!r}); upgrade the program")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
