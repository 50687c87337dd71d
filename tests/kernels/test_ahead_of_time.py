"""Kernels compile for chips that this machine lacks, without spills and within a block's shared memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# The largest tiles are those of bfloat16. All dtypes, which the table is made from, take three times as long.
@pytest.mark.parametrize("dtype", ["bf16", pytest.param(None, marks=pytest.mark.slow)], ids=["bf16", "all dtypes"])
def test_the_largest_variants_fit_their_chips(dtype, pytestconfig):
    pytest.importorskip("triton")
    # In a separate process, since kernels are interpreted in this one. The cache keeps kernels of earlier runs.
    env = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(pytestconfig.cache.mkdir("triton")),
        "PYTHONPATH": f"{ROOT / 'engine'}{os.pathsep}{ROOT / 'kernels'}",
    }
    command = [sys.executable, str(ROOT / "tests/bench/aot.py"), "--few", *(["--dtype", dtype] if dtype else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all fit\n")
    table = (ROOT / "tests/bench/results/kernel-resources.md").read_text()
    for arch in (80, 90, 100):
        assert done.stdout.count(f"sm_{arch} ") > 15
        if f"triton {triton_version()})" not in table:
            continue
        listed, measured = column(table, arch), largest(done.stdout, arch)
        assert listed.keys() == measured.keys()
        # A single dtype takes at most the figures of the table.
        most = {name: tuple(map(max, listed[name], measured[name])) for name in listed} if dtype else measured
        assert listed == most, "print the table again"


def triton_version():
    import triton

    return triton.__version__


def column(table, arch):
    """Return {kernel: (registers, spilled, shared)} of one chip in the table."""
    lines = table[table.index("| kernel | sm_") :].splitlines()
    at = [cell.strip() for cell in lines[0].split("|")].index(f"sm_{arch}")
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in lines[2:] if line.startswith("|")]
    return {row[1]: tuple(int(value.replace(",", "")) for value in row[at].split(" / ")) for row in rows}


def largest(printed, arch):
    """Return {kernel: (registers, spilled, shared)}, the largest figures of its variants on this chip."""
    found = {}
    for kernel, *values in re.findall(rf"^(\w+_kernel) .* sm_{arch} +(\d+) +(\d+) +(\d+)$", printed, re.MULTILINE):
        pairs = zip(map(int, values), found.get(kernel, (0, 0, 0)), strict=True)
        found[kernel] = tuple(max(pair) for pair in pairs)
    return found
