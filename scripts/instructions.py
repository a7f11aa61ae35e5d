"""Instructions per point of the kernels, counted by callgrind: a figure that does not change with the machine's load.

Each kernel runs twice under valgrind, with few and with many repeats; the difference is the kernel and its call, without start-up.
Usage: python scripts/instructions.py [kernel ...]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEW, MANY = 1, 5
SETUP = """
import sys
import numpy as np
from native import deltapack, lineproto, smooth
from simulator.bench.scenes import cooler
run = cooler(runs=1, rows=600)[0]
ts, codes = run.ts_ms[:300], np.ascontiguousarray(run.codes[:300])
block, plan = deltapack.encode(ts, codes), deltapack.plan(ts, codes)
keys, values = [name.encode() for name in run.names], codes / 10.0 ** np.array(run.decimals)
column = np.ascontiguousarray(codes[:, 0])
pairs = list(zip(ts.tolist(), column.tolist()))
make = lambda: smooth.Smoother(lo=-6000, hi=6000, sigma=3.0, max_rate=10.0)
def calls():
    update = make().update
    for t_ms, code in pairs: update(t_ms, code)
for _ in range(int(sys.argv[1])):
    WORK
"""
KERNELS = {
    "encode": ("deltapack.encode(ts, codes)", 2400),
    "encode, planned": ("deltapack.encode(ts, codes, params=plan)", 2400),
    "encode, bounded": ("deltapack.encode_bounded(ts, codes, run.bounds)", 2400),
    "decode": ("deltapack.decode(block)", 2400),
    "smooth, batch": ("make().batch(ts, column)", 300),
    "smooth, by call": ("calls()", 300),
    "line protocol, codes": ("lineproto.encode_block(b'cooler,device=IC-1', keys, run.decimals, ts, codes)", 2400),
    "line protocol, doubles": ("lineproto.encode_floats(b'cooler,device=IC-1', keys, ts, values)", 2400),
}


def instructions(work: str, repeats: int) -> int:
    """All instructions of one process."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, "-c", SETUP.replace("WORK", work)]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        result = subprocess.run([*command, str(repeats)], capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    counted = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode or not counted:
        raise SystemExit(f"valgrind failed:\n{result.stderr}")
    return int(counted.group(1))


def main() -> None:
    """Print one line for each kernel."""
    for name in sys.argv[1:] or KERNELS:
        work, points = KERNELS[name]
        per_point = (instructions(work, MANY) - instructions(work, FEW)) / (MANY - FEW) / points
        print(f"{name:24} {per_point:8.1f} instructions a point", flush=True)


if __name__ == "__main__":
    main()
