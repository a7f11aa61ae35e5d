"""A block's bytes in line protocol: what is in them, and that they are the same at every rebuild."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.influx.lines import WARM_UP_MS, block_lines, prefix
from protocol.profile import parse
from protocol.reading import Quality
from protocol.series import CoolerTags, smooth_field
from tests.support.blocks import PROFILE, START_MS, make_rows

TAGS = CoolerTags("cooler-0001", "gw-test-1", "icecap-cooler", "clinic-a")
HEAD = prefix(TAGS)


def fields(line: bytes) -> dict[str, str]:
    return dict(pair.split("=") for pair in line.decode().split(" ")[1].split(","))


def test_tags_are_the_fixed_four_in_alphabetical_order() -> None:
    assert HEAD == b"cooler,device=cooler-0001,gateway=gw-test-1,model=icecap-cooler,site=clinic-a"


def test_a_row_is_a_line_with_raw_and_smoothed_fields_and_nanoseconds() -> None:
    rows = make_rows(count=3, missing=0)

    lines = block_lines(HEAD, PROFILE, rows, None).splitlines()

    assert [int(line.rsplit(b" ", 1)[1]) for line in lines] == [int(t) * 1_000_000 for t in rows.ts_ms]
    code = int(rows.codes[0, 0])
    assert float(fields(lines[0])["coolant_temp_1"]) == pytest.approx(code / 100, abs=1e-12)
    assert set(fields(lines[0])) == {one.name for one in PROFILE.channels} | {
        smooth_field(one.name) for one in PROFILE.channels if not one.discrete
    }


def test_every_field_is_a_float_so_that_no_profile_version_conflicts() -> None:
    lines = block_lines(HEAD, PROFILE, make_rows(count=2, missing=0), None).splitlines()

    assert not any(value.endswith("i") for line in lines for value in fields(line).values())


def test_a_cell_without_a_valid_code_has_neither_field() -> None:
    rows = make_rows(count=4, missing=0)
    rows.quality[2, 0] = Quality.SPIKE
    rows.codes[2, 0] = 0

    lines = block_lines(HEAD, PROFILE, rows, None).splitlines()

    assert "coolant_temp_1" not in fields(lines[2])
    assert "coolant_temp_1_smooth" not in fields(lines[2])
    assert "coolant_temp_1" in fields(lines[3])


def test_smoothing_goes_on_across_the_border_of_two_blocks() -> None:
    whole = make_rows(count=120, missing=0)
    first, second = make_rows(count=120, missing=0), make_rows(count=120, missing=0)
    for part, chosen in ((first, slice(0, 60)), (second, slice(60, 120))):
        object.__setattr__(part, "ts_ms", whole.ts_ms[chosen])
        object.__setattr__(part, "codes", whole.codes[chosen])
        object.__setattr__(part, "quality", whole.quality[chosen])

    together = block_lines(HEAD, PROFILE, whole, None).splitlines()[60:]
    apart = block_lines(HEAD, PROFILE, second, first).splitlines()
    cold = block_lines(HEAD, PROFILE, second, None).splitlines()

    assert apart == together
    assert cold != together


def test_only_the_last_two_minutes_before_a_block_change_it() -> None:
    before, rows = make_rows(count=600, missing=0), make_rows(t0_ms=START_MS + 600_000, missing=0)
    older = make_rows(count=600, missing=0)
    untouched = WARM_UP_MS // 1000 + 1
    older.codes[:-untouched, 0] += 7

    assert block_lines(HEAD, PROFILE, rows, older) == block_lines(HEAD, PROFILE, rows, before)


@given(st.integers(0, 2**32), st.integers(1, 90), st.floats(0, 1))
def test_the_same_blocks_give_the_same_bytes_and_a_line_for_each_row_with_a_cell(seed: int, count: int, missing: float) -> None:
    rows, before = make_rows(t0_ms=START_MS + 60_000, count=count, seed=seed, missing=missing), make_rows(seed=seed + 1)

    once = block_lines(HEAD, PROFILE, rows, before)

    assert once == block_lines(
        HEAD, PROFILE, make_rows(t0_ms=START_MS + 60_000, count=count, seed=seed, missing=missing), make_rows(seed=seed + 1)
    )
    assert once.count(b"\n") == int(np.any(rows.quality == Quality.OK, axis=1).sum())


def test_a_scale_that_is_no_power_of_ten_is_written_in_its_unit() -> None:
    profile = parse(
        'id="odd-cooler"\nversion=1\nmodel="Odd"\nmaker="Icecap"\ncircuits=1\n'
        '[[channel]]\nname="ambient_temp"\nunit="degC"\nrole="ambient_temp"\nmultiplier=25\ndecimals=2\nlo=-20.0\nhi=70.0\nsigma=0.5\n'
    )
    rows = make_rows(profile, count=1, missing=0)
    rows.codes[0, 0] = 81

    assert float(fields(block_lines(HEAD, profile, rows, None).splitlines()[0])["ambient_temp"]) == 20.25


@pytest.mark.parametrize("bad", ["", "a\nb", "tail\\"])
def test_a_tag_that_influxdb_cannot_hold_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        prefix(CoolerTags("cooler-0001", "gw-test-1", "icecap-cooler", bad))
