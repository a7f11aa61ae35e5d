"""Which kernels run, said loudly; the tables and golden blocks that make the format."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import native
from native import deltapack, hampel, smooth
from tests.native.golden import CASES, decoded

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/deltapack"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}, timeout=60
    )


def test_the_reference_is_chosen_by_one_variable_and_says_why() -> None:
    code = "import native; from native import deltapack; import native.smooth as s; print(native.BACKEND, deltapack.__name__, s.__name__)"

    result = run(code, ICECAP_REFERENCE="1", ICECAP_REQUIRE_NATIVE="0")

    assert result.stdout.split() == ["reference", "native.reference.deltapack", "native.reference.smooth"]


def test_require_native_refuses_to_start_on_the_reference() -> None:
    result = run("import native", ICECAP_REFERENCE="1", ICECAP_REQUIRE_NATIVE="1")

    assert result.returncode != 0
    assert "ICECAP_REQUIRE_NATIVE=1" in result.stderr


@pytest.mark.skipif(native.BACKEND != "compiled", reason="the compiled kernels are not in use")
@pytest.mark.parametrize("kind", [smooth.Smoother, hampel.Hampel, hampel.Median, deltapack.Encoder, deltapack.Decoder])
def test_typed_kernels_are_really_compiled(kind: type) -> None:
    assert not hasattr(kind, "__dict__") or "__init__" not in vars(kind) or not hasattr(vars(kind)["__init__"], "__code__")


def test_tables_are_what_the_generator_makes(tmp_path: Path) -> None:
    for folder in ("native/src", "native/reference"):
        (tmp_path / folder).mkdir(parents=True)

    subprocess.run([sys.executable, str(ROOT / "scripts/make_tables.py"), str(tmp_path)], check=True, timeout=60)

    for name in ("native/src/tables.h", "native/src/powers.h", "native/reference/tables.json"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), name


@pytest.mark.parametrize("name", sorted(CASES))
def test_golden_blocks_are_read_and_written_as_ever(name: str) -> None:
    stored = [bytes.fromhex(line) for line in (GOLDEN / f"{name}.hex").read_text().split()]

    assert CASES[name]() == stored
    for got, expected in zip(decoded(stored), np.load(GOLDEN / f"{name}.npz").values(), strict=True):
        np.testing.assert_array_equal(got, expected)
