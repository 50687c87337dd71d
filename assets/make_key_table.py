"""Write the table of all keys in README.md from the bindings. Run `python assets/make_key_table.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "engine"), str(ROOT / "kernels")]

from treechat.tui.bindings import COUNT_KEYS, SECTIONS, KeyBinding  # noqa: E402
from treechat.tui.screens.help import key_labels  # noqa: E402

BEGIN, END = "<!-- keys: made by assets/make_key_table.py -->", "<!-- end of keys -->"


def table() -> str:
    """A Markdown table with one row per binding and the sections in bold."""
    lines = ["| key | does | |", "| --- | --- | --- |"]
    for title, keys in SECTIONS.items():
        lines.append(f"| | **{title}** | |")
        lines.extend(row(key) for key in keys if key not in COUNT_KEYS[1:])
    return "\n".join(lines)


def row(key: KeyBinding) -> str:
    if key == COUNT_KEYS[0]:
        return "| `2` … `9` | Several replies | Then `r`: so many replies in one batch |"
    keys = " ".join(f"`{name}`" for name in key_labels(key.keys).split())
    return f"| {keys} | {key.title} | {key.tooltip} |"


def filled(readme: str) -> str:
    """The README text with the current table."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
