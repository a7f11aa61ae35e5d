"""The verbs and the continuous-integration script, as far as they can be judged without running for minutes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from scripts import docs

ROOT = Path(__file__).parents[2]
SHELL_SCRIPTS = [ROOT / ".ci/run", *sorted((ROOT / "scripts").glob("*.sh"))]


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _python_sh(path: Path) -> subprocess.CompletedProcess[str]:
    """``scripts/python.sh`` on a machine that has only the programs in ``path``."""
    command = ["/bin/sh", str(ROOT / "scripts/python.sh"), "setup.py", "demo"]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=False)


def _make(*words: str) -> subprocess.CompletedProcess[str]:
    """``make`` as a person types it, also when these tests are run by ``make test ARGS=…``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name not in {"MFLAGS", "ARGS"}}
    return subprocess.run(["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_script_parses_and_stops_at_the_first_error(script: Path) -> None:
    text = script.read_text()
    shell = "bash" if "bash" in text.splitlines()[0] else "sh"

    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0
    assert re.search(r"^set -e[uo]", text, re.MULTILINE)


def test_ci_requires_services_and_kernels_and_runs_check_and_test() -> None:
    script = ROOT / ".ci/run"

    assert os.access(script, os.X_OK)
    for words in ("set -euo pipefail", "ICECAP_REQUIRE_SERVICES=1", "ICECAP_REQUIRE_NATIVE=1", "make check", "make test"):
        assert words in script.read_text()


@pytest.mark.parametrize("verb", docs.verbs())
def test_verb_is_understood_by_make(verb: str) -> None:
    run = _make("-n", verb)

    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_make_alone_lists_every_verb() -> None:
    run = _make()

    assert [line.split()[1] for line in run.stdout.splitlines()] == list(docs.verbs())


def test_demonstration_and_tests_set_up_first() -> None:
    for verb in ("demo", "test"):
        run = _make("-n", verb)

        assert run.stdout.startswith("sh scripts/python.sh scripts/setup.py")


def test_first_new_enough_python_runs_the_script(tmp_path: Path) -> None:
    _executable(tmp_path / "python3", "exit 1")
    _executable(tmp_path / "python3.12", 'echo "chosen $*"')

    run = _python_sh(tmp_path)

    assert run.stdout.splitlines()[-1] == "chosen setup.py demo"


def test_machine_without_python_gets_the_command_to_type(tmp_path: Path) -> None:
    _executable(tmp_path / "python3", "exit 1")

    run = _python_sh(tmp_path)

    assert run.returncode == 1
    assert "Icecap needs Python 3.11 or newer. Install one with:" in run.stderr


def test_debian_without_python_is_asked_for_one(tmp_path: Path) -> None:
    for name in ("apt-get", "sudo", "id"):
        _executable(tmp_path / name, f'echo "{name} $*" >> {tmp_path}/calls; [ {name} = id ] && echo 1000; exit 0')

    run = _python_sh(tmp_path)

    assert "sudo -n sh -c apt-get update && apt-get install -y --no-install-recommends python3" in (tmp_path / "calls").read_text()
    assert run.returncode == 1
