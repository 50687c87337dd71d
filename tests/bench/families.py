"""Print the table of model families: each one's forward and comparison with transformers, or why it is refused.

    python -m tests.bench.families [NAME ...]

Models are tiny and random, on the CPU in float32; nothing is downloaded. `tests/engine/test_families.py` runs the
same checks.
"""

from __future__ import annotations

import argparse
import sys

import torch
import transformers

from tests.engine.families import SUPPORTED, Family, build
from tests.engine.prompt_walk import reference, start, walk
from tests.engine.refused_families import REFUSED
from treechat_engine import UnsupportedModelError


def row(family: Family) -> tuple[str, str, bool]:
    """Return the forward of a family, the result of its checks, and whether they all passed."""
    try:
        engine = start(build(family))
    except UnsupportedModelError as error:
        return "-", f"refused: {error.message}", True
    expect = reference(build(family))
    with engine:
        forward = engine.stats().forward
        steps = list(walk(engine, expect))
    wrong = [f"{step.name}: {step.wrong}" for step in steps if step.wrong]
    result = wrong[0] if wrong else f"{len(steps)} of {len(steps)} checks"
    return forward, result, not wrong


def main(names: list[str]) -> int:
    """Print the table. Return 1 if a reply differs or a family is wrongly supported or refused."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    families = SUPPORTED | {name: family for name, (family, _) in REFUSED.items()}
    all_pass = True
    print("| family | forward | checks |\n| --- | --- | --- |")
    for name in names or families:
        forward, result, passes = row(families[name])
        all_pass = all_pass and passes and (name in REFUSED) == (forward == "-")
        print(f"| {name} | {forward} | {result} |", flush=True)
    return 0 if all_pass else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="families; default: all")
    sys.exit(main(parser.parse_args().names))
