"""``icecap block dump``: raw, hexadecimal or base64, in words or JSON, and what is broken is named."""

import base64
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.block_cli import app
from protocol import block, facts, frame, profile, tombstone
from protocol.clock import ClockQuality
from protocol.facts import CHAIN_START, ClockStepped, FactRecord
from protocol.frame import FrameHead, Identity, Kind
from protocol.reading import Quality, Stamp
from protocol.units import DeviceId, GatewayId

COOLER = profile.builtin("icecap-cooler")
STAMP = Stamp(7, 1000, 1_767_225_600_000, ClockQuality.SYNCED)


def head(kind: Kind, **more) -> FrameHead:
    return FrameHead(Identity(GatewayId("gw-a"), 5, 1), kind, STAMP, **more)


def block_frame() -> bytes:
    codes = np.tile(np.arange(len(COOLER.channels), dtype=np.int64) - 412, (3, 1))
    quality = np.zeros(codes.shape, dtype=np.uint8)
    quality[1, 0], codes[1, 0] = Quality.SENTINEL, 0
    ts_ms = STAMP.wall_ms + 1000 * np.arange(3, dtype=np.int64)
    rows = block.Rows(ts_ms, codes, quality, np.arange(1, 4, dtype=np.int64), 9, {len(COOLER.channels): 8500})
    named = head(Kind.BLOCK, device=DeviceId("cooler-0001"), profile=COOLER.id, profile_version=COOLER.version)
    return frame.encode(named, block.encode(rows))


def run(data: bytes, tmp_path, *options: str):
    file = tmp_path / "frame"
    file.write_bytes(data)
    return CliRunner().invoke(app, ["dump", str(file), *options])


@pytest.mark.parametrize("wrap", [bytes, lambda data: data.hex().encode(), base64.b64encode, lambda data: data.hex(" ").encode() + b"\n"])
def test_every_spelling_of_the_bytes_is_read(wrap, tmp_path):
    result = run(wrap(block_frame()), tmp_path, "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert (document["gateway"], document["device"], document["rows"]) == ("gw-a", "cooler-0001", 3)


def test_values_have_units_and_a_rejected_one_has_its_reason(tmp_path):
    document = json.loads(run(block_frame(), tmp_path, "--json").output)

    coolant = document["columns"][0]
    assert (coolant["channel"], coolant["unit"], coolant["first"], coolant["rejected"]) == (
        "coolant_temp_1",
        "degC",
        -4.12,
        {"sentinel": 1},
    )
    assert document["table"][1][2] == "sentinel"


def test_words_name_the_channels(tmp_path):
    output = run(block_frame(), tmp_path, "--rows", "1").output

    assert "coolant_temp_1" in output
    assert "2 more rows" in output


def test_a_fact_and_a_tombstone_are_told(tmp_path):
    fact = frame.encode(head(Kind.FACT), facts.encode(FactRecord(ClockStepped(-5000, 2), CHAIN_START)))
    stone = frame.encode(head(Kind.TOMBSTONE), tombstone.encode(tombstone.Tombstone(1, 9, tombstone.Cause.EVICTED, 300)))

    assert "step_ms = -5000" in run(fact, tmp_path).output
    assert json.loads(run(stone, tmp_path, "--json").output)["cause"] == "evicted"


def test_an_unknown_profile_shows_bare_codes_instead_of_guessing(tmp_path):
    rows = block.Rows(np.array([1]), np.array([[3]]), np.zeros((1, 1), dtype=np.uint8), None, 0, {})
    data = frame.encode(head(Kind.BLOCK, device=DeviceId("cooler-0001"), profile="other", profile_version=1), block.encode(rows))

    assert json.loads(run(data, tmp_path, "--json").output)["columns"][0]["channel"] == "#0"


@pytest.mark.parametrize(("data", "reason"), [(b"noise", "too_short"), (b"\x00" * 100, "bad_magic")])
def test_what_is_no_frame_is_named_and_fails(data, reason, tmp_path):
    result = run(data, tmp_path)

    assert result.exit_code == 1
    assert reason in result.output


def test_a_broken_body_in_a_whole_frame_is_named_and_fails(tmp_path):
    result = run(frame.encode(head(Kind.FACT), b"\xff"), tmp_path, "--json")

    assert result.exit_code == 1
    assert "bad_fact" in json.loads(result.output)["refused"]
