"""The agent as a real process for end-to-end tests: its folder, its configuration, its health socket, its signals."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from protocol.clock import MachineClock
from provisioning.identity import Authority, Realm
from tests.support.services import free_port, wait_until

ROOT = Path(__file__).parents[2]
GATEWAY = "gw-test-1"
CLOCK = MachineClock(time.time_ns, time.monotonic_ns, lambda: True)

CONFIG = """
gateway = "gw-test-1"
site = "clinic-a"
data_dir = "data"
[cloud]
host = "127.0.0.1"
port = {cloud_port}
ca = "ca.crt"
cert = "gw-test-1.crt"
key = "gw-test-1.key"
[outbox]
commit_interval_ms = 20
[health]
socket = "edge.sock"
"""

DEVICE = """
[[device]]
serial = "cooler-0001"
"""

CLINIC = """
[[source.mqtt]]
name = "clinic"
host = "127.0.0.1"
port = {clinic_port}
plaintext = true
[[source.mqtt.topic]]
filter = "coolers/+/telemetry"
"""


@dataclass(slots=True)
class GatewayProcess:
    """``start`` waits for READY=1, as systemd would."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    notices: list[str] = field(default_factory=list)
    _socket: socket.socket | None = None

    @property
    def config(self) -> Path:
        return self.folder / "edge.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def launch(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start without waiting; standard error goes to ``agent.log``."""
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "icecap", "edge", "run", "--config", str(self.config), "--json-log"],
                cwd=ROOT,
                stderr=log,
                stdout=log,
                env={**os.environ, **environment},
            )
        return self.process

    def start(self, *, watchdog_s: float = 30.0) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(self.folder / "notify"))
            self._socket.setblocking(False)
        self.hear()
        self.notices.clear()  # what an earlier process said is not this one's
        process = self.launch(NOTIFY_SOCKET=str(self.folder / "notify"), WATCHDOG_USEC=str(int(watchdog_s * 1e6)))
        wait_until(lambda: process.poll() is not None or "READY=1" in self.hear(), 20, "READY=1")
        assert process.poll() is None, self.log()[-3000:]

    def hear(self) -> list[str]:
        """Everything that was said to the service manager so far."""
        assert self._socket is not None
        try:
            while True:
                self.notices.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return self.notices

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit code and how many seconds it took."""
        assert self.process is not None
        before = time.monotonic()
        self.process.terminate()
        code = self.process.wait(20)
        return code, time.monotonic() - before

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if self._socket is not None:
            self._socket.close()

    def log(self) -> str:
        path = self.folder / "agent.log"
        return path.read_text() if path.exists() else ""

    def events(self, name: str) -> list[dict[str, object]]:
        """Log lines with that event name."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def get(self, address: str) -> tuple[int, bytes]:
        """Status and body of a health request; (0, b"") while nobody answers."""
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(5)
                peer.connect(str(self.folder / "edge.sock"))
                peer.sendall(f"GET {address} HTTP/1.1\r\n\r\n".encode())
                answer = b"".join(iter(lambda: peer.recv(65_536), b""))
        except OSError:
            return 0, b""
        head, _separator, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def part(self, name: str) -> dict[str, object]:
        """One part of /healthz; empty while nobody answers."""
        _status, body = self.get("/healthz")
        return cast("dict[str, object]", json.loads(body)["parts"].get(name, {})) if body else {}

    def number(self, part: str, name: str) -> float:
        numbers = self.part(part).get("numbers", {})
        assert isinstance(numbers, dict)
        return float(numbers.get(name, 0))


def write_identity(folder: Path) -> None:
    """A gateway's certificate from an authority of its own, so that the configuration names real files."""
    authority = Authority.create(folder / "authority", realm=Realm.CLOUD, clock=CLOCK)
    (folder / "ca.crt").write_bytes(authority.root)
    authority.issue_client(GATEWAY).write(folder, GATEWAY)


def make_gateway(folder: Path, *parts: str, clinic_port: int = 0, cloud_port: int | None = None) -> GatewayProcess:
    """A gateway that is not started yet; its cloud is a closed port unless told otherwise."""
    folder.mkdir(exist_ok=True)
    if not (folder / "ca.crt").exists():
        write_identity(folder)
    text = "".join((CONFIG, *(parts or (DEVICE, CLINIC))))
    ports = {"{clinic_port}": clinic_port, "{cloud_port}": cloud_port or free_port()}
    for name, port in ports.items():
        text = text.replace(name, str(port))
    (folder / "edge.toml").write_text(text)
    return GatewayProcess(folder)
