"""Convert token ids to text, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_MAX_HELD = 8


class Detokenizer:
    """Decode a growing list of ids piece by piece. The joined pieces are the text of all ids.

    A character may take several tokens, and a tokenizer may join words by context. So each piece is the difference of
    two decodings of a short window, and it is held back while it ends inside a character. The cost per token is
    constant.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], ids: Sequence[int] = ()) -> None:
        """Begin after `ids`, which yield no text.

        decode: returns the text of ids, without special tokens.
        ids: ids decoded before. If they end inside a character, `pending` is the text that `decode` gives for its
            part; the character is returned when it is complete.
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
        """Return the text that this token completes: often empty, or several characters."""
        self._ids.append(token_id)
        return self._take(final=False)

    def finish(self) -> str:
        """Return the text held back; U+FFFD replaces an incomplete character."""
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
