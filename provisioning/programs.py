"""Programs of the operating system that Icecap starts: where they are, and what installs a missing one. It installs nothing itself.

Standard library only and no import of ours, because ``scripts/setup.py`` reads it before any environment exists. Invariant: this is
the one list; set-up, the demonstration, ``icecap doctor`` and the test fixtures all ask here.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

__all__ = [
    "PROGRAMS",
    "Need",
    "Program",
    "find_program",
    "how_to_install",
    "install_command",
    "is_debian",
    "is_wanted_here",
    "program",
    "search_folders",
]

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
"""Where set-up unpacks packages when it may not install them; absent on an installed gateway, which does no harm."""

SYSTEM_FOLDERS = ("usr/local/sbin", "usr/sbin", "sbin", "usr/local/bin", "usr/bin", "bin", "opt/homebrew/bin", "opt/homebrew/sbin")
"""Below ``/``, searched after ``PATH``: Debian puts brokers in ``/usr/sbin``, which is not on an ordinary user's path."""


class Need(Enum):
    """The first verb that stops without the program; a later one needs the earlier ones' programs too."""

    BUILD = "build"
    DEMO = "demo"
    TEST = "test"
    FUZZ = "fuzz"


@dataclass(frozen=True, slots=True)
class Program:
    """One program, its packages, and the names and folders under which it is known."""

    name: str
    apt: str
    """Debian packages, blank-separated."""
    brew: str | None
    """What ``brew install`` takes; None where macOS has no such thing or brings it along."""
    need: Need
    aliases: tuple[str, ...] = ()
    """Other file names, in order of preference, tried after ``name``."""
    folders: tuple[str, ...] = ()
    """Folders searched *before* ``PATH``, as patterns below ``/``; the highest version wins."""


PROGRAMS = (
    Program("gcc", "gcc libc6-dev", None, Need.BUILD, aliases=("cc", "clang")),
    Program("mosquitto", "mosquitto", "mosquitto", Need.DEMO),
    Program("dbus-daemon", "dbus", "dbus", Need.DEMO),
    Program("influxd", "influxdb", "influxdb@1", Need.TEST, folders=("opt/homebrew/opt/influxdb@1/bin", "usr/local/opt/influxdb@1/bin")),
    Program(
        "postgres",
        "postgresql",
        "postgresql@17",
        Need.TEST,
        folders=("usr/lib/postgresql/*/bin", "opt/homebrew/opt/postgresql@*/bin", "usr/local/opt/postgresql@*/bin"),
    ),
    Program(
        "chromium",
        "chromium fonts-dejavu-core",
        "--cask chromium",
        Need.TEST,
        aliases=("chromium-browser", "google-chrome", "Chromium", "Google Chrome"),
        folders=("Applications/Chromium.app/Contents/MacOS", "Applications/Google Chrome.app/Contents/MacOS"),
    ),
    Program("pdftotext", "poppler-utils", "poppler", Need.TEST),
    Program("strace", "strace", None, Need.TEST),
    Program("clang", "clang", None, Need.FUZZ),
)


def program(name: str) -> Program:
    """The entry called ``name``; KeyError for a program that is not in the list."""
    for entry in PROGRAMS:
        if entry.name == name:
            return entry
    raise KeyError(f"{name} is not in provisioning.programs.PROGRAMS; add it there")


def find_program(name: str, *, folders: Sequence[Path] | None = None) -> Path | None:
    """The executable file of ``name``, or None; ``folders`` replaces the machine's own places."""
    entry = program(name)
    places = search_folders(entry) if folders is None else folders
    path = os.pathsep.join(str(place) for place in places)
    for file_name in (entry.name, *entry.aliases):
        if found := shutil.which(file_name, path=path):
            return Path(found)
    return None


def search_folders(entry: Program, *, root: Path = Path("/")) -> list[Path]:
    """Where ``entry`` is looked for: its own folders, highest version first; then ``PATH``, the system's folders and ``.tools``."""
    own = [folder for pattern in entry.folders for folder in sorted(root.glob(pattern), key=_version_key, reverse=True)]
    return [*own, *(Path(folder) for folder in os.get_exec_path()), *(root / folder for folder in SYSTEM_FOLDERS), TOOLS / "bin"]


def how_to_install(name: str) -> str:
    """One sentence with the exact command for this machine."""
    if not is_wanted_here(program(name)):
        return f"{name} is not on this machine, and there is none for macOS"
    return f"{name} is not on this machine; install it with:  {install_command([program(name)])}"


def install_command(entries: Iterable[Program], *, also: Iterable[str] = ()) -> str:
    """The command that installs ``entries`` (and Debian's packages ``also``) on this machine, ready to be pasted."""
    entries = list(entries)
    if sys.platform == "darwin":
        return " && ".join(f"brew install {entry.brew}" for entry in entries if entry.brew)
    packages = " ".join(sorted({*also, *(package for entry in entries for package in entry.apt.split())}))
    if is_debian():
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {packages}"
    return f"your system's package manager, which should have: {packages} (Debian's names)"


def is_wanted_here(entry: Program) -> bool:
    """Whether ``entry`` is something to install on this system."""
    return sys.platform != "darwin" or entry.brew is not None


def is_debian() -> bool:
    """Whether Debian's package tools are here (Debian, Ubuntu, Raspberry Pi OS)."""
    return Path("/usr/bin/apt-get").exists() and Path("/usr/bin/dpkg").exists()


def _version_key(folder: Path) -> tuple[int, ...]:
    """Numbers in the path, so that PostgreSQL 15 comes after 9."""
    digits = "".join(letter if letter.isdigit() else " " for letter in str(folder))
    return tuple(int(number) for number in digits.split())
