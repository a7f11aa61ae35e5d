"""What billing does when facts are stored: settle their sessions, note which documents gateways hold. Called inside that transaction."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from ingest.billing import denylist, sessions, settle
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
    settle.settle_or_tell(connection, touched, posted_ms=posted_ms)
    for gateway, applied in documents:
        denylist.heard(connection, gateway, document=applied.document, held=applied.version, at_ms=posted_ms)
