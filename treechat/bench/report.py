"""Lay out the results as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Figures = dict[str, Any]

_RESUME_HEADER = ("prefix", "branch", "new", "computed", "first token s", "full prefill s", "faster")


def lines(result: Figures, table: Callable[[Sequence[str], list[list[str]]], str]) -> list[str]:
    """Return a header and one table per part. `table` lays out a header and rows of cells."""
    out = [f"{result['model']}, {result['dtype']}, commit {result['commit']}", result["machine"]]
    for title, part in (("jump back to a branch", "jump"), ("fork", "fork")):
        if result[part]:
            out += ["", title, table(_RESUME_HEADER, [_resume_cells(row) for row in result[part]])]
    if result["fan_out"]:
        header = ("replies", "prefix", "tokens/s", "slots", "unshared")
        out += ["", "sibling replies", table(header, [_fan_out_cells(row) for row in result["fan_out"]])]
    if result["decode"]:
        header = ("batch", "context", "tokens/s", "generate", "ratio")
        out += [
            "",
            "decode, against transformers' generate",
            table(header, [_decode_cells(row) for row in result["decode"]]),
        ]
    return out


def _resume_cells(row: Figures) -> list[str]:
    counts = [f"{row[key]:,}" for key in ("prefix_tokens", "branch_tokens", "new_tokens", "computed_tokens")]
    return [*counts, f"{row['ttft_s']:.3f}", f"{row['full_prefill_s']:.2f}", f"{row['speedup']:.0f}x"]


def _fan_out_cells(row: Figures) -> list[str]:
    slots = [f"{row[key]:,}" for key in ("slots", "slots_unshared")]
    return [f"{row['siblings']}", f"{row['prefix_tokens']:,}", f"{row['tokens_per_s']:.1f}", *slots]


def _decode_cells(row: Figures) -> list[str]:
    ours, theirs = row["tokens_per_s"], row["generate_tokens_per_s"]
    return [f"{row['batch']}", f"{row['context_tokens']:,}", f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}x"]
