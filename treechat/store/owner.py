"""The process that writes a reply or an import, and whether it still runs.

A process is identified by its host (with the pid namespace, so each container counts as a host), its pid and its start
time. The start time tells it from a later process with the same pid.
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
"""Without a sign of life for this time, work of a process on another host counts as abandoned."""


class Owner(NamedTuple):
    """A process.

    host: name and pid namespace.
    pid: its process id on that host.
    started: opaque; differs between all processes that have this pid.
    """

    host: str
    pid: int
    started: str


def this_process() -> Owner:
    return _owner_of(os.getpid())


@functools.lru_cache(maxsize=4)
def _owner_of(pid: int) -> Owner:
    return Owner(_host(), pid, _started(pid) or "")


def is_alive(owner: Owner) -> bool | None:
    """Whether that process runs; None if unknown: another host, or a system without this information."""
    if owner.host != _host():
        return None
    started = _started(owner.pid)
    return None if started is None else started == owner.started and started != ""


def is_abandoned(owner: Owner, seen_at: float) -> bool:
    """Whether the process is dead, or unknown and silent for `ABANDONED_S`.

    owner: the process.
    seen_at: its last write, seconds since the epoch.
    """
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
    """The start time of the process; empty if there is none or it is a zombie; None if unknown."""
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
    # The name, in parentheses, may contain spaces and parentheses: count the fields after the last parenthesis.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return "" if state in "ZXx" else f"{_boot()} {start_ticks}"


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    """Identifies the boot of the machine: ticks are counted from the boot."""
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
    # For a missing process ps fails without output; an error message means that ps itself failed.
    return None if answer.stderr else answer.stdout.strip()
