"""Which process writes a reply or an import, and whether it still lives.

A process is its host (with the pid namespace, which makes containers hosts of their own), its pid and the moment it
started: a pid that was given again to another process does not pass for the old one.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")

ABANDONED_S = 24 * 3600.0
"""The work of an owner that cannot be asked (another host) counts as abandoned when it was not seen for so long."""


class Owner(NamedTuple):
    """host: name and pid namespace. started: opaque, differs for every process that ever has this pid."""

    host: str
    pid: int
    started: str


def this_process() -> Owner:
    return _owner_of(os.getpid())


@functools.lru_cache(maxsize=4)
def _owner_of(pid: int) -> Owner:
    return Owner(_host(), pid, _started(pid) or "")


def is_alive(owner: Owner) -> bool | None:
    """Whether that process runs. None where it cannot be told: another host, or a system that does not say."""
    if owner.host != _host():
        return None
    started = _started(owner.pid)
    return None if started is None else started == owner.started and started != ""


def is_abandoned(owner: Owner, seen_at: float) -> bool:
    """Whether nobody will go on with what that process wrote last at `seen_at`, seconds since the epoch."""
    alive = is_alive(owner)
    return time.time() - seen_at > ABANDONED_S if alive is None else not alive


@functools.lru_cache(maxsize=1)
def _host() -> str:
    try:
        namespace = (PROC / "self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}".strip()


def _started(pid: int) -> str | None:
    """When the process started; empty where there is no such process (or a dead one waits for its parent)."""
    if sys.platform == "linux":
        return _started_linux(pid)
    if os.name == "posix":
        return _started_ps(pid)
    return None


def _started_linux(pid: int) -> str | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return "" if (PROC / "self" / "stat").exists() else None
    # The name, in parentheses, may itself hold spaces and parentheses: the fields are counted after the last one.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return "" if state in "ZXx" else f"{_boot()} {start_ticks}"


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    """Names this run of the machine: ticks are counted from its start."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return None
    # No such process is a silent failure; anything said means that ps could not look.
    return None if answer.stderr else answer.stdout.strip()
