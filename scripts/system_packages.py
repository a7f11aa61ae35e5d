"""Install packages of the operating system: with its manager where we may, else unpacked into ``.tools/``. Standard library only.

Invariant: it never asks for a password and never raises; the caller looks afterwards whether the programs are there.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["install", "unpack", "write_wrappers"]

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
STEP_S = 1_200  # Chromium over a slow line; a hanging mirror must not hang set-up for ever
EXECUTABLES = ("usr/bin", "usr/sbin", "usr/lib/postgresql/*/bin", "usr/lib/chromium")  # a later folder wins: /usr/bin/chromium is a script

COMPILER = frozenset({"gcc", "libc6-dev", "clang"})  # looks for its parts and the system's headers under /usr

# An installed broker or database must not begin to serve on somebody's machine because they typed `make test`.
APT = """
set -e
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy
    chmod 755 $policy
fi
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"
"""

WRAPPER = """\
#!/bin/sh
LD_LIBRARY_PATH={libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}} exec {program} "$@"
"""


def install(packages: Sequence[str], *, brew: Sequence[str]) -> None:
    """Install Debian ``packages``, or ``brew``'s on macOS, by the first way that this machine allows."""
    if sys.platform == "darwin":
        if shutil.which("brew"):
            for package in brew:
                _run(["brew", "install", *package.split()])
        return
    if not shutil.which("apt-get"):
        return
    as_root = ["sh", "-c", APT, "apt", *packages]
    if os.geteuid() == 0:
        _run(as_root)
    elif shutil.which("sudo") and _run(["sudo", "-n", "true"], quiet=True):
        _run(["sudo", "-n", *as_root])
    else:
        unpack(packages)


def unpack(packages: Sequence[str]) -> None:
    """Download ``packages`` with what they depend on, unpack them below ``.tools/root``, and make them runnable from ``.tools/bin``.

    apt keeps its lists and archives below ``.tools/apt``; the system's own state is only read.
    """
    tools = TOOLS
    packages = _unpackable(packages)
    if not packages:
        return
    lists, archives = tools / "apt" / "lists", tools / "apt" / "cache" / "archives"
    for folder in (lists / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    places = [
        f"Dir::State::lists={lists}",
        f"Dir::Cache={archives.parent}",
        "Debug::NoLocking=true",
        "APT::Sandbox::User=",
        "Acquire::http::Timeout=20",
    ]
    options = [word for place in places for word in ("-o", place)]
    _run(["apt-get", *options, "update", "-q"])
    _run(["apt-get", *options, "install", "-q", "-y", "--download-only", "--no-install-recommends", *packages])
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg", "-x", str(archive), str(tools / "root")])
    write_wrappers(tools)


def _unpackable(packages: Sequence[str]) -> list[str]:
    """What of ``packages`` works unpacked: a compiler and its headers do not; pip's wheel stands in for the venv module."""
    usable = [package for package in packages if package not in COMPILER and not package.endswith("-dev")]
    return ["python3-pip-whl" if package.endswith("-venv") else package for package in usable]


def write_wrappers(tools: Path) -> None:
    """Write one script a program into ``tools/bin`` that finds the unpacked libraries and becomes the program."""
    root = tools / "root"
    libraries = {str(library.parent) for pattern in ("lib/**/*.so*", "usr/lib/**/*.so*") for library in root.glob(pattern)}
    folder = tools / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in EXECUTABLES:
        for program in root.glob(f"{pattern}/*"):
            if program.is_file() and os.access(program, os.X_OK):
                wrapper = folder / program.name
                wrapper.write_text(WRAPPER.format(libraries=":".join(sorted(libraries)), program=program))
                wrapper.chmod(0o755)


def _run(command: list[str], *, quiet: bool = False) -> bool:
    """Whether the command succeeded; its output goes to the person unless ``quiet``."""
    output = subprocess.DEVNULL if quiet else sys.stderr
    try:
        return subprocess.run(command, check=False, stdout=output, stderr=output, stdin=subprocess.DEVNULL, timeout=STEP_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
