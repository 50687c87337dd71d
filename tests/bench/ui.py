"""Measure the app: first frame, keys while replies stream, branches, many and large conversations, memory.

    python -m tests.bench.ui [--json] [--only start replies stream branches many deep wide chain] [--size 200x50]

The app runs and paints in a pseudo-terminal. A key's time ends when the frame that shows its effect is written to the
terminal. `replies` needs the default model (93 MB, fetched once). `stream` is a reply of 32 kB with code blocks, in CPU
time per token. `deep` and `wide` are conversations of 10,000 nodes, `chain` is one of 100,000.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.ui_probe import rss_bytes
from tests.bench.ui_trees import branching, chain, many, wide
from treechat.bench.machine import commit, machine_name
from treechat.cli.output import table
from treechat.tui import FPS

ROOT = Path(__file__).resolve().parents[2]
PROBES = ("replies", "stream", "branches", "many", "deep", "wide", "chain")
PARTS = ("start", *PROBES)
NUM_STARTS = 7
NUM_CONVERSATIONS, NUM_NODES = 1_000, 100
NUM_BRANCHES, BRANCH_LEN = 12, 100
NUM_LARGE, NUM_CHAIN = 10_000, 100_000
LIMIT_S = 900.0


@contextmanager
def in_terminal(command: list[str], size: tuple[int, int]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command in a pseudo-terminal of that size. Yield the process and the descriptor of its screen."""
    import fcntl
    import pty
    import termios

    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    env = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_FPS": str(FPS)}
    # Run in the checkout's root, since the probe is a module of the tests.
    terminal = {"stdin": inner, "stdout": inner, "stderr": inner}
    with subprocess.Popen(command, **terminal, env=env, cwd=ROOT, start_new_session=True) as app:
        os.close(inner)
        try:
            yield app, outer
        finally:
            if app.poll() is None:
                app.kill()
            app.wait()
            os.close(outer)


def drain(outer: int, app: subprocess.Popen[bytes], wanted: bytes | None = None) -> bool:
    """Read the screen until it contains `wanted` or the process ends. Return whether it contained it."""
    drawn, deadline = b"", time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        ready, _, _ = select.select([outer], [], [], 0.2)
        if not ready:
            if app.poll() is not None:
                return False
            continue
        try:
            data = os.read(outer, 1 << 16)
        except OSError:
            return False
        drawn = (drawn + data)[-(1 << 18) :]
        if wanted is not None and wanted in drawn:
            return True
    raise TimeoutError(f"{app.args} took longer than {LIMIT_S:.0f} s")


def starts(path: Path, wanted: str, size: tuple[int, int], num: int = NUM_STARTS) -> tuple[list[float], int]:
    """Return the seconds from the process' start to a first frame with these words, and the memory used then."""
    command = [sys.executable, "-m", "treechat", "--db", str(path), "-m", str(path.with_name("no-model"))]
    seconds, memory = [], 0
    for _ in range(num + 1):
        started_at = time.perf_counter()
        with in_terminal(command, size) as (app, outer):
            assert drain(outer, app, wanted.encode()), "the app ended before its first frame"
            seconds.append(time.perf_counter() - started_at)
            memory = rss_bytes(app.pid)
    # The first start is left out, since it reads the code from disk.
    return seconds[1:], memory


def probe(mode: str, path: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Run tests/bench/ui_probe.py in that mode and return its measurements."""
    result = path.with_name(f"{mode}.json")
    with in_terminal([sys.executable, "-m", "tests.bench.ui_probe", mode, str(path), str(result)], size) as (
        app,
        outer,
    ):
        drain(outer, app)
    if not result.exists():
        raise SystemExit(f"the {mode} probe ended without a result")
    measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if measured["failed"]:
        raise SystemExit(f"the {mode} probe failed: {measured['failed']}")
    return measured


def measure(parts: list[str], size: tuple[int, int]) -> dict[str, Any]:
    """Measure the parts and return the whole result."""
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if {"start", "many"} & set(parts):
            many(home / "many.db", NUM_CONVERSATIONS, NUM_NODES)
        if "start" in parts:
            name = f"first frame, {NUM_CONVERSATIONS * NUM_NODES:,} nodes"
            seconds["first frame, empty"], memory["app, empty"] = starts(home / "new.db", "A new conversation.", size)
            seconds[name], memory["app, many nodes"] = starts(home / "many.db", f"{NUM_NODES} messages", size)
        if "branches" in parts:
            branching(home / "branches.db", NUM_BRANCHES, BRANCH_LEN)
        for mode, make, num in (("deep", chain, NUM_LARGE), ("wide", wide, NUM_LARGE), ("chain", chain, NUM_CHAIN)):
            if mode in parts:
                make(home / f"{mode}.db", num)
                seconds[f"{mode}: first frame"], _ = starts(home / f"{mode}.db", "the last one", size, NUM_STARTS // 2)
        for mode in PROBES:
            if mode in parts:
                measured = probe(mode, home / f"{mode}.db", size)
                seconds |= measured["seconds"]
                memory |= {f"{mode}: {key}": value for key, value in measured["memory"].items()}
    rows = [
        {
            "what": what,
            "num": len(values),
            "median_s": statistics.median(values),
            "p95_s": percentile(values, 0.95),
            "max_s": max(values),
        }
        for what, values in seconds.items()
    ]
    return {
        "machine": machine_name("cpu"),
        "commit": commit(),
        "size": f"{size[0]}x{size[1]}",
        "times": rows,
        "memory_bytes": memory,
    }


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value with at least this share of the values not above it."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def lines(result: dict[str, Any]) -> list[str]:
    """Return the result as tables for people."""
    times = [
        [row["what"], f"{row['num']}", *(f"{1000 * row[key]:,.1f}" for key in ("median_s", "p95_s", "max_s"))]
        for row in result["times"]
    ]
    memory = [[what, f"{num / 1e6:,.0f}"] for what, num in result["memory_bytes"].items()]
    head = [f"{result['machine']}, commit {result['commit']}, terminal {result['size']}", ""]
    out = [*head, table(("key to paint, ms", "num", "median", "95 %", "most"), times)]
    return [*out, "", table(("resident memory", "MB"), memory)] if memory else out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="only these parts; default: all")
    parser.add_argument("--size", default="120x40", help="columns x rows of the terminal")
    arguments = parser.parse_args()
    columns, rows = map(int, arguments.size.split("x"))
    result = measure(arguments.only, (columns, rows))
    print(json.dumps(result, indent=2) if arguments.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
