"""Write the performance tables of README.md. Run `python assets/make_figures.py`.

The tables come from the committed outputs of `treechat bench --json` and `python -m tests.bench.gpu --json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tests" / "bench" / "results"
CPU, GPU = "bench-epyc-2-cores-9e0b8e7103.json", "gpu-h100-3ed12735bd.json"
BEGIN, END = "<!-- figures: made by assets/make_figures.py -->", "<!-- end of figures -->"


def figures() -> str:
    """Two Markdown tables, each under a line with model, machine and commit."""
    return f"{_cpu(json.loads((RESULTS / CPU).read_text()))}\n\n{_gpu(json.loads((RESULTS / GPU).read_text()))}"


def _cpu(found: dict[str, Any]) -> str:
    lines = [
        f"The default model, {found['dtype']}, {found['machine']} (`treechat bench`, commit {found['commit']}):",
        "",
        "| | tokens | computed | treechat | compared with | speedup |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title, rows in (("jump back to a branch", found["jump"]), ("fork", found["fork"])):
        for row in rows:
            tokens = row["prefix_tokens"] + row["branch_tokens"]
            lines.append(
                f"| {title}, {row['new_tokens']} new | {tokens:,} | {row['computed_tokens']} | {row['ttft_s']:.2f} s "
                f"| {row['full_prefill_s']:.1f} s (full prefill) | {row['speedup']:.0f}x |"
            )
    for row in found["decode"]:
        ours, theirs = row["tokens_per_s"], row["generate_tokens_per_s"]
        lines.append(
            f"| decode, batch {row['batch']} | {row['context_tokens']:,} | | {ours:.1f} tokens/s "
            f"| {theirs:.1f} tokens/s (generate of transformers) | {ours / theirs:.2f}x |"
        )
    return "\n".join(lines)


def _gpu(found: dict[str, Any]) -> str:
    lines = [
        f"Random weights of real shapes, {found['dtype']}, {found['machine']}, copy bandwidth "
        f"{found['copy_gb_s']:,} GB/s (`python -m tests.bench.gpu`, commit {found['commit']}):",
        "",
        "| model | decode at 8,192 tokens, tokens/s | share of the bandwidth limit | generate, static cache "
        "| jump at 32,768 | full prefill | 5 agents on 6,000 shared tokens |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("0.5B", "4B", "8B"):
        decode, generate = (_row(found[part], name, batch=1, context=8192) for part in ("decode", "generate"))
        resume, swarm = _row(found["resume"], name, tokens=32768), _row(found["swarm"], name)
        times = swarm["shared_tokens_per_s"] / swarm["separate_tokens_per_s"]
        lines.append(
            f"| {name} | {decode['tokens_per_s']:,.0f} | {decode['of_bandwidth']:.0%} "
            f"| {generate['generate_static']:.0f} | {resume['jump_ms']:.0f} ms | {resume['full_ms']:,.0f} ms "
            f"| {swarm['shared_slots']:,} slots instead of {swarm['separate_slots']:,}, {times:.1f}x the tokens/s |"
        )
    return "\n".join(lines)


def _row(rows: list[dict[str, Any]], model: str, **values: Any) -> dict[str, Any]:
    return next(row for row in rows if row["model"] == model and all(row[key] == v for key, v in values.items()))


def filled(readme: str) -> str:
    """The README text with current tables."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
