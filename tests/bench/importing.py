"""Measure the import of a large export: nodes per second and peak memory, as JSON.

    python -m tests.bench.importing [--nodes 200000] [--megabytes 200] [--deep 100000]

Writes a ChatGPT export of that size, in conversations of 200 messages, and imports it into a new database with the
command. Does the same with one conversation of `--deep` messages, and exports that one again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

CONVERSATION_LEN = 200


def write_export(path: Path, num_nodes: int, num_bytes: int, conversation_len: int) -> None:
    filler = "lorem ipsum dolor sit amet, " * 400
    text_len = max(10, num_bytes // num_nodes - 330)
    with path.open("w") as file:
        file.write("[")
        for start in range(0, num_nodes, conversation_len):
            mapping = {
                f"{start:08d}-{i:08d}": {
                    "id": f"{start:08d}-{i:08d}",
                    # Every tenth message has a sibling.
                    "parent": f"{start:08d}-{i - 1 - (i % 10 == 9):08d}" if i else None,
                    "children": [],
                    "message": {
                        "author": {"role": "assistant" if i % 2 else "user"},
                        "content": {"content_type": "text", "parts": [f"{i} {filler[:text_len]}"]},
                        "create_time": 1_700_000_000.5 + i,
                        "end_turn": bool(i % 2),
                        "metadata": {"model_slug": "gpt-x"},
                    },
                }
                for i in range(min(conversation_len, num_nodes - start))
            }
            record = {"conversation_id": f"c-{start}", "title": f"Chat {start}", "mapping": mapping}
            file.write(("," if start else "") + json.dumps(record))
        file.write("]")


class CommandRun(NamedTuple):
    """One command in a separate process.

    wall_s, cpu_s: seconds.
    peak_mb: resident memory.
    output: its standard output.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def treechat(*args: str) -> CommandRun:
    before = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "treechat", *args], stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"treechat {' '.join(args)} failed: {output.decode()[-500:]}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return CommandRun(time.perf_counter() - before, cpu_s, usage.ru_maxrss / 1024, output.decode())


def measure_import(folder: Path, num_nodes: int, num_bytes: int, conversation_len: int) -> dict[str, float]:
    export, db = folder / "export.json", folder / f"{conversation_len}.db"
    write_export(export, num_nodes, num_bytes, conversation_len)
    first = treechat("import", "--json", "--db", str(db), str(export))
    again = treechat("import", "--json", "--db", str(db), str(export))
    counts = [json.loads(run.output)["nodes"] for run in (first, again)]
    assert counts == [num_nodes, 0], f"{counts} nodes were imported, expected {num_nodes} and 0"
    return {
        "export_mb": round(export.stat().st_size / 1e6, 1),
        "nodes": num_nodes,
        "nodes_per_s": round(num_nodes / first.wall_s),
        "nodes_per_cpu_s": round(num_nodes / first.cpu_s),
        "peak_mb": round(first.peak_mb, 1),
        "again_s": round(again.wall_s, 2),
        "again_peak_mb": round(again.peak_mb, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--deep", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="treechat-bench-") as name:
        folder = Path(name)
        broad = measure_import(folder, options.nodes, options.megabytes * 1_000_000, CONVERSATION_LEN)
        deep = measure_import(folder, options.deep, options.deep * 450, options.deep)
        db = folder / f"{options.deep}.db"
        out = treechat("export", "--db", str(db), "-o", str(folder / "deep.jsonl"))
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
    deep |= {"export_s": round(out.wall_s, 2), "export_peak_mb": round(out.peak_mb, 1)}
    print(json.dumps({"machine": machine, "export": broad, "one_conversation": deep}, indent=2))


if __name__ == "__main__":
    main()
