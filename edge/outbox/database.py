"""Database: one SQLite file opened the way that survives power cuts. Not the tables' meaning.

WAL with synchronous=FULL lost nothing in 3,000 simulated and 80 real cuts, NORMAL lost the last commits in four of five. One connection in
exclusive mode: no shared memory file, and SQLite's WAL-reset fault needs two. Invariant: ``transaction`` either raises or is on the disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

import apsw

from edge.outbox.model import OutboxError
from protocol.clock import Timer

__all__ = ["DAMAGE", "DISK", "PAGE_BYTES", "Checked", "Database", "Value", "to_signed", "to_unsigned"]

PAGE_BYTES = 4096
CACHE_KIB = 4096  # a gateway has little memory, and the working set is the newest pages
LOG_PAGES = {"outbox": 512, "mirror": 64}  # written home at 2 MiB and 256 KiB: small against the ballast, minutes of ordinary rows
CHECK_STEPS = 2_000  # virtual machine steps between looks at the budget: under a millisecond
SCHEMAS_MAX = 9999  # the file names have four digits

DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
"""The file's content is wrong: set it aside."""

DISK = (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.BusyError, apsw.LockedError, apsw.NoMemError)
"""The disk did not do as told: what was being committed is unknown until it is read back."""

Value = None | int | float | bytes | str
Checked = bool
"""Whether the whole file was looked at: a large one is looked at only as far as the budget goes."""


def to_signed(value: int) -> int:
    """Return an unsigned 64-bit number as SQLite stores it."""
    return value - (1 << 64) if value >= 1 << 63 else value


def to_unsigned(value: int) -> int:
    """Return a stored number as the unsigned one that it was."""
    return value + (1 << 64) if value < 0 else value


class Database:
    """One file and its only connection. Errors are apsw's; ``DAMAGE`` and ``DISK`` class them."""

    def __init__(self, path: Path, *, kind: str, pages_max: int, vfs: str | None = None) -> None:
        self.path = path
        self._kind = kind
        self._pages_max = pages_max
        self._vfs = vfs
        self._connection: apsw.Connection | None = None
        self.is_held = False

    @property
    def is_open(self) -> bool:
        """Whether a connection is there."""
        return self._connection is not None

    @property
    def connection(self) -> apsw.Connection:
        """The connection; using a closed database is a bug."""
        assert self._connection is not None, f"{self.path} is not open"
        return self._connection

    def open(self) -> None:
        """Open or create the file and bring its tables up to date. Raises ``OutboxError`` for a schema from the future."""
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs)
        try:
            for pragma in (
                "auto_vacuum = incremental",  # only takes hold in an empty file
                "locking_mode = exclusive",
                "journal_mode = wal",
                "synchronous = full",
                "temp_store = memory",
                "cell_size_check = on",
                "trusted_schema = off",
                f"cache_size = -{CACHE_KIB}",
                f"max_page_count = {self._pages_max}",
                f"wal_autocheckpoint = {LOG_PAGES[self._kind]}",
            ):
                list(connection.execute(f"pragma {pragma}"))
            self._migrate(connection)
        except BaseException:
            with suppress(apsw.Error):
                connection.close(force=True)
            raise
        self._connection = connection
        self.is_held = False

    def close(self) -> None:
        """Close whatever state the file is in; what was committed stays."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(apsw.Error):  # a failing disk fails here too, and what matters was synced long before
                connection.close(force=True)

    def run(self, sql: str, values: Sequence[Value] = ()) -> apsw.Cursor:
        """Run one statement; iterate the answer for its rows."""
        return self.connection.execute(sql, values)

    def number(self, sql: str, values: Sequence[Value] = ()) -> int:
        """The only number of the only row; 0 for null and for no row."""
        for (value,) in self.connection.execute(sql, values):
            return int(value or 0)
        return 0

    @property
    def changes(self) -> int:
        """How many rows the last statement touched."""
        return int(self.connection.changes())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit when the block ends, roll back when it raises. An error *of the commit* leaves the outcome unknown (see ``Store``)."""
        connection = self.connection
        connection.execute("begin immediate")
        try:
            yield
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                with suppress(apsw.Error):  # the first error is the one to tell
                    connection.execute("rollback")
            raise

    def checkpoint(self, *, keep_log: bool = False) -> None:
        """Write the whole log into the file, sync it and start the log again, in its old blocks or from nothing. Raises apsw errors."""
        busy, _, _ = next(iter(self.run(f"pragma wal_checkpoint({'restart' if keep_log else 'truncate'})")))
        assert not busy, "there is one connection"

    def hold_size(self, more_bytes: int | None) -> None:
        """Let the file grow by ``more_bytes`` and no further (full is then found before the disk is), or to its bound again (``None``)."""
        pages = self._pages_max if more_bytes is None else self.number("pragma page_count") + more_bytes // PAGE_BYTES
        list(self.run(f"pragma max_page_count = {min(pages, self._pages_max)}"))
        self.is_held = more_bytes is not None

    def check(self, timer: Timer, budget_s: float) -> Checked:
        """Look for damage for at most ``budget_s`` seconds; raises ``apsw.CorruptError`` when there is some."""
        end_s = timer() + budget_s
        self.connection.set_progress_handler(lambda: timer() > end_s, CHECK_STEPS)
        try:
            answers = [str(row[0]) for row in self.run("pragma quick_check(1)")]
        except apsw.InterruptError:
            return False
        finally:
            self.connection.set_progress_handler(None)
        if answers != ["ok"]:
            raise apsw.CorruptError(f"{self.path.name}: {answers[0] if answers else 'no answer'}")
        return True

    def used_bytes(self) -> int:
        """Bytes of pages that hold something."""
        return (self.number("pragma page_count") - self.free_pages()) * PAGE_BYTES

    def free_pages(self) -> int:
        """Pages that hold nothing and can be given back."""
        return self.number("pragma freelist_count")

    def vacuum(self, pages: int) -> None:
        """Give up to ``pages`` free pages back to the file system."""
        list(self.run(f"pragma incremental_vacuum({int(pages)})"))

    def _migrate(self, connection: apsw.Connection) -> None:
        scripts = list(_scripts(self._kind))
        (have,) = next(iter(connection.execute("pragma user_version")))
        if have > len(scripts):
            # A later schema may say that this program can still work on it: then going one version back keeps the backlog.
            row = next(iter(connection.execute("select value from meta where key = 'readable_by'")), ("0",))
            if not 0 < int(row[0]) <= len(scripts):
                raise OutboxError(f"{self.path} has schema {have}, this program knows {len(scripts)}: install the newer program")
        for number, script in enumerate(scripts[have:], start=have + 1):
            connection.execute("begin immediate")
            try:
                list(connection.execute(script))
                list(connection.execute(f"pragma user_version = {number}"))
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise


def _scripts(kind: str) -> Iterator[str]:
    folder = resources.files("edge") / "schema"
    for number in range(1, SCHEMAS_MAX):
        script = folder / f"{kind}_{number:04}.sql"
        if not script.is_file():
            return
        yield script.read_text(encoding="utf-8")
