"""Write to standard output (data) and standard error (notes)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

SHORT_LEN = 8
"""Characters of an id that are printed."""


def say(text: str) -> None:
    """Print a note on standard error."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_text(text: str, end: str = "\n") -> None:
    """Print untrusted text. A terminal gets visible symbols for control characters; a pipe gets the text unchanged."""
    if sys.stdout.isatty():
        from treechat.tui.safe_text import escape_controls

        text = escape_controls(text)
    # Without `color`, click removes escape sequences, which are data here.
    click.echo(text + end, nl=False, color=True)


def one_line(text: str) -> str:
    """Untrusted text on one line, with visible symbols for control characters."""
    from treechat.tui import safe_text

    return safe_text.one_line(text)


def cut(text: str, width: int) -> str:
    """At most `width` cells of `text`; if it was cut, the last one is `…`."""
    from treechat.tui.safe_text import fit

    return fit(text, width).rstrip()


def pad(text: str, width: int) -> str:
    """`text` cut or filled to exactly `width` cells."""
    from treechat.tui.safe_text import fit

    return fit(text, width)


def terminal_width() -> int:
    """Columns of the terminal; 120 without one."""
    if not sys.stdout.isatty():
        return 120
    from shutil import get_terminal_size

    return get_terminal_size().columns


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def when(seconds: float) -> str:
    """A local time, to the minute. seconds: since the epoch."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def size(num_bytes: float) -> str:
    """A number of bytes with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with aligned columns, numbers to the right. No line end at the end."""
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
