"""Special tokens in what people write: words of theirs, and never the control tokens of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Characters that no standard gives a meaning to, so that no template does.
_PRIVATE_USE = range(0xE000, 0xF900)


class UserSpecials:
    """The special tokens that stand in some texts, taken out before a chat template sees the texts, and put back after.

    A template's rendering then holds its own special tokens alone, whatever it does to the texts.
    """

    def __init__(self, specials: re.Pattern[str], texts: Sequence[str]) -> None:
        """specials: matches any special token, as one group."""
        self._specials = specials
        self._found = sorted({special for text in texts for special in specials.findall(text)})
        self._mark = ""
        if self._found:
            self._mark = next(c for c in map(chr, _PRIVATE_USE) if not any(c in text for text in texts))

    def __bool__(self) -> bool:
        return bool(self._found)

    def hide(self, text: str) -> str:
        """One of the texts, with a mark in place of each special token."""
        return self._specials.sub(lambda found: f"{self._mark}{self._found.index(found[1])}{self._mark}", text)

    def parts(self, rendered: str) -> list[tuple[str, bool]]:
        """A rendering of hidden texts in parts, as they were written; with each, whether somebody typed special tokens
        in it, which are to be read as text."""
        parts: list[tuple[str, bool]] = []
        for piece in self._specials.split(rendered):
            is_typed = self._mark in piece
            if parts and not is_typed and not parts[-1][1]:
                parts[-1] = (parts[-1][0] + piece, False)
            elif piece:
                parts.append((self._show(piece), is_typed))
        return parts

    def _show(self, piece: str) -> str:
        return re.sub(f"{self._mark}([0-9]+){self._mark}", lambda found: self._found[int(found[1])], piece)
