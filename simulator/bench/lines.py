"""Line-protocol encoders side by side: codes or doubles that are already in memory, to bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from native import deltapack, lineproto
from native.shared import Float64Array
from simulator.bench.optional import optional
from simulator.bench.report import Result, best_seconds
from simulator.bench.scenes import Run

__all__ = ["measure"]

_MEASUREMENT, _TAGS = "cooler", {"device": "IC-00421", "site": "uk-leeds-03"}
_PREFIX = b"cooler,device=IC-00421,site=uk-leeds-03"
Encoder = tuple[str, Callable[[], bytes | str]]


def measure(run: Run, rows: int, *, clock: Callable[[], float]) -> list[Result]:
    """M field values per second of every encoder; each output is read back first."""
    part = Run(run.ts_ms[:rows], np.ascontiguousarray(run.codes[:rows]), run.decimals, run.names, run.bounds)
    values = part.codes / 10.0 ** np.array(part.decimals)
    results = []
    for name, work in [*_ours(part, values), *_peers(part, values)]:
        text = work()
        _check(name, text.decode() if isinstance(text, bytes) else text, part, values)
        rate = part.codes.size / best_seconds(work, clock=clock) / 1e6
        results.append(Result(name, f"{rows} rows of {len(part.names)} fields", "line protocol", rate, "M values/s"))
    return results


def _ours(run: Run, values: Float64Array) -> Iterator[Encoder]:
    keys = [name.encode() for name in run.names]
    block = deltapack.encode(run.ts_ms, run.codes)

    def from_block() -> bytes:
        decoded = deltapack.decode(block)
        return lineproto.encode_block(_PREFIX, keys, run.decimals, decoded.ts_ms, decoded.columns, decoded.valid)

    yield "icecap, codec block", from_block
    yield "icecap, codes", lambda: lineproto.encode_block(_PREFIX, keys, run.decimals, run.ts_ms, run.codes)
    yield "icecap, float64", lambda: lineproto.encode_floats(_PREFIX, keys, run.ts_ms, values)


def _peers(run: Run, values: Float64Array) -> Iterator[Encoder]:
    stamps, rows, names = (run.ts_ms * 10**6).tolist(), values.tolist(), run.names
    pattern = _PREFIX.decode() + " " + ",".join(f"{name}=%r" for name in names) + " %d"
    yield "Python % format", lambda: "\n".join([pattern % (*row, stamp) for stamp, row in zip(stamps, rows, strict=True)])
    if polars := optional("polars"):
        template = _PREFIX.decode() + " " + ",".join(f"{name}={{}}" for name in names) + " {}"

        def by_polars() -> str:
            frame = polars.DataFrame({name: values[:, k] for k, name in enumerate(names)} | {"t": run.ts_ms * 10**6})
            return str(frame.select(polars.format(template, *names, "t")).to_series().str.join("\n")[0])

        yield "polars format", by_polars
    if ingress := optional("questdb.ingress"):

        def by_questdb() -> bytes:
            buffer = ingress.Buffer(protocol_version=1)
            for stamp, row in zip(stamps, rows, strict=True):
                buffer.row(_MEASUREMENT, symbols=_TAGS, columns=dict(zip(names, row, strict=True)), at=ingress.TimestampNanos(stamp))
            return bytes(buffer)

        yield "questdb Buffer.row", by_questdb
    if influx := optional("influxdb_client"):

        def by_influx() -> str:
            lines = []
            for stamp, row in zip(stamps, rows, strict=True):
                point = influx.Point(_MEASUREMENT).tag("device", _TAGS["device"]).tag("site", _TAGS["site"])
                for name, value in zip(names, row, strict=True):
                    point = point.field(name, value)
                lines.append(point.time(stamp, influx.WritePrecision.NS).to_line_protocol())
            return "\n".join(lines)

        yield "influxdb-client Point", by_influx


def _check(name: str, text: str, run: Run, values: Float64Array) -> None:
    """Read every line back with a parser that shares nothing with the encoder."""
    lines = text.strip().split("\n")
    for line, stamp, row in zip(lines, run.ts_ms.tolist(), values.tolist(), strict=True):
        _, fields, nanoseconds = line.rsplit(" ", 2)
        pairs = {key: float(value) for key, _, value in (field.partition("=") for field in fields.split(","))}
        if int(nanoseconds) != stamp * 10**6 or pairs != dict(zip(run.names, row, strict=True)):
            raise AssertionError(f"{name} wrote another value: {line}")
