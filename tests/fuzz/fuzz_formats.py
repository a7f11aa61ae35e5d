"""Fuzz what coolers may send: whatever the bytes, readings of the profile's width or one refusal; the first byte chooses the format."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edge"]):
    from edge.settings import MqttTopic
    from edge.sources.formats import format_of
    from edge.sources.formats.raw_profile import pack
    from edge.sources.origin import Origin, Times

from protocol.clock import ClockQuality
from protocol.profile import builtin
from protocol.reading import CODE_MAX, CODE_MIN, Stamp
from protocol.refusal import Refusal
from protocol.units import DeviceId

PROFILE = builtin("icecap-cooler")
NOW = 1_767_225_600_000
STAMP = Stamp(1, 5, NOW, ClockQuality.SYNCED)
FORMATS = [
    format_of(MqttTopic(filter="a/+", fields={"flow_1": "/x/0/y"})),
    format_of(MqttTopic(filter="a/+", format="senml")),
    format_of(MqttTopic(filter="a/+", format="raw")),
]
SEEDS = (
    b'\x00{"boot": 3, "n": 1042, "t": 1767225600000, "coolant_temp_1": -4.12, "x": [{"y": 3.5}], "note": "a:b"}',
    b'\x01[{"bn":"u:","bt":1767225600,"bu":"Cel","bv":1,"n":"coolant_temp_1","v":-4.12},{"n":"flow_1","u":"l/s","v":0.1,"t":1},{"n":"n","v":3}]',
    b"\x02" + pack(PROFILE, boot=1, counter=2, ts_ms=NOW, codes=tuple(range(len(PROFILE.channels)))),
)


def one_input(data: bytes) -> None:
    """Decode; what comes out is a refusal or whole readings that every later stage can take."""
    if not data:
        return
    origin = Origin(DeviceId("cooler-0001"), PROFILE, STAMP, Times(ahead_ms_max=600_000, behind_ms_max=86_400_000))
    found = FORMATS[data[0] % len(FORMATS)].decode(data[1:], origin)
    if isinstance(found, Refusal):
        return
    if not found:
        raise AssertionError("neither a reading nor a refusal")
    for reading in found:
        codes = [code for code in reading.codes if code is not None]
        if len(reading.codes) != len(PROFILE.channels) or not codes or not all(CODE_MIN <= code <= CODE_MAX for code in codes):
            raise AssertionError(f"codes {reading.codes}")
        if not (
            0 <= reading.ts_ms < 2**63 and 0 <= reading.source_boot < 2**63 and (reading.counter is None or 0 <= reading.counter < 2**63)
        ):
            raise AssertionError("time, boot or counter")


def main() -> None:
    """Write the seeds into the corpus folder and fuzz."""
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    for index, seed in enumerate(SEEDS):
        if corpus:
            (corpus / f"seed{index}").write_bytes(seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
