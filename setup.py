"""Compile the kernels of native/; everything else about the package is in pyproject.toml.

``ICECAP_REFERENCE=1`` at build time skips the compiler: the product then runs on the pure-Python twins and says so.
"""

import os
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

# -ffp-contract=off: a fused multiply-add changes the last bit, and x86, ARM and the Python twin must agree on every bit.
# -ffile-prefix-map: two builds of one source in two folders are the same bytes.
COMPILE_ARGS = ["-O3", "-ffp-contract=off", "-fwrapv", f"-ffile-prefix-map={Path.cwd()}=."]


def kernels() -> list[Extension]:
    """One extension module for each ``native/*.pyx``."""
    if os.environ.get("ICECAP_REFERENCE") == "1":
        return []
    sources = sorted(Path("native").glob("*.pyx"))
    return cythonize(  # type: ignore[no-any-return, no-untyped-call]
        [
            Extension(
                f"native.{source.stem}",
                [str(source)],
                include_dirs=[np.get_include(), "native/src"],
                depends=[str(part) for part in sorted([*Path("native/src").glob("*.h"), *Path("native").glob("*.pxi")])],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                extra_compile_args=COMPILE_ARGS,
            )
            for source in sources
        ],
        build_dir="build/cython",
        compiler_directives={"language_level": "3"},
    )


setup(ext_modules=kernels())
