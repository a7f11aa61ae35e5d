"""The line protocol as a real InfluxDB reads it."""

from __future__ import annotations

import json
import math
import urllib.request

import numpy as np
import pytest

from native import lineproto
from tests.support.services import Influxd


@pytest.mark.service
def test_a_real_influxdb_reads_back_every_value_tag_and_name(influxd: Influxd) -> None:
    generator = np.random.default_rng(3)
    rows = 200
    ts_ms = np.arange(rows, dtype=np.int64) * 1000 + 1_760_000_000_000
    codes = generator.integers(-(10**9), 10**9, (rows, 2))
    doubles = np.concatenate([generator.normal(0, 1, rows // 2), 10.0 ** generator.integers(-200, 200, rows // 2)])[:, None]
    head = lineproto.escape_measurement("a, b") + b",site=" + lineproto.escape_tag("Köln = a, b")
    keys = [lineproto.escape_field_key("raw code"), lineproto.escape_field_key("x=y,z")]
    influxd.create_database("kernel")
    for body in (lineproto.encode_block(head, keys, [3, 0], ts_ms, codes), lineproto.encode_floats(b"doubles", [b"v"], ts_ms, doubles)):
        urllib.request.urlopen(urllib.request.Request(f"{influxd.url}/write?db=kernel", body), timeout=20).close()

    lines = json.loads(influxd.query('select "raw code", "x=y,z", "site" from "a, b"', database="kernel"))["results"][0]["series"][0][
        "values"
    ]
    back = json.loads(influxd.query("select v from doubles", database="kernel"))["results"][0]["series"][0]["values"]

    assert [line[0] for line in lines] == ts_ms.tolist()
    assert [line[1] for line in lines] == [code / 1000 for code in codes[:, 0].tolist()]
    assert [line[2] for line in lines] == codes[:, 1].tolist()
    assert {line[3] for line in lines} == {"Köln = a, b"}
    assert all(math.isclose(value, written, rel_tol=0) for (_, value), written in zip(back, doubles[:, 0].tolist(), strict=True))
