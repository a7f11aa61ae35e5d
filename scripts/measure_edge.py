"""Measure the gateway agent as a process: memory, processor time, messages a second. Prints a table; nothing is kept.

    .venv/bin/python scripts/measure_edge.py [SECONDS] [MESSAGES]

A real Mosquitto, a real agent and its outbox on this machine's disk; the cloud is away. Processor time is the agent's own, so the figures
hold on a busy machine; the flood's wall time does not.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from protocol.profile import builtin
from provisioning.programs import find_program
from tests.edge.gateway import CLINIC, GatewayProcess, make_gateway
from tests.edge.rig import Publisher
from tests.support.services import make_mosquitto, wait_until

BROKER = "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
COOLERS = 8
CHANNELS = [channel for channel in builtin("icecap-cooler").channels if channel.role != "lifetime"]


def rss_mb(pid: int) -> float:
    """Resident memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def cpu_s(pid: int) -> float:
    """Processor time so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def payload(number: int) -> bytes:
    """A sample of every channel, moving a little."""
    values = {one.name: round((one.lo + one.hi) / 2 + number % 7 / 10**one.decimals, one.decimals) for one in CHANNELS}
    return json.dumps({"boot": 1, "n": number, "t": time.time_ns() // 1_000_000, **values}).encode()


def send(cooler: Publisher, number: int, count: int) -> None:
    """One sample of each of ``count`` coolers."""
    for index in range(count):
        cooler.send(payload(number), f"coolers/cooler-{index:04d}/telemetry")


def steady(agent: GatewayProcess, cooler: Publisher, seconds: int) -> tuple[float, float]:
    """Memory and processor share with eight coolers at 1 Hz."""
    assert agent.process is not None
    before, start = cpu_s(agent.process.pid), time.monotonic()
    for number in range(1, seconds + 1):
        send(cooler, number, COOLERS)
        time.sleep(max(0.0, start + number - time.monotonic()))
    return rss_mb(agent.process.pid), (cpu_s(agent.process.pid) - before) / (time.monotonic() - start) * 100


def flood(agent: GatewayProcess, cooler: Publisher, messages: int, *, after: int) -> tuple[float, float, float]:
    """Messages per second of the agent's processor time and of wall time, and memory at the end."""
    assert agent.process is not None
    stored = agent.number("source clinic", "acknowledged")
    before, start = cpu_s(agent.process.pid), time.monotonic()
    for number in range(messages // COOLERS):
        send(cooler, after + number, COOLERS)
    sent = messages // COOLERS * COOLERS
    wait_until(lambda: agent.number("source clinic", "acknowledged") >= stored + sent, 600, "the flood")
    used, wall = cpu_s(agent.process.pid) - before, time.monotonic() - start
    return sent / used, sent / wall, rss_mb(agent.process.pid)


def main(seconds: int, messages: int) -> None:
    """Start everything, measure, print."""
    executable = find_program("mosquitto")
    assert executable is not None
    devices = "".join(f'[[device]]\nserial = "cooler-{index:04d}"\n' for index in range(COOLERS))
    with tempfile.TemporaryDirectory() as folder:
        broker = make_mosquitto(executable, Path(folder) / "broker", config=BROKER)
        broker.start()
        agent = make_gateway(Path(folder) / "gateway", devices, CLINIC, clinic_port=broker.port)
        agent.config.write_text(agent.config.read_text().replace("commit_interval_ms = 20", "commit_interval_ms = 200"))
        agent.start()
        assert agent.process is not None
        cooler = Publisher(broker.port)
        try:
            wait_until(lambda: agent.part("source clinic").get("ok"), 20, "the source")
            time.sleep(3)  # what start-up needed is given back
            print(f"idle                      {rss_mb(agent.process.pid):7.1f} MB resident")
            memory, share = steady(agent, cooler, seconds)
            print(f"{COOLERS} coolers x {len(CHANNELS)} channels x 1 Hz {memory:7.1f} MB resident, {share:.1f} % of one core, {seconds} s")
            per_cpu, per_wall, memory = flood(agent, cooler, messages, after=seconds + 1)
            print(f"flood of {messages} messages {per_cpu:9.0f} a second of processor time, {per_wall:.0f} of wall time")
            print(f"after it                  {memory:7.1f} MB resident")
        finally:
            cooler.close()
            agent.stop()
            agent.close()
            broker.stop()


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:3]]
    main(words[0] if words else 30, words[1] if len(words) > 1 else 20_000)
