"""What is handed out: an sdist that builds, a wheel with compiled kernels and with every file that the product reads at run time."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.house_rules import tracked_files

ROOT = Path(__file__).parent.parent
PACKAGES = ("dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator")
SOURCE_ONLY = {".pyx", ".pxi", ".h", ".c"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the kernels are compiled once more, under whatever load there is

BUILD = "import sys; from setuptools import build_meta as backend; print(getattr(backend, f'build_{sys.argv[1]}')(sys.argv[2]))"


def _build(kind: str, source: Path, target: Path) -> Path:
    """An sdist or a wheel of ``source``."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    env.pop("ICECAP_REFERENCE", None)
    target.mkdir(exist_ok=True)
    (target / "parallel.cfg").write_text(f"[build_ext]\nparallel = {os.cpu_count()}\n")
    env["DIST_EXTRA_CONFIG"] = str(target / "parallel.cfg")
    run = subprocess.run([sys.executable, "-c", BUILD, kind, str(target)], cwd=source, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return target / run.stdout.splitlines()[-1]


def _copy_tree(target: Path) -> None:
    """The tracked files, as a clone would have them."""
    for name in tracked_files(ROOT):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of the tracked files, and the wheel built from nothing but that sdist."""
    folder = tmp_path_factory.mktemp("packaging")
    _copy_tree(folder / "tree")
    sdist = _build("sdist", folder / "tree", folder / "dist")
    shutil.unpack_archive(sdist, folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, _build("wheel", unpacked, folder / "dist")


def test_wheel_from_the_sdist_has_every_kernel_compiled(handed_out: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(handed_out[1]).namelist()
    kernels = sorted(name.stem for name in tracked_files(ROOT) if name.suffix == ".pyx")

    compiled = sorted(Path(name).name.partition(".")[0] for name in names if name.startswith("native/") and name.endswith(".so"))

    assert compiled == kernels
    assert "any" not in handed_out[1].stem.split("-")[-1]


def test_wheel_has_every_file_of_the_packages(handed_out: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(handed_out[1]).namelist())
    wanted = {str(name) for name in tracked_files(ROOT) if name.parts[0] in PACKAGES and name.suffix not in SOURCE_ONLY}

    assert sorted(wanted - names) == []
    assert "icecap.py" in names


def test_wheel_has_nothing_else(handed_out: tuple[Path, Path]) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(handed_out[1]).namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {*PACKAGES, "icecap.py"}


def test_installed_wheel_runs_on_compiled_kernels(handed_out: tuple[Path, Path], tmp_path: Path) -> None:
    """Unpacked beside the locked dependencies, as an installation would be."""
    shutil.unpack_archive(handed_out[1], tmp_path, "zip")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import native, icecap; print(native.BACKEND, native.__file__)"

    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["compiled", str(tmp_path / "native/__init__.py")]


def test_sdist_carries_licence_tests_of_house_and_locks(handed_out: tuple[Path, Path]) -> None:
    with tarfile.open(handed_out[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "CHANGELOG.md", "Makefile", "requirements/dev.txt", "scripts/setup.py", "native/src/crc32c.h"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_same_source_in_two_folders_gives_the_same_wheel(tmp_path: Path) -> None:
    """With one kernel, the shortest to compile; a path or a time in the result would show there too."""
    first, second = tmp_path / "here", tmp_path / "in_another_place"
    _copy_tree(first)
    for kernel in (first / "native").glob("*.pyx"):
        if kernel.stem != "crc32c":
            kernel.unlink()
    shutil.copytree(first, second)

    wheels = [_build("wheel", folder, tmp_path / f"{folder.name}_out").read_bytes() for folder in (first, second)]

    assert wheels[0] == wheels[1]
