"""Make a fresh clone ready: system programs, ``.venv`` from the lock files, kernels, the ``icecap`` command. Standard library only.

``python3 scripts/setup.py build|demo|test|fuzz``; every step looks first and does nothing when its result is there.
Invariant: a step records its stamp only after it has succeeded, so an interrupted set-up is taken up where it stopped.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from provisioning.programs import PROGRAMS, Need, Program, find_program, how_to_install, install_command, is_wanted_here  # noqa: E402  (after the path)
from scripts.system_packages import install  # noqa: E402

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "icecap-setup.json"
KERNEL_SOURCES = ("native/**/*.pyx", "native/**/*.pxi", "native/**/*.h", "setup.py")
NEEDS = list(Need)  # in order: each needs what the ones before it need


class SetupError(Exception):
    """Set-up cannot go on; the message says what to type."""


def main(arguments: list[str]) -> int:
    """Run the steps for one of the needs; 0 when the machine is ready for it."""
    need = Need(arguments[0]) if arguments else Need.TEST
    try:
        if code := report_missing(system_programs(need), need):
            return code
        environment()
        locked(need)
        kernels()
        installed()
    except SetupError as error:
        say(f"{error}", loud=True)
        return 1
    return 0


def system_programs(need: Need) -> list[Program]:
    """Install what ``need`` lacks where that is possible; the programs that are still missing."""
    wanted = [program for program in PROGRAMS if NEEDS.index(program.need) <= NEEDS.index(need) and is_wanted_here(program)]
    missing = [program for program in wanted if find_program(program.name) is None]
    packages = [package for program in missing for package in program.apt.split()] + python_packages()
    if packages:
        say(f"installing what is missing: {' '.join(packages)}")
        brew = [program.brew for program in missing if program.brew]
        install(packages, brew=brew)
    return [program for program in missing if find_program(program.name) is None]


def python_packages() -> list[str]:
    """Debian's packages that this Python lacks: its ``venv`` module and, for the kernels, its headers."""
    packages = []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not PYTHON.exists() and importlib.util.find_spec("ensurepip") is None:
        packages.append(f"{version}-venv")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        packages.append(f"{version}-dev")
    return packages


def environment() -> None:
    """Create ``.venv`` unless a working one is there, and bring pip and setuptools to the locked versions."""
    if not works([str(PYTHON), "-c", "import pip"]):
        say("creating .venv")
        if importlib.util.find_spec("ensurepip"):
            run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        else:
            without_ensurepip()
    lock("build.txt")


def without_ensurepip() -> None:
    """Debian's Python without its venv package: the unpacked pip wheel installs pip."""
    wheels = sorted((ROOT / ".tools" / "root" / "usr" / "share" / "python-wheels").glob("pip-*.whl"))
    if not wheels:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(f"This Python has no venv module. Install it with:  sudo apt-get update && sudo apt-get install -y {version}-venv")
    run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    run([str(PYTHON), str(wheels[-1] / "pip"), "install", "-q", "--require-hashes", "-r", str(ROOT / "requirements" / "build.txt")])


def locked(need: Need) -> None:
    """Install the locked packages: the simulator's for a demonstration, all for the rest."""
    if need is Need.DEMO and "dev.txt" not in stamps():
        lock("sim.txt")
    else:
        lock("dev.txt")


def lock(name: str) -> None:
    """Install one lock file, every archive checked by its hash."""
    path = ROOT / "requirements" / name
    digest = digest_of([path], str(PYTHON.resolve()))
    if stamps().get(name) == digest:
        return
    say(f"installing requirements/{name}")
    run([str(PYTHON), "-m", "pip", "install", "-q", "--no-build-isolation", "--require-hashes", "-r", str(path)])
    remember(name, digest)


def kernels() -> None:
    """Compile ``native/*.pyx`` in place when a source changed; without a compiler go on with the Python twins, loudly."""
    sources = [path for pattern in KERNEL_SOURCES for path in sorted(ROOT.glob(pattern))]
    built = all(list(path.parent.glob(f"{path.stem}.*.so")) for path in sources if path.suffix == ".pyx")
    digest = digest_of(sources, str(PYTHON.resolve()))
    if built and stamps().get("kernels") == digest:
        return
    if find_program("gcc") is None:
        reference_only(how_to_install("gcc"))
        return
    say("compiling the kernels")
    result = compiled()
    if result.returncode == 0:
        remember("kernels", digest)
        return
    sys.stderr.write(result.stdout + result.stderr)
    reference_only("the compiler failed; its words are above")


def compiled() -> subprocess.CompletedProcess[str]:
    """Compile in place, whatever the time stamps say: the digest has already found a difference."""
    build = [str(PYTHON), "setup.py", "-q", "build_ext", "--inplace", "--force", f"--parallel={os.cpu_count() or 1}"]
    return subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)


def reference_only(reason: str) -> None:
    """Say that the product will run on the slow twins; an error where compiled kernels are required."""
    text = f"NO COMPILED KERNELS: {reason}. Icecap works without them, 10 to 1000 times slower in the kernels."
    if os.environ.get("ICECAP_REQUIRE_NATIVE") == "1":
        raise SetupError(text)
    say(text, loud=True)


def installed() -> None:
    """Make the packages importable and the ``icecap`` command present: one path entry, so that new files are seen at once."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    described = [settings["build-system"], settings["project"], settings["tool"]["setuptools"]]
    digest = hashlib.sha256(json.dumps([described, str(ROOT)]).encode()).hexdigest()
    if (VENV / "bin" / "icecap").exists() and stamps().get("installed") == digest:
        return
    say("installing the icecap command")
    editable = ["install", "-q", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    run([str(PYTHON), "-m", "pip", *editable], ICECAP_REFERENCE="1")  # the kernels are compiled already
    remember("installed", digest)


def report_missing(missing: list[Program], need: Need) -> int:
    """Name what is still missing with the command that installs it; 1 when ``need`` cannot do without."""
    if not missing:
        return 0
    names = ", ".join(program.name for program in missing)
    say(f"could not be installed from here: {names}. Type:  {install_command(missing, also=python_packages())}", loud=True)
    if need is Need.TEST and os.environ.get("ICECAP_REQUIRE_SERVICES") != "1":
        say("tests that need them are skipped with that reason")
        return 0
    return 1 if any(program.need is not Need.BUILD for program in missing) else 0


def stamps() -> dict[str, str]:
    """What earlier runs have finished: step → digest of what it was made from."""
    try:
        found: dict[str, str] = json.loads(STAMPS.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def remember(step: str, digest: str) -> None:
    """Record that ``step`` is done."""
    STAMPS.write_text(json.dumps({**stamps(), step: digest}, indent=1))


def digest_of(paths: Iterable[Path], *more: str) -> str:
    """One hash over files and words."""
    digest = hashlib.sha256("\0".join(more).encode())
    for path in paths:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def run(command: list[str], **environment: str) -> None:
    """Run a step; its failure ends set-up with the command that failed."""
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False)
    if result.returncode != 0:
        raise SetupError(f"This step failed (exit code {result.returncode}):  {' '.join(command)}")


def works(command: list[str]) -> bool:
    """Whether a command runs and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def say(text: str, *, loud: bool = False) -> None:
    """One line to the person who waits."""
    line = "!" * 80
    sys.stderr.write(f"\n{line}\n{text}\n{line}\n\n" if loud else f"setup: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
