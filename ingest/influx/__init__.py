"""The InfluxDB projection: stored blocks become points of a time-series database that may be lost and rebuilt at any time."""

from ingest.influx.gateways import GatewayProjection
from ingest.influx.projector import InfluxProjection, Totals
from ingest.influx.sink import Fault, InfluxSettings, Sink, SinkError, open_sink

__all__ = ["Fault", "GatewayProjection", "InfluxProjection", "InfluxSettings", "Sink", "SinkError", "Totals", "open_sink"]
