"""Kernels compile for chips that are not here, without spills and within a block's shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_the_largest_variants_fit_the_chip(arch, tmp_path):
    pytest.importorskip("triton")
    # In a process of its own: here the kernels are interpreted.
    env = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": f"{ROOT / 'engine'}{os.pathsep}{ROOT / 'kernels'}",
    }
    command = [sys.executable, str(ROOT / "tests/bench/aot.py"), "--few", "--arch", str(arch)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"sm_{arch} ") > 15 and done.stdout.endswith("all fit\n")
