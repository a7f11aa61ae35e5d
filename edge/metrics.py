"""Metrics: the agent's counters as Prometheus families. Not kept anywhere: each scrape reads the numbers where they are counted.

Invariant: every bound in the agent that can shed something has a counter here, and label values come from our code or a bounded list.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.outbox.model import OutboxStats
from edge.sources.status import SourceStatus
from edge.uplink import UplinkStatus
from protocol.reading import Quality

__all__ = ["Snapshot", "render"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is measured, at one moment; seconds are real."""

    sources: tuple[SourceStatus, ...]
    source_deaths: Mapping[str, int]
    outbox: OutboxStats
    uplink: UplinkStatus
    intake: Mapping[str, int]
    rejected: Mapping[Quality, int]
    commit_s: float
    waits_s: float
    lag_s: float
    uptime_s: float
    clock_steps: int


def render(snapshot: Snapshot) -> bytes:
    """Return the exposition text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Return all families."""
        yield from _source_families(self._snapshot)
        yield from _store_families(self._snapshot)
        yield from _uplink_families(self._snapshot)
        yield from _process_families(self._snapshot)


def _source_families(snapshot: Snapshot) -> Iterator[Metric]:
    up = GaugeMetricFamily("icecap_edge_source_up", "1 while the source works.", labels=["source", "kind"])
    events = CounterMetricFamily("icecap_edge_source_events", "What a source took, refused and shed.", labels=["source", "event"])
    unknown = CounterMetricFamily(
        "icecap_edge_unknown_serial_messages", "Messages of coolers nobody provisioned.", labels=["source", "serial"]
    )
    for source in snapshot.sources:
        up.add_metric([source.name, source.kind], float(source.ok))
        for event, times in sorted(source.counts.items()):
            events.add_metric([source.name, event], times)
        for serial, times in sorted(source.unknown_serials.items()):
            unknown.add_metric([source.name, serial], times)
    yield from (up, events, unknown)
    yield _counter("icecap_edge_source_deaths", "How often a source ended by a fault and was restarted.", "source", snapshot.source_deaths)


def _store_families(snapshot: Snapshot) -> Iterator[Metric]:
    outbox = snapshot.outbox
    rejected = {quality.name.lower(): times for quality, times in snapshot.rejected.items()}
    yield _counter("icecap_edge_intake_events", "Rows stored, duplicates dropped, waits for the disk.", "event", snapshot.intake)
    yield _counter("icecap_edge_rejected_samples", "Samples that the gate did not accept, by reason.", "quality", rejected)
    yield _counter("icecap_edge_outbox_events", "What the outbox did.", "event", asdict(outbox.counts))
    yield _gauge(
        "icecap_edge_outbox_records",
        "Numbers that wait for a receipt.",
        "lane",
        {lane.name.lower(): one.records for lane, one in outbox.lanes.items()},
    )
    yield GaugeMetricFamily("icecap_edge_outbox_staged_rows", "Rows on disk and not yet in a block.", value=outbox.staged)
    yield GaugeMetricFamily("icecap_edge_outbox_used_bytes", "Bytes of the store in use.", value=outbox.used_bytes)
    yield GaugeMetricFamily("icecap_edge_outbox_bytes_max", "Bound of the store.", value=outbox.bytes_max)
    yield GaugeMetricFamily("icecap_edge_outbox_ready", "0 while the disk fails.", value=float(outbox.ready))
    yield GaugeMetricFamily("icecap_edge_commit_seconds", "How long the last batch took to the disk.", value=snapshot.commit_s)
    yield GaugeMetricFamily("icecap_edge_append_waits_seconds", "How long the oldest batch has been waiting.", value=snapshot.waits_s)


def _uplink_families(snapshot: Snapshot) -> Iterator[Metric]:
    uplink = snapshot.uplink
    yield GaugeMetricFamily("icecap_edge_uplink_connected", "1 while the cloud's broker is connected.", value=float(uplink.is_connected))
    yield GaugeMetricFamily("icecap_edge_uplink_delivering", "0 when records wait and no receipt comes.", value=float(uplink.is_delivering))
    yield GaugeMetricFamily("icecap_edge_uplink_in_flight", "Messages sent and not acknowledged.", value=uplink.in_flight)
    yield GaugeMetricFamily("icecap_edge_uplink_unreceipted", "Records acknowledged and not receipted.", value=uplink.unreceipted)
    yield _counter("icecap_edge_uplink_events", "What the uplink did.", "event", asdict(uplink.counts))


def _process_families(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("icecap_edge_loop_lag_seconds", "How late the event loop last was.", value=snapshot.lag_s)
    yield GaugeMetricFamily("icecap_edge_uptime_seconds", "Since the process started.", value=snapshot.uptime_s)
    yield CounterMetricFamily("icecap_edge_clock_steps", "Jumps of the wall clock.", value=snapshot.clock_steps)


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, times in sorted(values.items()):
        family.add_metric([value], times)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in sorted(values.items()):
        family.add_metric([value], number)
    return family
