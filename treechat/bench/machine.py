"""Name the machine, threads and commit of a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from treechat import __version__


def machine_name(device: str) -> str:
    """Return device, cores and torch threads in one line."""
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, {threads}"
    return f"{_cpu_name()}, {threads}"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the checkout's commit, with `+` if files differ from it; the version if this is not a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return f"v{__version__}"
    try:
        head = _git(root, "rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"v{__version__}"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
