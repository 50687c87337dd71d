"""What goes to standard output and standard error. Data to the first, narration to the second."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click


def say(text: str) -> None:
    """Narration."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """One JSON document and nothing else."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_text(text: str, end: str = "\n") -> None:
    """Text from outside: on a terminal each control character is shown, not sent; in a pipe it stays as it is."""
    if sys.stdout.isatty():
        from treechat.tui.safe_text import escape_controls

        text = escape_controls(text)
    # Without `color` click would take escapes out of what is data here.
    click.echo(text + end, nl=False, color=True)


def one_line(text: str) -> str:
    """Text from outside on one line, with each control character shown."""
    from treechat.tui.safe_text import one_line as shown_line

    return shown_line(text)


def cut(text: str, width: int) -> str:
    """At most `width` cells of `text`, the last one `…` where something was cut."""
    from treechat.tui.safe_text import fit

    return fit(text, width).rstrip()


def pad(text: str, width: int) -> str:
    """`text` cut or filled to exactly `width` cells."""
    from treechat.tui.safe_text import fit

    return fit(text, width)


def terminal_width() -> int:
    """Columns to draw into; plenty where nobody looks."""
    if not sys.stdout.isatty():
        return 120
    from shutil import get_terminal_size

    return get_terminal_size().columns


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def when(seconds: float) -> str:
    """A local time, to the minute."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def size(num_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned by width, numbers to the right; one line per row, without a line end at the end."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
