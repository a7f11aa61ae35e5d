"""Sessions: whether the broker still knew us when we came. Not the connections themselves (``consumer``).

Invariant: a session that is new although it was there before is an event: what lay in it may have to come again from the gateways.
"""

from sqlalchemy import Connection, select, update

from ingest.effects import tell
from ingest.intake import Happening
from ingest.schema import consumer_session
from ingest.sql import insert_new

__all__ = ["note"]


def note(connection: Connection, client_id: str, *, present: bool, now_ms: int) -> bool:
    """Write down one connection; returns whether a session was lost."""
    mine = consumer_session.c.client_id == client_id
    known = connection.execute(select(consumer_session.c.lost).where(mine)).first()
    if known is None:
        row = {"client_id": client_id, "first_ms": now_ms, "last_ms": now_ms, "lost": 0}
        connection.execute(insert_new(connection, consumer_session), row)
        return False
    lost = int(not present)
    connection.execute(update(consumer_session).where(mine).values(last_ms=now_ms, lost=consumer_session.c.lost + lost))
    if lost:
        key = f"session_lost/{client_id}/{now_ms}"
        detail = f"the broker had forgotten the session of {client_id}; unreceipted records come again from the gateways"
        tell(connection, [Happening(key, "session_lost", "warning", "", now_ms, detail=detail)])
    return bool(lost)
