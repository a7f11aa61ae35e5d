"""An uplink in a test: running on an event loop, against a broker, with an outbox of its own."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from edge.outbox import Limits, Outbox
from edge.settings import CloudConfig
from edge.uplink import Uplink, UplinkLimits
from protocol import topics
from protocol.state import Presence
from provisioning.identity import Authority
from tests.support.cloud import FakeBroker
from tests.support.mtls import Credentials
from tests.support.outbox import BOOT, GATEWAY, make_rows
from tests.support.services import HOST

LIMITS = Limits(telemetry_bytes_max=20_000_000, reserve_bytes=2_000_000, ballast_bytes=0, seal_rows=2, commit_interval_ms=1)
WORKER = f"ingest-{topics.partition_of(GATEWAY)}"
FAST = UplinkLimits(backlog_per_s=5000, backlog_burst=5000, start_delay_s=0)


def make_fake(authority: Authority, folder: Path) -> FakeBroker:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue_server(["localhost"], [HOST]).write(folder / "fake", "server"))
    return FakeBroker(context)


def credentials(authority: Authority, folder: Path) -> Credentials:
    folder.mkdir(exist_ok=True)
    (folder / "root.crt").write_bytes(authority.root)
    return Credentials(folder / "root.crt", *authority.issue_client(GATEWAY).write(folder, GATEWAY))


def config_for(port: int, shown: Credentials, *, keepalive_s: int = 20) -> CloudConfig:
    return CloudConfig(host=HOST, port=port, ca=shown.ca, cert=shown.cert, key=shown.key, keepalive_s=keepalive_s)


def make_uplink(config: CloudConfig, outbox: Outbox, limits: UplinkLimits = FAST) -> Uplink:
    presence = Presence(online=True, boot=BOOT, version="test")
    return Uplink(config, outbox, presence, gateway=GATEWAY, limits=limits, timer=time.monotonic, rng=random.Random(7))


@asynccontextmanager
async def running(config: CloudConfig, outbox: Outbox, limits: UplinkLimits = FAST) -> AsyncIterator[Uplink]:
    uplink = make_uplink(config, outbox, limits)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        uplink.stop()
        await asyncio.wait_for(task, 8)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(bounded())


def fill(outbox: Outbox, blocks: int, *, first: int = 1) -> None:
    """Two rows a block."""
    for number in range(blocks):
        outbox.append_rows(make_rows([first + 2 * number, first + 2 * number + 1])).result(10)
        outbox.seal_all().result(10)


def waiting(outbox: Outbox) -> int:
    return sum(lane.records for lane in outbox.stats().lanes.values())
