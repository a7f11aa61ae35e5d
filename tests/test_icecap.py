"""The front door: it lists every verb without loading what is behind one, and a gateway loads only the gateway."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import icecap

HEAVY = ("fastapi", "sqlalchemy", "starlette", "jinja2", "simulator", "ingest", "dashboards", "matplotlib", "influxdb_client")


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport sys; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_the_list_of_verbs_loads_nothing_behind_them():
    loaded = modules_after(
        "from typer.testing import CliRunner\nimport icecap\nassert CliRunner().invoke(icecap.app, ['--help']).exit_code == 0"
    )

    assert not loaded & {*HEAVY, "edge", "provisioning"}


def test_the_gateway_process_loads_neither_the_cloud_nor_the_simulator():
    loaded = modules_after("import edge.agent, edge.cli")

    assert not loaded & set(HEAVY)


def test_the_check_above_can_fail():
    assert "sqlalchemy" in modules_after("import ingest.schema")


@pytest.mark.parametrize("verb", icecap.MOUNTS)
def test_every_verb_has_help(verb):
    result = CliRunner().invoke(icecap.app, [verb, "--help"])

    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_an_unknown_verb_is_refused():
    result = CliRunner().invoke(icecap.app, ["stop-cooling"])

    assert result.exit_code == 2
    assert "No such command" in result.output


def test_a_missing_extra_names_what_to_install(monkeypatch):
    monkeypatch.setitem(icecap.MOUNTS, "edge", ("no_such_library_here", "app", "help", "edge"))

    result = CliRunner().invoke(icecap.app, ["edge"])

    assert result.exit_code == 2
    assert "icecap[edge]" in result.output
