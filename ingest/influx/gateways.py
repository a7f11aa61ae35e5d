"""Gateways: once a minute, what each gateway's streams look like from the cloud. An observation, so it is not rebuilt by a rewind.

    gateway,gateway=gw-…,site=… blocks=5,facts=1,rows=300,gaps=0,lag_ms=2100 1767225600000000000

``blocks``, ``facts`` and ``rows`` came since the point before, ``gaps`` are numbers missing now, ``lag_ms`` is the newest sample's age.
Invariant: counts go by arrival number, so each record is in exactly one point (in two only after a kill between write and cursor).
"""

import numpy as np
from sqlalchemy import Connection, Executable, func, select

from ingest.influx.projector import UNASSIGNED
from ingest.influx.sink import Sink, SinkError
from ingest.projection import ProjectionError, advance, newest_arrival, position
from ingest.schema import block, device_seen, fact, gap, stream
from ingest.store import Store
from native import lineproto
from protocol.clock import Clock
from protocol.series import GATEWAY, GATEWAY_FIELDS
from provisioning import registry

__all__ = ["NAME", "GatewayProjection"]

NAME = "influx-gateway"
"""Name of the cursor."""

MINUTE_MS = 60_000
FIELDS = tuple(lineproto.escape_field_key(name) for name in GATEWAY_FIELDS)


class GatewayProjection:
    """See the module."""

    def __init__(self, store: Store, sink: Sink, *, clock: Clock) -> None:
        self._store, self._sink, self._clock = store, sink, clock
        self._minute_ms = 0

    @property
    def name(self) -> str:
        """Name of its cursor."""
        return NAME

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()

    def step(self) -> int:
        """Write one point a gateway when a new minute has begun; always 0, since it never has more to do at once."""
        now_ms = self._clock.wall_ms()
        minute_ms = now_ms - now_ms % MINUTE_MS
        if minute_ms == self._minute_ms:
            return 0
        with self._store.reading() as connection:
            here, newest = position(connection, NAME), newest_arrival(connection)
            # At the very first step there is no point before this one, so counting begins here.
            lines = _points(connection, newest if here is None else here, newest, now_ms=now_ms)
        if lines:
            self._write(lines)
        with self._store.transaction() as connection:
            advance(connection, NAME, old=here, new=newest, now_ms=now_ms)
        self._minute_ms = minute_ms
        return 0

    def _write(self, lines: bytes) -> None:
        try:
            refused = self._sink.write(lines)
        except SinkError as error:
            raise ProjectionError(error.fault, error.detail, error.retry_after_s) from error
        if refused is not None:
            raise ProjectionError("refused", refused.message)


def _points(connection: Connection, first: int, last: int, *, now_ms: int) -> bytes:
    """One line for each gateway that has ever sent: those that fall silent must be seen to."""
    sites = {one.id: one.site for one in registry.gateways(connection)}
    new_blocks = (block.c.arrival > first) & (block.c.arrival <= last)
    new_facts = (fact.c.arrival > first) & (fact.c.arrival <= last)
    counts = {
        "blocks": _by_gateway(connection, select(block.c.gateway, func.count()).where(new_blocks).group_by(block.c.gateway)),
        "facts": _by_gateway(connection, select(fact.c.gateway, func.count()).where(new_facts).group_by(fact.c.gateway)),
        "rows": _by_gateway(connection, select(block.c.gateway, func.sum(block.c.rows)).where(new_blocks).group_by(block.c.gateway)),
        "gaps": _by_gateway(connection, select(gap.c.gateway, func.sum(gap.c.last - gap.c.first + 1)).group_by(gap.c.gateway)),
    }
    newest = _by_gateway(connection, select(device_seen.c.gateway, func.max(device_seen.c.last_ms)).group_by(device_seen.c.gateway))
    out = []
    for (gateway,) in connection.execute(select(stream.c.gateway).distinct().order_by(stream.c.gateway)):
        values = {name: counts[name].get(gateway, 0) for name in counts}
        values["lag_ms"] = max(0, now_ms - newest.get(gateway, now_ms))
        valid = np.array([[name != "lag_ms" or gateway in newest for name in GATEWAY_FIELDS]])
        cells = np.array([[values[name] for name in GATEWAY_FIELDS]], dtype=np.int64)
        at_ms = np.array([now_ms - now_ms % MINUTE_MS], dtype=np.int64)
        out.append(
            lineproto.encode_block(_prefix(gateway, sites.get(gateway, UNASSIGNED)), FIELDS, (0,) * len(FIELDS), at_ms, cells, valid)
        )
    return b"".join(out)


def _prefix(gateway: str, site: str) -> bytes:
    return lineproto.escape_measurement(GATEWAY) + b",gateway=" + lineproto.escape_tag(gateway) + b",site=" + lineproto.escape_tag(site)


def _by_gateway(connection: Connection, query: Executable) -> dict[str, int]:
    return {row[0]: int(row[1]) for row in connection.execute(query)}
