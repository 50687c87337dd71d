"""Make text from outside safe to draw, and wrap and cut text. Control characters never reach the terminal."""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

_SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
)
_WORDS = re.compile(r"\s+|\S+")
_LINK = re.compile(r"!?\[([^\]\[]{0,300})\]\([^)\s]{0,300}\)")
_MARKDOWN = re.compile(r"`+|~{3,}|(?<![\w*])\*+(?=[^\s*])|(?<=[^\s*])\*+(?![\w*])|(?:^|(?<=\s))#{1,6} ")
TAB_LEN = 4


def _show(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return "�" if 0xD800 <= code <= 0xDFFF else f"‹{code:02x}›"


def escape_controls(text: str) -> str:
    """Replace each control character by a visible one, and CR LF by a newline.

    ESC becomes ␛. C1 controls and direction overrides become their code in ‹›. Lone surrogates become �. Newlines and
    tabs stay.
    """
    return _SHOWN.sub(_show, text.replace("\r\n", "\n"))


def as_input(text: str) -> str:
    """`escape_controls` for a text field, which would draw them raw. Each CR becomes a newline: terminals paste CR."""
    return escape_controls(text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """`escape_controls` on one line: each run of white space becomes one space."""
    return " ".join(escape_controls(text).split())


def without_markdown(text: str) -> str:
    """`one_line` without the Markdown markers of emphasis, code, headings and links."""
    return " ".join(_MARKDOWN.sub("", _LINK.sub(r"\1", one_line(text))).split())


def fit(text: str, width: int) -> str:
    """Cut `text` with `…`, or pad it, to exactly `width` cells."""
    if width <= 0:
        return ""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)


def wrap(line: str, width: int) -> list[str]:
    """Break one line (without a newline) into rows of at most `width` cells, at spaces if possible.

    Spaces at a break extend past the end of their row. Wrapping is greedy: if the line grows at its end, only the last
    row changes.
    """
    line = line.expandtabs(TAB_LEN)
    if cell_len(line) <= width:
        return [line]
    rows: list[str] = []
    row, row_len = "", 0
    for word in _WORDS.findall(line):
        if not word.isspace():
            word_len = cell_len(word)
            if row and row_len + word_len > width:
                rows.append(row)
                row, row_len = "", 0
            if word_len > width:
                *heads, word = _cut(word, width)
                rows.extend(heads)
                word_len = cell_len(word)
        row += word
        row_len += cell_len(word)
    rows.append(row)
    return rows


def _cut(word: str, width: int) -> list[str]:
    """Cut `word` into parts of at most `width` cells, at least one character each. Takes time linear in its length."""
    if word.isascii():
        return [word[first : first + width] for first in range(0, len(word), width)]
    parts, first, used = [], 0, 0
    for index, char in enumerate(word):
        char_len = cell_len(char)
        if used + char_len > width and index > first:
            parts.append(word[first:index])
            first, used = index, 0
        used += char_len
    return [*parts, word[first:]]


class GrowingText:
    """Plain text that grows at its end, wrapped. The cost of an append does not depend on the text so far."""

    def __init__(self, width: int, text: str = "") -> None:
        self.width = max(width, 1)
        self.rows: list[str] = [""]
        self.append(text)

    def append(self, text: str) -> int:
        """Add text at the end and return the index of the first changed row."""
        first = len(self.rows) - 1
        if not text:
            return first
        lines = (self.rows.pop() + escape_controls(text)).split("\n")
        for line in lines:
            self.rows.extend(wrap(line, self.width))
        return first
