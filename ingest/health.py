"""Health: what the service knows of itself, as JSON and as metrics, on a Unix socket. Not a page, and it decides nothing.

    GET /healthz   200, or 503 when messages cannot be stored          GET /metrics   Prometheus text

Invariant: the answer is made from numbers in memory; a stuck database or broker cannot make health hang.
"""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest.consumer import Consumer
from ingest.projection import State, Status
from ingest.worker import Totals

__all__ = ["HealthServer", "Metrics", "Part", "Report", "ask", "decode_report"]

REQUEST_BYTES_MAX = 8192  # a request line and the headers of curl and of Prometheus need a tenth
REQUEST_S = 5.0  # a peer that says nothing must not hold a thread for ever


class Part(msgspec.Struct, frozen=True):
    """One part: ``why`` says what is wrong, or what is going on."""

    ok: bool
    why: str = ""
    numbers: dict[str, float] = {}


class Report(msgspec.Struct, frozen=True):
    """The whole. ``ok``: messages are taken and stored; a projection that waits makes its part not ok, but not the whole."""

    ok: bool
    version: str
    wall_ms: int
    parts: dict[str, Part]


def decode_report(data: bytes) -> Report:
    """Return the report in a ``/healthz`` body. Raises ``msgspec.DecodeError`` for anything else."""
    return msgspec.json.decode(data, type=Report)


class Metrics(Collector):
    """The service's numbers under their Prometheus names; read at each scrape."""

    def __init__(self, totals: Totals, consumer: Consumer, projections: Callable[[], list[Status]]) -> None:
        self._totals, self._consumer, self._projections = totals, consumer, projections
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        totals, counts = self._totals, self._consumer.counts
        yield _labelled("icecap_ingest_messages", "Messages by what became of them.", "outcome", dict(totals.messages))
        yield _labelled("icecap_ingest_refused", "Messages refused or parked, by reason.", "reason", dict(totals.refusals))
        yield _labelled("icecap_ingest_link", "What the connections did, by kind.", "kind", dict(counts))
        yield CounterMetricFamily("icecap_ingest_batches", "Transactions committed.", totals.batches)
        yield CounterMetricFamily("icecap_ingest_commit_seconds", "Time from receive to commit.", totals.commit_s)
        yield CounterMetricFamily("icecap_ingest_store_failures", "Transactions that the database failed.", totals.store_failures)
        yield CounterMetricFamily("icecap_ingest_poison", "Messages that raised an exception and were parked unread.", totals.poison)
        yield CounterMetricFamily("icecap_ingest_sessions_lost", "Sessions that the broker had forgotten.", totals.sessions_lost)
        yield CounterMetricFamily("icecap_ingest_live_shed", "Live values not taken because too many waited.", self._consumer.inbox.shed)
        yield GaugeMetricFamily("icecap_ingest_store_up", "1 while the database takes transactions.", float(not totals.store_down))
        yield GaugeMetricFamily("icecap_ingest_inbox_messages", "Messages waiting for the worker.", len(self._consumer.inbox))
        up = GaugeMetricFamily("icecap_ingest_partition_up", "1 while the session is connected.", labels=["partition"])
        unacked = GaugeMetricFamily("icecap_ingest_partition_unacked", "Messages the broker waits for.", labels=["partition"])
        for state in self._consumer.states():
            up.add_metric([state.partition], float(state.up))
            unacked.add_metric([state.partition], state.unacked)
        yield up
        yield unacked
        waiting = GaugeMetricFamily("icecap_ingest_projection_up", "1 while the projection works.", labels=["projection"])
        passed = CounterMetricFamily("icecap_ingest_projection_records", "Records passed since the start.", labels=["projection"])
        for status in self._projections():
            waiting.add_metric([status.name], float(status.state in {State.WORKING, State.UP_TO_DATE}))
            passed.add_metric([status.name], status.passed)
        yield waiting
        yield passed


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


class HealthServer:
    """Serves two addresses from a thread of its own."""

    def __init__(self, path: Path, *, report: Callable[[], Report], metrics: Callable[[], bytes]) -> None:
        self.path = path
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.unlink()  # left behind by a process that was killed
        self._server = _Server(path, report, metrics)
        path.chmod(0o660)  # its owner and group may ask
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with suppress(FileNotFoundError):
            self.path.unlink()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, report: Callable[[], Report], metrics: Callable[[], bytes]) -> None:
        self.report, self.metrics = report, metrics
        super().__init__(str(path), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    timeout = REQUEST_S
    server: _Server

    def handle(self) -> None:
        """Answer one request and hang up."""
        with suppress(OSError):  # a peer that went away, or says nothing
            line = self.rfile.readline(REQUEST_BYTES_MAX)
            status, kind, body = self._respond(line)
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.wfile.write(head.encode() + body)

    def _respond(self, line: bytes) -> tuple[str, str, bytes]:
        """Status line, content type and body for a request line."""
        words = line.split()
        if len(words) != 3 or words[0] != b"GET":
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        if words[1] == b"/healthz":
            report = self.server.report()
            return "200 OK" if report.ok else "503 Service Unavailable", "application/json", msgspec.json.encode(report)
        if words[1] == b"/metrics":
            return "200 OK", "text/plain; version=0.0.4; charset=utf-8", self.server.metrics()
        return "404 Not Found", "text/plain", b"/healthz or /metrics\n"


def ask(path: Path) -> Report:
    """The report of the service that listens at ``path``. Raises ``OSError`` when nobody answers, ``msgspec.DecodeError`` for nonsense."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(REQUEST_S)
        peer.connect(str(path))
        peer.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: peer.recv(65_536), b""))
    return decode_report(answer.partition(b"\r\n\r\n")[2])
