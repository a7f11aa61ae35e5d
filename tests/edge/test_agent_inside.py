"""The agent in the test's own process, with a clock that can be set and parts that can be broken; store and brokers are real."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edge import agent as agent_module
from edge import config
from edge.agent import Agent, Exit
from edge.config import ServiceManager
from edge.machine import KernelSync, Machine
from edge.notify import Notifier
from edge.outbox import Host, Limits, Outbox
from edge.sources.memory import Quarantine, Subscriptions
from protocol import facts, frame, state
from protocol.clock import ManualClock
from protocol.facts import ClockStepped, Fact, FactRecord
from protocol.reading import MachineState
from protocol.state import Live, Presence
from protocol.topics import Lane, Leaf, build, partition_of
from provisioning.identity import Realm
from tests.edge.gateway import CLINIC, DEVICE, make_gateway
from tests.edge.rig import COOLER, GATEWAY, publisher, stored
from tests.support.mtls import connected, make_tls_broker
from tests.support.services import Mosquitto, eventually

Broker = Callable[..., Mosquitto]

pytestmark = pytest.mark.service
DAY_MS = 86_400_000


def machine_with(clock: ManualClock) -> Machine:
    return Machine(clock, time.monotonic, random.Random(7), 77, KernelSync())


@asynccontextmanager
async def running(folder: Path, machine: Machine) -> AsyncIterator[tuple[Agent, Outbox, asyncio.Task[Exit]]]:
    checked = await asyncio.to_thread(config.load, folder / "edge.toml")
    await asyncio.to_thread(checked.data_dir.mkdir, exist_ok=True)
    host = Host(gateway=checked.gateway, boot=machine.boot, clock=machine.clock, timer=machine.timer, rng=machine.rng)
    limits = Limits(commit_interval_ms=5, ballast_bytes=65_536)
    outbox = await asyncio.to_thread(Outbox.open, checked.data_dir, host, limits)
    agent, stop = Agent(checked, machine, outbox, Notifier(ServiceManager())), asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    try:
        yield agent, outbox, task
    finally:
        stop.set()
        with suppress(Exception):
            await asyncio.wait_for(task, 5)
        await asyncio.to_thread(outbox.close)


def facts_of(outbox: Outbox) -> list[Fact]:
    found = []
    for record in outbox.read(Lane.ALARM).result(10):
        decoded = frame.decode(record.data)
        assert isinstance(decoded, frame.Frame)
        fact = facts.decode(decoded.body)
        assert isinstance(fact, FactRecord)
        found.append(fact.fact)
    return found


def test_a_clock_that_jumps_is_stated_and_neither_loses_nor_merges_nor_reorders_samples(mosquitto: Broker, tmp_path: Path) -> None:
    broker, clock = mosquitto(), ManualClock()
    folder = make_gateway(tmp_path / "gateway", clinic_port=broker.port).folder

    async def scene() -> None:
        async with running(folder, machine_with(clock)) as (agent, outbox, _task):
            await eventually(lambda: agent._readers[0].status().ok, 10, "the source")
            with publisher(broker.port) as cooler:
                number = 0
                for step_ms in (0, DAY_MS, -2 * DAY_MS, DAY_MS):
                    clock.step_wall(step_ms)
                    for _ in range(5):
                        number += 1
                        clock.advance(50)
                        cooler.send({"boot": 1, "n": number, "flow_1": 3.0})  # no time of its own: the gateway's is used
                    await eventually(lambda: agent._readers[0].counts["acknowledged"] == number, 10, "stored")  # noqa: B023
                    await asyncio.sleep(2 * agent_module.BEAT_S)  # the clock watch looks in its own rhythm, which is real
            steps = [fact.step_ms for fact in await asyncio.to_thread(facts_of, outbox) if isinstance(fact, ClockStepped)]
            rows = await asyncio.to_thread(stored, outbox)
            assert steps == [DAY_MS, -2 * DAY_MS, DAY_MS]
            assert [number for _device, _boot, number in rows.keys] == list(range(1, 21))
            assert len(set(rows.times)) == 20

    asyncio.run(scene())


def test_live_values_and_presence_reach_the_cloud(mosquitto: Broker, require: Callable[[str], Path], tmp_path: Path) -> None:
    broker = mosquitto()
    cloud = make_tls_broker(require("mosquitto"), tmp_path / "cloud", realm=Realm.CLOUD)
    cloud.service.start()
    folder = make_gateway(tmp_path / "gateway", DEVICE, CLINIC, clinic_port=broker.port, cloud_port=cloud.port).folder
    names = cloud.credentials(GATEWAY)
    text = (folder / "edge.toml").read_text()
    for ours, theirs in (("ca.crt", names.ca), (f"{GATEWAY}.crt", names.cert), (f"{GATEWAY}.key", names.key)):
        text = text.replace(f'"{ours}"', f'"{theirs}"')
    (folder / "edge.toml").write_text(text)

    async def scene() -> list[Live | Presence]:
        async with running(folder, machine_with(ManualClock())) as (agent, _outbox, _task):
            await eventually(lambda: agent._uplink.status().is_connected and agent._readers[0].status().ok, 15, "both ends")
            with publisher(broker.port) as cooler:
                cooler.sample(1, t=agent._machine.clock.wall_ms(), coolant_temp_1=-4.25, state_1=int(MachineState.INFUSION))
            await eventually(lambda: agent._uplink.counts.live_sent >= 1, 10, "live sent")
            return await asyncio.to_thread(heard)

    heard_messages: list[Live | Presence] = []

    def heard() -> list[Live | Presence]:
        while not any(isinstance(message, Live) for message in heard_messages):
            message = ingest.receive()
            assert message is not None
            decoded = state.decode(bytes(message.payload))
            assert isinstance(decoded, (Live, Presence))
            heard_messages.append(decoded)
        return heard_messages

    try:
        with connected(cloud.port, cloud.credentials(f"ingest-{partition_of(GATEWAY)}")) as ingest:
            ingest.subscribe(build(GATEWAY, Leaf.STATE))
            messages = asyncio.run(scene())
    finally:
        cloud.service.stop()
    presence, live = messages[0], messages[-1]
    assert isinstance(presence, Presence)
    assert isinstance(live, Live)
    assert presence.online
    assert live.device == COOLER
    assert live.values_milli["coolant_temp_1"] == -4250
    assert live.values_milli["state_1"] == MachineState.INFUSION * 1000


def test_a_source_that_never_works_ends_the_process_with_69(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "SOURCE_CAP_S", 0.01)
    gateway = make_gateway(
        tmp_path / "gateway",
        '[[source.replay]]\nname = "rig"\nfile = "rig.csv"\nserial = "cooler-0002"\nprofile = "icecap-cooler"\n'
        'time_column = "t"\ncolumns = { flow_1 = "flow" }\n',
    )
    (gateway.folder / "rig.csv").write_text("other\n1\n")

    async def scene() -> Exit:
        async with running(gateway.folder, machine_with(ManualClock())) as (agent, _outbox, task):
            code = await asyncio.wait_for(task, 20)
            assert agent._deaths["rig"] == agent_module.DEATHS_MAX + 1
            return code

    assert asyncio.run(scene()) is Exit.SOURCE


def test_a_store_whose_thread_is_gone_ends_the_agent(tmp_path: Path) -> None:
    folder = make_gateway(tmp_path / "gateway", DEVICE, CLINIC, clinic_port=1).folder

    async def scene() -> None:
        async with running(folder, machine_with(ManualClock())) as (_agent, outbox, task):
            await eventually(lambda: outbox.stats().counts.facts == 1, 10, "started")
            await asyncio.to_thread(outbox.close)
            with pytest.raises(ExceptionGroup) as caught:
                await asyncio.wait_for(task, 10)
            assert "the store's thread is gone" in str(caught.value.exceptions[0])

    asyncio.run(scene())


def test_a_disk_that_takes_no_small_file_does_not_keep_a_source_from_reading(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = mosquitto()
    folder = make_gateway(tmp_path / "gateway", clinic_port=broker.port).folder

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Subscriptions, "save", full)
    monkeypatch.setattr(Quarantine, "add", full)

    async def scene() -> None:
        async with running(folder, machine_with(ManualClock())) as (agent, _outbox, _task):
            reader = agent._readers[0]
            await eventually(lambda: reader.status().ok, 10, "the source")
            with publisher(broker.port) as cooler:
                cooler.send(b"poison")
                cooler.sample(1)
                await eventually(lambda: reader.counts["acknowledged"] == 2, 10, "both answered")
            assert reader.counts["quarantine_faults"] == 1
            assert reader.counts["subscriptions_not_kept"] == 2

    asyncio.run(scene())
