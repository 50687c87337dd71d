"""Token ids to text, as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_MAX_HELD = 8


class Detokenizer:
    """Decodes a growing list of ids piece by piece; the pieces joined are the text of all ids.

    A character may take several tokens and a tokenizer may join words by context, so each piece is the difference of
    two decodings of a short window, and is held back while it ends inside a character. Cost per token does not grow.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], ids: Sequence[int] = ()) -> None:
        """`decode` turns ids into text without special tokens; `ids` were decoded before and yield nothing.

        Where they end inside a character, `pending` is what stands for it: it yields when it is complete.
        """
        self._decode = decode
        self._ids = list(ids)
        self._start = max(0, len(self._ids) - _MAX_HELD)
        self._end = len(self._ids)
        whole = decode(self._ids[self._start :])
        while self._end > self._start and decode(self._ids[self._start : self._end]).endswith(_REPLACEMENT):
            self._end -= 1
        if self._end == self._start:
            self._end = len(self._ids)
        self.pending = whole[len(decode(self._ids[self._start : self._end])) :]

    def add(self, token_id: int) -> str:
        """The text that this token completes, often empty or of several characters."""
        self._ids.append(token_id)
        return self._take(final=False)

    def finish(self) -> str:
        """What is still held back, an incomplete character replaced by U+FFFD."""
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        before = self._decode(self._ids[self._start : self._end])
        after = self._decode(self._ids[self._start :])
        held = len(self._ids) - self._end
        if not final and held < _MAX_HELD and after.endswith(_REPLACEMENT):
            return ""
        if len(after) <= len(before):
            return ""
        self._start, self._end = self._end, len(self._ids)
        return after[len(before) :]
