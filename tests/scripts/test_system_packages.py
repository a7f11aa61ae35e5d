import os
import subprocess
from pathlib import Path

import pytest

from scripts import system_packages
from scripts.system_packages import install, write_wrappers


def _fake(folder: Path, name: str, text: str = "exit 0") -> None:
    """A program that writes down how it was called."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{text}\n')
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose package tools only write down their calls."""
    folder = tmp_path / "machine"
    for name in ("apt-get", "dpkg", "brew"):
        _fake(folder, name)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(system_packages, "TOOLS", tmp_path / "tools")
    return folder


def _calls(machine: Path) -> list[str]:
    return (machine / "calls").read_text().splitlines()


def test_ordinary_user_with_a_right_to_sudo_installs(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    _fake(machine, "sudo")

    install(["mosquitto"], brew=[])

    calls = _calls(machine)
    assert calls[0] == "sudo -n true"
    assert calls[1].startswith("sudo -n sh -c")
    assert calls[-1].endswith("apt mosquitto")


def test_ordinary_user_without_rights_unpacks(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    _fake(machine, "sudo", "exit 1")

    install(["mosquitto", "python3.11-venv"], brew=[])

    downloads = [call for call in _calls(machine) if "--download-only" in call]
    assert len(downloads) == 1
    assert downloads[0].endswith("mosquitto python3-pip-whl")
    assert not any("sudo -n sh" in call for call in _calls(machine))


def test_macos_installs_with_its_own_manager(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    install(["mosquitto"], brew=["mosquitto", "--cask chromium"])

    assert _calls(machine) == ["brew install mosquitto", "brew install --cask chromium"]


def test_machine_without_a_manager_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    install(["mosquitto"], brew=["mosquitto"])

    assert list(tmp_path.iterdir()) == []


def test_unpacked_program_finds_its_libraries(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _fake(root / "usr/sbin", "broker", 'echo "$LD_LIBRARY_PATH|$1"')
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu/libbroker.so.1").touch()

    write_wrappers(tmp_path)

    run = subprocess.run(
        [tmp_path / "bin/broker", "two words"], capture_output=True, text=True, check=True, env={"LD_LIBRARY_PATH": "/mine"}
    )
    assert run.stdout.strip() == f"{root}/usr/lib/x86_64-linux-gnu:/mine|two words"


def test_unpacked_browser_is_the_program_and_not_its_script(tmp_path: Path) -> None:
    _fake(tmp_path / "root/usr/bin", "chromium", "echo script")
    _fake(tmp_path / "root/usr/lib/chromium", "chromium", "echo program")

    write_wrappers(tmp_path)

    assert "usr/lib/chromium/chromium" in (tmp_path / "bin/chromium").read_text()
