import os
import subprocess
from pathlib import Path

import pytest

from provisioning import programs
from provisioning.programs import PROGRAMS, Need, find_program, how_to_install, install_command, program, search_folders


def _executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_program_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    _executable(tmp_path / "second" / "mosquitto")
    first = _executable(tmp_path / "first" / "mosquitto")

    assert find_program("mosquitto", folders=[tmp_path / "empty", tmp_path / "first", tmp_path / "second"]) == first


def test_program_is_found_under_another_name(tmp_path: Path) -> None:
    browser = _executable(tmp_path / "google-chrome")

    assert find_program("chromium", folders=[tmp_path]) == browser


def test_file_that_cannot_be_run_is_not_a_program(tmp_path: Path) -> None:
    (tmp_path / "mosquitto").write_text("")

    assert find_program("mosquitto", folders=[tmp_path]) is None


def test_newest_database_comes_first(tmp_path: Path) -> None:
    for version in ("9.6", "15", "17"):
        (tmp_path / "usr/lib/postgresql" / version / "bin").mkdir(parents=True)

    folders = search_folders(program("postgres"), root=tmp_path)

    assert [folder.parent.name for folder in folders[:3]] == ["17", "15", "9.6"]


def test_tools_folder_is_searched_last() -> None:
    assert search_folders(program("mosquitto"))[-1] == programs.TOOLS / "bin"


def test_unknown_program_is_a_mistake_in_our_code() -> None:
    with pytest.raises(KeyError, match="add it there"):
        find_program("frobnicate")


@pytest.mark.parametrize("entry", PROGRAMS, ids=lambda entry: entry.name)
def test_every_program_has_a_command_that_installs_it(entry: programs.Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "is_debian", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    words = how_to_install(entry.name)

    assert words.startswith(f"{entry.name} is not on this machine")
    assert words.endswith(f"sudo apt-get install -y --no-install-recommends {' '.join(sorted(entry.apt.split()))}")


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "is_debian", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert "sudo" not in install_command(PROGRAMS)


def test_command_takes_further_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "is_debian", lambda: True)

    assert install_command([program("mosquitto")], also=["python3.11-venv"]).endswith(" mosquitto python3.11-venv")


def test_macos_uses_its_own_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    assert install_command([program("mosquitto"), program("chromium")]) == "brew install mosquitto && brew install --cask chromium"


def test_macos_is_not_asked_for_what_it_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    assert how_to_install("strace") == "strace is not on this machine, and there is none for macOS"
    assert install_command([program("strace"), program("mosquitto")]) == "brew install mosquitto"


def test_names_are_unique_and_build_comes_first() -> None:
    names = [entry.name for entry in PROGRAMS]
    needs = [list(Need).index(entry.need) for entry in PROGRAMS]

    assert len(names) == len(set(names))
    assert needs == sorted(needs)


def test_list_is_readable_before_any_package_is_installed() -> None:
    code = "import sys; sys.path.insert(0, '.'); import provisioning.programs; print({'msgspec', 'typer', 'protocol'} & {*sys.modules})"
    command = ["python3", "-I", "-S", "-c", code]

    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "set()"
