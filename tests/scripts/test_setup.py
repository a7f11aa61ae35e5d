import subprocess
from pathlib import Path

import pytest

from provisioning.programs import Need, program
from scripts import setup

SUCCESS = subprocess.CompletedProcess([], 0, "", "")
FAILURE = subprocess.CompletedProcess([], 1, "", "gcc: out of luck")

PROJECT = '[build-system]\nrequires = []\n[project]\nname = "icecap"\n[tool.setuptools]\npy-modules = ["icecap"]\n'


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clone in which commands only leave behind what the real ones would."""
    for name, text in {"native/codec.pyx": "", "setup.py": "", "pyproject.toml": PROJECT}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "requirements").mkdir()
    for name in ("build.txt", "sim.txt", "dev.txt"):
        (tmp_path / "requirements" / name).write_text(f"{name} 1\n")
    for name, path in {"ROOT": "", "VENV": ".venv", "PYTHON": ".venv/bin/python", "STAMPS": ".venv/icecap-setup.json"}.items():
        monkeypatch.setattr(setup, name, tmp_path / path)
    monkeypatch.setattr(setup, "system_programs", lambda _need: [])
    return tmp_path


@pytest.fixture
def steps(clone: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that set-up ran, in a word each."""
    done: list[str] = []

    def run(command: list[str], **_environment: str) -> None:
        done.append(command[-1].removeprefix(f"{clone}/") or ".")
        (clone / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (clone / ".venv/bin/python").touch()
        if "-e" in command:
            (clone / ".venv/bin/icecap").touch()

    def compiled() -> subprocess.CompletedProcess[str]:
        done.append("compile")
        (clone / "native/codec.cpython-311.so").touch()
        return SUCCESS

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "works", lambda command: Path(command[0]).exists())
    monkeypatch.setattr(setup, "compiled", compiled)
    monkeypatch.setattr(setup, "find_program", lambda _name: Path("/usr/bin/gcc"))
    return done


def test_fresh_clone_is_set_up_in_order(clone: Path, steps: list[str]) -> None:
    assert setup.main(["test"]) == 0

    assert steps == [".venv", "requirements/build.txt", "requirements/dev.txt", "compile", str(clone)]


@pytest.mark.usefixtures("clone")
def test_second_run_does_nothing(steps: list[str]) -> None:
    setup.main(["test"])
    steps.clear()

    assert setup.main(["test"]) == 0

    assert steps == []


@pytest.mark.parametrize(
    ("changed", "repeated"),
    [("requirements/dev.txt", ["requirements/dev.txt"]), ("native/codec.pyx", ["compile"]), ("native/src/table.h", ["compile"])],
)
def test_change_repeats_only_its_own_step(changed: str, repeated: list[str], clone: Path, steps: list[str]) -> None:
    setup.main(["test"])
    steps.clear()
    (clone / changed).parent.mkdir(exist_ok=True)
    (clone / changed).write_text("changed")

    setup.main(["test"])

    assert steps == repeated


def test_lost_kernel_is_compiled_again(clone: Path, steps: list[str]) -> None:
    setup.main(["test"])
    steps.clear()
    (clone / "native/codec.cpython-311.so").unlink()

    setup.main(["test"])

    assert steps == ["compile"]


def test_interrupted_step_is_done_again(clone: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    setup.main(["test"])
    steps.clear()
    (clone / "requirements/dev.txt").write_text("dev.txt 2\n")
    working = setup.run

    def failing(command: list[str], **_environment: str) -> None:
        raise setup.SetupError(" ".join(command))

    monkeypatch.setattr(setup, "run", failing)
    assert setup.main(["test"]) == 1
    monkeypatch.setattr(setup, "run", working)
    assert setup.main(["test"]) == 0

    assert steps == ["requirements/dev.txt"]


@pytest.mark.usefixtures("clone")
def test_demonstration_installs_the_smaller_lock_and_tests_the_rest(steps: list[str]) -> None:
    setup.main(["demo"])
    assert "requirements/sim.txt" in steps
    assert "requirements/dev.txt" not in steps

    steps.clear()
    setup.main(["test"])
    assert steps == ["requirements/dev.txt"]

    steps.clear()
    setup.main(["demo"])
    assert steps == []


@pytest.mark.usefixtures("clone")
def test_damaged_stamps_mean_a_fresh_set_up(clone: Path, steps: list[str]) -> None:
    setup.main(["test"])
    steps.clear()
    (clone / ".venv/icecap-setup.json").write_text('{"build.txt": ')

    assert setup.main(["test"]) == 0

    assert steps == ["requirements/build.txt", "requirements/dev.txt", "compile", str(clone)]


@pytest.mark.usefixtures("steps")
def test_without_a_compiler_it_goes_on_loudly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(setup, "find_program", lambda _name: None)
    monkeypatch.delenv("ICECAP_REQUIRE_NATIVE", raising=False)

    assert setup.main(["test"]) == 0

    said = capsys.readouterr().err
    assert "NO COMPILED KERNELS: gcc is not on this machine; install it with:" in said


@pytest.mark.usefixtures("steps")
def test_failing_compiler_is_quoted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(setup, "compiled", lambda: FAILURE)
    monkeypatch.delenv("ICECAP_REQUIRE_NATIVE", raising=False)

    assert setup.main(["test"]) == 0

    assert "gcc: out of luck" in capsys.readouterr().err


@pytest.mark.usefixtures("steps")
def test_required_kernels_that_do_not_compile_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "compiled", lambda: FAILURE)
    monkeypatch.setenv("ICECAP_REQUIRE_NATIVE", "1")

    assert setup.main(["test"]) == 1


@pytest.mark.parametrize(
    ("need", "missing", "required", "code"),
    [
        (Need.DEMO, "mosquitto", "", 1),
        (Need.DEMO, "gcc", "", 0),
        (Need.TEST, "mosquitto", "", 0),
        (Need.TEST, "mosquitto", "1", 1),
        (Need.TEST, "influxd", "1", 1),
    ],
)
def test_missing_program_stops_only_what_cannot_do_without(
    need: Need, missing: str, required: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ICECAP_REQUIRE_SERVICES", required)

    assert setup.report_missing([program(missing)], need) == code

    assert f"could not be installed from here: {missing}. Type:  " in capsys.readouterr().err


def test_demonstration_stops_before_it_installs_anything(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "system_programs", lambda _need: [program("mosquitto")])

    assert setup.main(["demo"]) == 1

    assert steps == []
