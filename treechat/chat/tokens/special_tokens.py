"""Special tokens in the users' texts: they are text, never the control tokens of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

# The private use area of Unicode: no template gives these characters a meaning.
_PRIVATE_USE = range(0xE000, 0xF900)


class UserSpecials:
    """Replace the special tokens in texts before a chat template renders the texts, and restore them afterwards.

    The rendering then contains only the template's own special tokens, whatever the template does to the texts.
    """

    def __init__(self, specials: re.Pattern[str], texts: Sequence[str]) -> None:
        """Find the special tokens in `texts`. specials: matches any special token, as one group."""
        self._specials = specials
        self._found = sorted({special for text in texts for special in specials.findall(text)})
        self._mark = ""
        if self._found:
            self._mark = next(c for c in map(chr, _PRIVATE_USE) if not any(c in text for text in texts))

    def __bool__(self) -> bool:
        return bool(self._found)

    def hide(self, text: str) -> str:
        """Return one of the texts with a mark in place of each special token."""
        return self._specials.sub(lambda found: f"{self._mark}{self._found.index(found[1])}{self._mark}", text)

    def parts(self, rendered: str) -> list[tuple[str, bool]]:
        """Split a rendering of hidden texts into parts with the original special tokens.

        The flag of a part is True if it contains special tokens of the user, which are encoded as text.
        """
        parts: list[tuple[str, bool]] = []
        for piece in self._specials.split(rendered):
            is_special = self._mark in piece
            if parts and not is_special and not parts[-1][1]:
                parts[-1] = (parts[-1][0] + piece, False)
            elif piece:
                parts.append((self._show(piece), is_special))
        return parts

    def _show(self, piece: str) -> str:
        return re.sub(f"{self._mark}([0-9]+){self._mark}", lambda found: self._found[int(found[1])], piece)
