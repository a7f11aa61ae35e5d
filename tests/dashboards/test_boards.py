"""The boards as data: deterministic, portable, each panel a question with a unit, and the files in the repository are theirs."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from dashboards.boards.common import machine_uid
from dashboards.build import GENERATED, boards, drift, render, write
from dashboards.cli import app
from dashboards.grafana import Dashboard, Panel
from dashboards.panels import COLUMNS, GRAFANA_UNITS, PORTABLE, limits
from protocol.profile import UNITS, Profile, builtin, parse
from protocol.series import COOLER, COOLER_TAGS, GATEWAY, GATEWAY_FIELDS, smooth_field

PROFILE = builtin("icecap-cooler")
BOARDS = boards()
PANELS = [pytest.param(panel, id=f"{board.uid}-{panel.id}") for board in BOARDS for panel in board.panels]
FUNCTION = re.compile(r"([a-z_]+)\(")
NAME = re.compile(r'"([^"]+)"')


def test_the_same_code_gives_the_same_bytes_and_they_read_back() -> None:
    for board, again in zip(BOARDS, boards(), strict=True):
        assert render(board) == render(again)
        assert msgspec.json.decode(render(board), type=Dashboard) == board


def test_uids_are_fixed_and_no_board_carries_a_servers_number() -> None:
    assert [board.uid for board in BOARDS] == ["icecap-fleet", "icecap-machine-icecap-cooler", "icecap-pipeline"]
    for board in BOARDS:
        assert not json.loads(render(board)).keys() & {"id", "version", "iteration"}


def test_the_data_source_is_a_choice_everywhere() -> None:
    for board in BOARDS:
        assert board.templating.list[0].type == "datasource"
        text = json.loads(render(board))
        uids = {source["uid"] for source in _all(text, "datasource")}
        assert uids == {"${source}"}


def _all(node: object, key: str) -> list:
    if isinstance(node, dict):
        return [value for name, value in node.items() if name == key] + [one for value in node.values() for one in _all(value, key)]
    return [one for value in node for one in _all(value, key)] if isinstance(node, list) else []


def test_no_choice_is_free_text() -> None:
    for board in BOARDS:
        choices = json.loads(render(board))["templating"]["list"]
        assert {one["type"] for one in choices} <= {"datasource", "query"}
        assert all(one["allowCustomValue"] is False for one in choices if one["type"] == "query")


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_one_question_with_a_unit(panel: Panel) -> None:
    assert panel.title.endswith("?")
    assert panel.description.endswith(".")
    assert panel.field_config.defaults.unit in {*GRAFANA_UNITS.values(), "ms"}


@pytest.mark.parametrize("panel", PANELS)
def test_a_query_uses_only_what_all_influxdb_versions_answer(panel: Panel) -> None:
    for target in panel.targets:
        bare = re.sub(r"/\^.*?\$/", "", NAME.sub("", target.query))
        assert set(FUNCTION.findall(bare.replace("WITH KEY", ""))) <= PORTABLE, target.query
        assert "${" not in bare
        assert "$timeFilter" in target.query


@pytest.mark.parametrize("panel", PANELS)
def test_a_query_asks_only_for_names_that_are_written(panel: Panel) -> None:
    written = {COOLER, GATEWAY, *COOLER_TAGS, *GATEWAY_FIELDS}
    written |= {name for one in PROFILE.channels for name in (one.name, smooth_field(one.name))}
    for target in panel.targets:
        given = set(re.findall(r'AS "([^"]+)"', target.query))
        assert set(NAME.findall(target.query)) <= written | given, target.query


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_do_not_overlap_and_are_numbered(board: Dashboard) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in board.panels:
        place = panel.grid_pos
        mine = {(x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)}
        assert place.x + place.w <= COLUMNS
        assert not mine & cells
        cells |= mine
    assert [panel.id for panel in board.panels] == list(range(1, len(board.panels) + 1))


def test_charts_leave_gaps_open() -> None:
    for board in BOARDS:
        for panel in board.panels:
            if panel.type == "timeseries":
                assert panel.field_config.defaults.custom.span_nulls is False
                assert not any("fill(0)" in target.query or "fill(linear)" in target.query for target in panel.targets)


def test_limits_are_the_profiles() -> None:
    coolant = PROFILE.channels[PROFILE.index("coolant_temp_1")]
    found = limits(coolant)
    assert found is not None
    assert [(step.color, step.value) for step in found.steps] == [("red", None), ("green", coolant.alarm_lo), ("red", coolant.alarm_hi)]
    assert limits(PROFILE.channels[PROFILE.index("set_point_1")]) is None


def test_every_unit_of_a_profile_has_grafanas_word() -> None:
    assert set(GRAFANA_UNITS) == set(UNITS)


def test_a_site_s_own_model_gets_its_own_board() -> None:
    own = _other_profile()
    made = boards((own,))
    assert machine_uid(own) in [board.uid for board in made]
    machine = next(board for board in made if board.uid == machine_uid(own))
    assert all("pump_current" not in target.query for panel in machine.panels for target in panel.targets)


def _other_profile() -> Profile:
    channels = "".join(
        f'[[channel]]\nname="{name}"\nunit="{unit}"\nrole="{role}"\ncircuit={circuit}\ndecimals=2\nlo=-30.0\nhi=300.0\nsigma=0.1\ndiscrete={discrete}\n'
        for name, unit, role, circuit, discrete in [
            ("bath_temp", "degC", "coolant_temp", 1, "false"),
            ("left_cap", "degC", "cap_temp", 1, "false"),
            ("doing", "1", "state", 1, "true"),
        ]
    )
    return parse(f'id="other-cooler"\nversion=1\nmodel="Other"\nmaker="Icecap"\ncircuits=1\n{channels}')


def test_the_files_in_the_repository_are_what_the_code_gives() -> None:
    assert drift(GENERATED, BOARDS) == []


def test_check_fails_on_a_changed_a_missing_and_a_left_over_file(tmp_path: Path) -> None:
    paths = write(tmp_path, BOARDS)
    assert CliRunner().invoke(app, ["check", "--folder", str(tmp_path)]).exit_code == 0
    paths[0].write_bytes(paths[0].read_bytes().replace(b"celsius", b"fahrenheit", 1))
    paths[1].unlink()
    (tmp_path / "icecap-old.json").write_text("{}")

    result = CliRunner().invoke(app, ["build", "--check", "--folder", str(tmp_path)])

    assert result.exit_code == 1
    for text in ("differs", "missing", "no board of ours"):
        assert text in result.output
    assert CliRunner().invoke(app, ["build", "--folder", str(tmp_path)]).exit_code == 0
    assert drift(tmp_path, BOARDS) == []
