"""Run a program to its end with a regular callback; kill it if the caller stops."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL_S = 0.2


def run_watched(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], output: Path, watch: Callable[[], None]
) -> int:
    """Run a program and return its exit status.

    command: the program and its arguments.
    cwd: its working directory.
    environment: its environment variables.
    output: file for its stdout and stderr.
    watch: called several times a second, and once at the end. If it raises, the program is killed.
    """
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=cwd, env=dict(environment)
        )
    try:
        while True:
            watch()
            try:
                exit_status = process.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            watch()
            return exit_status
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
