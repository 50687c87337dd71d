"""Measure the engine and its kernels on a GPU, against the machine's ceilings and against other implementations.

    python -m tests.bench.gpu [--json FILE] [--minutes 8] [--only kernels,decode,resume,swarm,others] [--models 0.5B,8B]

The kernels get two fifths of the time, and each model an equal share of the rest; the report ends with the seconds of
each part. Models have the shapes of real models, random weights and bfloat16. If only decoding is measured, the context
is filled with random keys and values. Times are medians of several runs in this process. Parts without time are skipped
and reported. `treechat bench` measures real models instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
import triton

from tests.bench import gpu_common, gpu_engine, gpu_kernels
from tests.bench.gpu_common import Ceilings, Report, ceilings
from tests.bench.gpu_models import SHAPES, build
from treechat_kernels.tiles import use_tiles

# Share of the time, most of it for choosing tiles and for compiling FlexAttention.
KERNELS_SHARE = 0.4
PARTS = ("kernels", "decode", "resume", "swarm", "others")
ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file, after each part")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--commit", default="", help="the commit, if this is not a checkout")
    args = parser.parse_args()
    machine = gpu_common.device_name()
    if machine is None:
        print("there is no CUDA device: run this on a machine that has one", file=sys.stderr)
        return 1
    # The engines use the tiles that the first part chose, so no engine measures them again.
    os.environ["TREECHAT_TUNE"] = "off"
    report = Report(args.json, time.monotonic() + 60 * args.minutes)
    limits = ceilings()
    report.head(
        {
            "machine": machine,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "transformers": transformers.__version__,
            "dtype": "bfloat16",
            "commit": args.commit or _commit(),
            "copy_gb_s": round(limits.bytes_per_s / 1e9),
            "bf16_tflop_s": round(limits.flop_per_s / 1e12),
        }
    )
    only = args.only.split(",")
    part_seconds: dict[str, float] = {}
    if "kernels" in only:
        with report.within(KERNELS_SHARE * report.left_s):
            for part in gpu_kernels.PARTS:
                part_seconds[f"kernels: {part.__name__}"] = _attempt(report, part, limits)
    names = [name for name in args.models.split(",") if name]
    for i, name in enumerate(names):
        if report.is_late:
            report.note(f"no time for {name}")
            continue
        with report.within(report.left_s / (len(names) - i)):
            model = build(SHAPES[name])
            for title in PARTS[1:]:
                part = getattr(gpu_engine, title)
                if title in only:
                    run = lambda r, c, part=part, name=name, model=model: part(r, c, name, model)  # noqa: E731
                    part_seconds[f"{name}: {title}"] = _attempt(report, run, limits)
            del model
            gpu_common.release()
    for title, seconds in part_seconds.items():
        report.row("seconds", of=title, s=seconds)
    report.write()
    return 0


def _attempt(report: Report, part: Callable[[Report, Ceilings], Any], limits: Ceilings) -> float:
    """Run a part and return its seconds. If it fails, the run continues without its figures."""
    begun = time.monotonic()
    try:
        with use_tiles(gpu_kernels.CHOSEN_TILES):
            part(report, limits)
    except Exception as error:  # noqa: BLE001 - whatever the error, the other parts can still be measured
        traceback.print_exc()
        report.note(f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    report.write()
    return time.monotonic() - begun


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
