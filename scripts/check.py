"""Everything that judges the source without running it, in order of speed, all of it even when one fails. Exit code 1 if any did."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
PACKAGES = ("dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator")


def commands() -> dict[str, list[str]]:
    """The checkers by the name under which they report; only for what exists."""
    packages = [name for name in PACKAGES if (ROOT / name / "__init__.py").exists()]
    kernels = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("native/*.pyx"))
    compiled = sorted(f"native.{path.name.partition('.')[0]}" for path in ROOT.glob("native/*.so"))
    python = str(BIN / "python")
    stubtest = [python, "-m", "mypy.stubtest", "--ignore-disjoint-bases", "--allowlist", "scripts/stubtest-allowlist.txt"]
    checks = {
        "ruff": [str(BIN / "ruff"), "check", "."],
        "format": [str(BIN / "ruff"), "format", "--check", "."],
        "imports": [str(BIN / "lint-imports")],
        "mypy": [python, "-m", "mypy", *packages, "scripts", "icecap.py", "setup.py"],
        "house": [python, "-m", "pytest", "-q", "tests/test_house.py", "tests/test_docs.py", "-m", "not slow"],
    }
    if kernels:
        checks["cython-lint"] = [str(BIN / "cython-lint"), *kernels]
    if compiled:
        checks["stubs"] = [*stubtest, *compiled]
    return checks


def main() -> int:
    """Run all checkers; show what a failing one says."""
    failed = []
    environment = {**os.environ, "NO_COLOR": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}  # cython-lint starts pycodestyle by name
    for name, command in commands().items():
        started = time.monotonic()
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        took_s = time.monotonic() - started
        print(f"{name:<12} {'ok' if run.returncode == 0 else 'FAILED':<7} {took_s:5.1f} s", flush=True)
        if run.returncode != 0:
            failed.append(name)
            print(run.stdout + run.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
