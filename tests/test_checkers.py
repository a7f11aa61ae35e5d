"""Every checker of ``make check`` is seen to fail on a planted violation, under the project's own configuration."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

CLOCK = '"""Doc."""\n\nimport time\n\nSTARTED = time.time()\n'
CHANCE = '"""Doc."""\n\nimport random\n\nCHOSEN = random.random()\n'
NOW = '"""Doc."""\n\nfrom datetime import UTC, datetime\n\nSTARTED = datetime.now(UTC)\n'
FRONT_DOOR = '"""Doc."""\n\nimport icecap\n\nAPP = icecap.app\n'
UNTYPED = '"""Doc."""\n\n\ndef age(born):\n    return born\n'
WRONG_TYPE = '"""Doc."""\n\n\ndef age(born: int) -> str:\n    return born\n'


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}:{os.environ['PATH']}"  # cython-lint starts pycodestyle by name
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)


def _planted(folder: Path, name: str, text: str) -> str:
    """Write a module beside a copy of the configuration."""
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(text)
    return name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLOCK, "`time.time` is banned: pass a Clock"),
        (NOW, "`datetime.datetime.now` is banned: pass a Clock"),
        (CHANCE, "`random.random` is banned: pass a random.Random"),
        (FRONT_DOOR, "`icecap` is banned: icecap.py is the front door"),
    ],
    ids=["clock", "now", "chance", "front door"],
)
def test_ruff_refuses_machine_state_in_logic(text: str, message: str, tmp_path: Path) -> None:
    name = _planted(tmp_path, "edge/planted.py", text)

    found = _run([str(BIN / "ruff"), "check", "--no-cache", "--output-format=concise", name], tmp_path)

    assert found.returncode == 1
    assert message in found.stdout


def test_ruff_format_refuses_another_layout(tmp_path: Path) -> None:
    name = _planted(tmp_path, "edge/planted.py", '"""Doc."""\nnumber=  1\n')

    found = _run([str(BIN / "ruff"), "format", "--no-cache", "--check", name], tmp_path)

    assert found.returncode == 1
    assert "File would be reformatted" in found.stdout


@pytest.mark.parametrize(
    ("text", "message"), [(UNTYPED, "[no-untyped-def]"), (WRONG_TYPE, "[return-value]")], ids=["untyped", "wrong type"]
)
def test_mypy_is_strict(text: str, message: str, tmp_path: Path) -> None:
    name = _planted(tmp_path, "edge/planted.py", text)

    found = _run([sys.executable, "-m", "mypy", "--no-incremental", name], tmp_path)

    assert found.returncode == 1
    assert message in found.stdout


def test_cython_lint_refuses_an_unused_import(tmp_path: Path) -> None:
    name = _planted(tmp_path, "native/planted.pyx", "from libc.math cimport sqrt\n")

    found = _run([str(BIN / "cython-lint"), name], tmp_path)

    assert found.returncode == 1
    assert "'sqrt' imported but unused" in found.stdout


def test_stubtest_refuses_a_stub_that_lies(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("def age(born): return born\n")
    (tmp_path / "planted.pyi").write_text("def age(born: int, died: int) -> int: ...\n")

    found = _run([sys.executable, "-m", "mypy.stubtest", "planted"], tmp_path)

    assert found.returncode == 1
    assert "planted.age is inconsistent" in found.stdout


CONTRACTS = {
    "upward": ({"protocol/planted.py": "import edge\n"}, "imports point one way"),
    "kernel imports ours": ({"native/planted.py": "import protocol.units\n"}, "imports point one way"),
    "siblings": ({"edge/planted.py": "import ingest\n"}, "imports point one way"),
    "socket in logic": ({"protocol/planted.py": "import socket\n"}, "logic does no I/O and reads no clock"),
    "clock in logic": ({"edge/condition.py": "import time\n"}, "logic does no I/O and reads no clock"),
    "circle": (
        {"ingest/planted.py": "import ingest.other\n", "ingest/other.py": "import ingest.planted\n"},
        "no circles inside a package",
    ),
}


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """Empty packages under the project's contracts; import-linter wants every module that a contract names."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    ours = {*settings["root_packages"], "protocol.units"}
    ours |= {name for contract in settings["contracts"] for name in contract.get("source_modules", [])}
    for name in sorted(ours):
        path = tmp_path / name.replace(".", "/")
        if (ROOT / name.replace(".", "/")).is_dir() or "." not in name:
            path.mkdir(parents=True, exist_ok=True)
            (path / "__init__.py").touch()
        else:
            path.with_suffix(".py").touch()
    return tmp_path


def test_import_contracts_hold_for_empty_packages(skeleton: Path) -> None:
    found = _run([str(BIN / "lint-imports"), "--no-cache"], skeleton)

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("case", CONTRACTS)
def test_import_contracts_catch_a_planted_arrow(case: str, skeleton: Path) -> None:
    modules, broken = CONTRACTS[case]
    for name, text in modules.items():
        (skeleton / name).write_text(text)

    found = _run([str(BIN / "lint-imports"), "--no-cache"], skeleton)

    assert found.returncode == 1
    assert f"{broken} BROKEN" in found.stdout


def test_make_check_runs_every_checker() -> None:
    script = (ROOT / "scripts/check.py").read_text()

    for checker in ("ruff", "format", "lint-imports", "mypy", "cython-lint", "mypy.stubtest", "tests/test_house.py"):
        assert checker in script
