"""Text from outside is data: control characters are shown, never sent to the terminal. And wrapping that can go on."""

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
    """`text` with line ends as newlines, and each character that steers a terminal replaced by a visible one.

    ESC becomes ␛, C1 and direction overrides become their code in ‹›, lone surrogates �. Newlines and tabs stay.
    """
    return _SHOWN.sub(_show, text.replace("\r\n", "\n"))


def as_input(text: str) -> str:
    """`shown` for a text field, which draws control characters as they are. Terminals paste line ends as returns."""
    return escape_controls(text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """`shown` on one line, white space folded."""
    return " ".join(escape_controls(text).split())


def without_markdown(text: str) -> str:
    """`one_line` without the signs of Markdown that a row has no use for: of emphasis, code, headings, links."""
    return " ".join(_MARKDOWN.sub("", _LINK.sub(r"\1", one_line(text))).split())


def fit(text: str, width: int) -> str:
    """`text` cut with `…` or padded to exactly `width` cells."""
    if width <= 0:
        return ""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)


def wrap(line: str, width: int) -> list[str]:
    """One logical line (no newline in it) as rows of at most `width` cells, broken at spaces where there are any.

    Spaces at a break hang over the end of their row. Greedy, so that all rows but the last stay as they are when the
    line grows at its end.
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
    """`word` in pieces of at most `width` cells, of at least one character, in time in proportion to its length."""
    if word.isascii():
        return [word[first : first + width] for first in range(0, len(word), width)]
    pieces, first, used = [], 0, 0
    for index, char in enumerate(word):
        char_len = cell_len(char)
        if used + char_len > width and index > first:
            pieces.append(word[first:index])
            first, used = index, 0
        used += char_len
    return [*pieces, word[first:]]


class GrowingText:
    """Plain text wrapped to a width that grows at its end: what an append costs does not depend on what is there."""

    def __init__(self, width: int, text: str = "") -> None:
        self.width = max(width, 1)
        self.rows: list[str] = [""]
        self.append(text)

    def append(self, text: str) -> int:
        """Add text, return the index of the first row that changed."""
        first = len(self.rows) - 1
        if not text:
            return first
        lines = (self.rows.pop() + escape_controls(text)).split("\n")
        for line in lines:
            self.rows.extend(wrap(line, self.width))
        return first
