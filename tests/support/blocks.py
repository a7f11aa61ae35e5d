"""Blocks for tests: believable rows of a cooler as real frames, put into a store as ingestion leaves them there."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from ingest.apply import apply_batch
from ingest.arrivals import Incoming
from ingest.profiles import Profiles
from ingest.schema import ARRIVAL, counter
from ingest.store import Store
from protocol import block as block_codec
from protocol import frame, topics
from protocol.block import Rows
from protocol.clock import ClockQuality
from protocol.frame import Frame, FrameHead, Identity, Kind
from protocol.profile import Profile, Role, builtin
from protocol.reading import MachineState, Quality, Stamp
from protocol.topics import Leaf
from protocol.units import DeviceId, GatewayId

PROFILE = builtin("icecap-cooler")
START_MS = 1_767_225_600_000
BASE = {
    Role.COOLANT_TEMP: -4.0,
    Role.CAP_TEMP: 5.0,
    Role.FLOW: 2.4,
    Role.PRESSURE: 90.0,
    Role.PUMP_CURRENT: 1.3,
    Role.TANK_LEVEL: 80.0,
    Role.AMBIENT_TEMP: 22.0,
    Role.CONDENSER_TEMP: 41.0,
    Role.MAINS_VOLTAGE: 231.0,
    Role.SET_POINT: -4.0,
    Role.STATE: float(MachineState.INFUSION),
    Role.LIFETIME: 7_200_000.0,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Who sends."""

    device: str = "cooler-0001"
    gateway: str = "gw-test-1"
    stream: int = 7
    profile: Profile = PROFILE


def make_rows(
    profile: Profile = PROFILE, *, t0_ms: int = START_MS, count: int = 60, seed: int = 0, step_ms: int = 1000, missing: float = 0.01
) -> Rows:
    """Noise of each sensor around its usual value; ``missing`` of the cells have none."""
    rng = np.random.default_rng(seed)
    columns = []
    for channel in profile.channels:
        noise = 0.0 if channel.discrete else channel.sigma
        values = BASE[channel.role] + rng.normal(0.0, noise or 1e-9, count)
        step = channel.multiplier / 10**channel.decimals
        columns.append(np.rint(values / step).astype(np.int64))
    codes = np.column_stack(columns)
    ts_ms = t0_ms + step_ms * np.arange(count, dtype=np.int64)
    quality = np.where(rng.random(codes.shape) < missing, Quality.MISSING, Quality.OK).astype(np.uint8)
    codes[quality != Quality.OK] = 0
    return Rows(ts_ms=ts_ms, codes=codes, quality=quality, counters=None, source_boot=1, rejected={})


def make_frame(rows: Rows, *, seq: int, machine: Machine = Machine()) -> bytes:
    """The rows as a gateway sends them."""
    stamp = Stamp(1, int(rows.ts_ms[-1]) - START_MS, int(rows.ts_ms[-1]), ClockQuality.SYNCED)
    head = FrameHead(
        Identity(GatewayId(machine.gateway), machine.stream, seq),
        Kind.BLOCK,
        stamp,
        DeviceId(machine.device),
        machine.profile.id,
        machine.profile.version,
    )
    return frame.encode(head, block_codec.encode(rows))


def put(store: Store, frames: Iterable[bytes]) -> int:
    """Commit frames as ingestion does, in one batch; returns the newest arrival number. The gateways must be registered."""
    messages = [_message(data) for data in frames]
    with store.transaction() as connection:
        apply_batch(connection, messages, profiles=Profiles(), now_ms=messages[-1].received_ms)
        return int(connection.execute(select(counter.c.value).where(counter.c.name == ARRIVAL)).scalar_one())


def _message(data: bytes) -> Incoming:
    decoded = frame.decode(data)
    assert isinstance(decoded, Frame), decoded
    return Incoming(topics.build(decoded.head.identity.gateway, Leaf.TELEMETRY), data, decoded.head.stamp.wall_ms + 500)


def session(machine: Machine, *, blocks: int, first_seq: int = 1, t0_ms: int = START_MS, seed: int = 0, count: int = 60) -> list[bytes]:
    """Consecutive blocks of one machine."""
    return [
        make_frame(
            make_rows(machine.profile, t0_ms=t0_ms + index * count * 1000, count=count, seed=seed + index),
            seq=first_seq + index,
            machine=machine,
        )
        for index in range(blocks)
    ]
