"""A fleet in a real store: simulated coolers, the gateway's gate and codecs, ingestion's apply and roll-up. No row is made by hand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.condition import Conditioner
from ingest.apply import apply_batch
from ingest.arrivals import Incoming
from ingest.profiles import Profiles
from ingest.rollup import RollupProjection
from ingest.store import Store
from protocol import block, frame, state, topics
from protocol.clock import ClockQuality, ManualClock
from protocol.frame import FrameHead, Identity, Kind
from protocol.profile import builtin
from protocol.reading import Quality, Reading, Stamp
from protocol.state import Live, Presence
from protocol.topics import Leaf
from protocol.units import DeviceId, GatewayId
from provisioning import registry
from simulator.clinic import plan_day
from simulator.cooler import IDLE, Cooler
from simulator.faults import Fault, effects

PROFILE = builtin("icecap-cooler")
DAY_MS = 86_400_000
NOON_MS = 1_767_225_600_000 + 10 * 3_600_000  # 2026-01-01T10:00Z, the middle of the simulated clinic's day
BERLIN, CHICAGO, NASTY = "uferpark", "lakeside", "nasty"
SITES = {
    BERLIN: ("Uferpark Onkologie", "Europe/Berlin"),
    CHICAGO: ("Lakeside Infusion Center", "America/Chicago"),
    NASTY: ("<script>alert('x')</script>", "UTC"),
}
GATEWAYS = {"gw-uferpark-1": BERLIN, "gw-lakeside-1": CHICAGO, "gw-nasty-1": NASTY}
ROWS_A_BLOCK = 60
BOOT = 0x9F3C_77A1_04D2_C0FE


@dataclass
class World:
    """``clock`` is the machines' time, ``door`` people's; both stand still until moved."""

    store: Store
    clock: ManualClock = field(default_factory=lambda: ManualClock(wall=NOON_MS))
    door: ManualClock = field(default_factory=lambda: ManualClock(wall=NOON_MS + 500 * DAY_MS))
    seqs: dict[str, int] = field(default_factory=dict)

    def register(self, machines: dict[str, str], *, at_ms: int = 0) -> None:
        """``machines``: serial to gateway."""
        with self.store.transaction() as connection:
            for site, (name, zone) in SITES.items():
                registry.add_site(connection, registry.Site(site, name, zone, at_ms))
            for gateway, site in GATEWAYS.items():
                registry.add_gateway(connection, gateway, site_id=site, at_ms=at_ms)
            for serial, gateway in machines.items():
                registry.place_device(connection, serial, gateway_id=gateway, profile=PROFILE.id, at_ms=at_ms + 1)

    def apply(self, messages: Sequence[Incoming]) -> None:
        with self.store.transaction() as connection:
            apply_batch(connection, messages, profiles=Profiles(), now_ms=self.clock.wall_ms())

    def roll(self) -> None:
        projection = RollupProjection(self.store, profiles=Profiles().find, clock=self.clock)
        while projection.step():
            pass

    def online(self, gateway: str, *, online: bool = True) -> None:
        data = state.encode(Presence(online, BOOT, "0.1.0"))
        self.apply([Incoming(topics.build(GatewayId(gateway), Leaf.STATE), data, self.clock.wall_ms())])

    def live(self, serial: str, gateway: str, values_milli: dict[str, int], *, ts_ms: int | None = None) -> None:
        data = state.encode(Live(serial, PROFILE.id, self.clock.wall_ms() if ts_ms is None else ts_ms, values_milli))
        self.apply([Incoming(topics.build(GatewayId(gateway), Leaf.STATE), data, self.clock.wall_ms())])

    def blocks(self, serial: str, gateway: str, rows: block.Rows) -> list[Incoming]:
        """Frames of at most ``ROWS_A_BLOCK`` rows, as a gateway would number them."""
        made = []
        for start in range(0, len(rows.ts_ms), ROWS_A_BLOCK):
            part = slice(start, start + ROWS_A_BLOCK)
            seq = self.seqs[gateway] = self.seqs.get(gateway, 0) + 1
            last_ms = int(rows.ts_ms[part][-1])
            stamp = Stamp(BOOT, last_ms - NOON_MS + 10 * DAY_MS, last_ms, ClockQuality.SYNCED)
            identity = Identity(GatewayId(gateway), 4711, seq)
            head = FrameHead(identity, Kind.BLOCK, stamp, DeviceId(serial), PROFILE.id, PROFILE.version)
            cut = rows.codes.shape[1]
            kept = {cell - start * cut: code for cell, code in rows.rejected.items() if start * cut <= cell < (start + ROWS_A_BLOCK) * cut}
            counters = None if rows.counters is None else rows.counters[part]
            body = block.encode(block.Rows(rows.ts_ms[part], rows.codes[part], rows.quality[part], counters, rows.source_boot, kept))
            made.append(Incoming(topics.build(GatewayId(gateway), Leaf.TELEMETRY), frame.encode(head, body), last_ms))
        return made

    def simulate(
        self,
        serial: str,
        gateway: str,
        *,
        hours: float,
        faults: Iterable[Fault] = (),
        every_s: int = 1,
        until_ms: int | None = None,
        silent: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Let a machine live through the hours before ``until_ms`` and bring all of it to the cloud."""
        end_ms = until_ms or self.clock.wall_ms()
        start_ms = end_ms - int(hours * 3_600_000)
        cooler, gate, known = Cooler(PROFILE, seed=serial, start_ms=start_ms - 3_600_000), Conditioner(PROFILE), list(faults)
        cooler.advance(3_600_000, IDLE)
        readings = []
        for now_ms in range(start_ms, end_ms, 1000 * every_s):
            demand = plan_day("seed", serial, now_ms // DAY_MS).demand(now_ms)
            sample = cooler.step(1000 * every_s, demand, effects(known, now_ms))
            if not any(first <= sample.ts_ms < last for first, last in silent):
                stamp = Stamp(1, sample.ts_ms, sample.ts_ms, ClockQuality.SYNCED)
                readings.append(gate.take(Reading(DeviceId(serial), sample.ts_ms, stamp, sample.codes, sample.counter, 9)))
        quality = np.array([list(row.quality) for row in readings], dtype=np.uint8)
        raw = [[0 if code is None else code for code in row.reading.codes] for row in readings]
        codes = np.array(raw, dtype=np.int64)
        bad = np.flatnonzero((quality != Quality.OK) & (quality != Quality.MISSING))
        rejected = {int(cell): int(codes.flat[cell]) for cell in bad}
        codes[quality != Quality.OK] = 0
        times = np.array([row.reading.ts_ms for row in readings], dtype=np.int64)
        counters = np.array([row.reading.counter for row in readings], dtype=np.int64)
        messages = self.blocks(serial, gateway, block.Rows(times, codes, quality, counters, 9, rejected))
        for start in range(0, len(messages), 200):
            self.apply(messages[start : start + 200])


def rows(start_ms: int, values: dict[str, Sequence[float | None]], *, every_ms: int = 1000) -> block.Rows:
    """Rows with chosen values for some channels; the others send nothing."""
    count = len(next(iter(values.values())))
    codes = np.zeros((count, len(PROFILE.channels)), dtype=np.int64)
    quality = np.full(codes.shape, Quality.MISSING, dtype=np.uint8)
    for name, column in values.items():
        index = PROFILE.index(name)
        for row, value in enumerate(column):
            if value is not None:
                codes[row, index], quality[row, index] = PROFILE.channels[index].code(value), Quality.OK
    times = start_ms + every_ms * np.arange(count, dtype=np.int64)
    return block.Rows(times, codes, quality, None, 9, {})
