"""What billing does when facts are stored: settle their sessions, note which documents gateways hold. Called inside that transaction."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ingest import effects
from ingest.billing import denylist, sessions, settle
from ingest.intake import Happening
from protocol.facts import ConfigurationApplied

__all__ = ["after_facts"]


def after_facts(connection: Connection, rows: Iterable[Mapping[str, object]], *, posted_ms: int) -> None:
    """Take over the rows just written to ``fact`` and ``conflict``. Sessions first: a use spent in this batch still cancels a refund."""
    touched: set[bytes] = set()
    documents: list[tuple[str, ConfigurationApplied]] = []
    for row in rows:
        if row["kind"] in sessions.KINDS and isinstance(session_id := row["session"], bytes):
            touched.add(session_id)
        elif row["kind"] == "configuration_applied" and isinstance(data := row["data"], bytes):
            applied = sessions.read_fact(data)
            if isinstance(applied, ConfigurationApplied):
                documents.append((str(row["gateway"]), applied))
    for session_id in sorted(touched):
        with _telling(connection, f"session {session_id.hex()}", posted_ms):
            settle.settle(connection, [session_id], posted_ms=posted_ms)
    for gateway, applied in documents:
        with _telling(connection, f"{applied.document} of {gateway}", posted_ms):
            denylist.heard(connection, gateway, document=applied.document, held=applied.version, at_ms=posted_ms)


@contextmanager
def _telling(connection: Connection, what: str, at_ms: int) -> Iterator[None]:
    """A savepoint: what cannot be posted is told and done again later from the same facts; storing facts never waits for it.

    Failures of the database itself pass through, like those of any other statement of the transaction.
    """
    try:
        with connection.begin_nested():
            yield
    except SQLAlchemyError:
        raise
    except Exception as error:  # noqa: BLE001  # a bug here must not stop the facts of everybody else; it is told, never silent
        detail = f"{what}: {type(error).__name__}: {error}"[:200]
        effects.tell(connection, [Happening(f"settlement_failed/{what}", "settlement_failed", "critical", "", at_ms, detail=detail)])
