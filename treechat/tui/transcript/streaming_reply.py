"""A streaming reply: one line counts the words of its thoughts; the text after them follows below."""

from __future__ import annotations

from treechat.tree import THOUGHT_TAGS
from treechat.tui.safe_text import GrowingText, fit

_TAIL_LEN = 400
"""Characters kept of the thoughts' end, to show their last words."""


class StreamingReply:
    """Rows of at most `width` cells, like `GrowingText`; the cost of an append does not depend on the text so far.

    width: cells of a row.
    text: the text so far.
    is_open: show the whole thoughts below their line.
    begins_inside: the prompt has the thoughts' start tag.
    """

    def __init__(self, width: int, text: str = "", *, is_open: bool = False, begins_inside: bool = False) -> None:
        self.width = max(width, 1)
        self.is_open = is_open
        self.has_thoughts = False
        self._end = ""
        self._held = ""
        self._num_words = 0
        self._in_word = False
        self._tail = ""
        self._grown_text = GrowingText(self.width)
        self._has_begun = False
        if begins_inside:
            self._begin_thoughts("<think>")
        self.append(text)

    @property
    def rows(self) -> list[str]:
        return self._grown_text.rows

    def append(self, text: str) -> None:
        """Add text."""
        if self._has_begun:
            self._grown_text.append(text)
        elif self._end:
            self._think(text)
        elif self.has_thoughts:
            self._say(text)
        else:
            self._begin(self._held + text)

    def _begin(self, text: str) -> None:
        """Handle text that so far is at most the beginning of a start tag."""
        start = text.lstrip()
        tag = next((tag for tag in THOUGHT_TAGS if start.startswith(tag)), None)
        if tag is not None:
            self._begin_thoughts(tag)
            self._think(start.removeprefix(tag))
        elif any(tag.startswith(start) for tag in THOUGHT_TAGS):
            self._held = text
        else:
            self._say(text)

    def _begin_thoughts(self, tag: str) -> None:
        self.has_thoughts, self._held, self._end = True, "", THOUGHT_TAGS[tag]
        self._grown_text.rows[:] = ["", ""]
        self._head("thinking")

    def _think(self, text: str) -> None:
        thoughts, end, rest = (self._held + text).partition(self._end)
        # Hold back a suffix that may be the beginning of the end tag.
        held = 0 if end else max((i for i in range(len(self._end)) if thoughts.endswith(self._end[:i])), default=0)
        self._held = thoughts[len(thoughts) - held :]
        thoughts = thoughts[: len(thoughts) - held]
        thoughts = thoughts if self._num_words else thoughts.lstrip()
        self._count(thoughts)
        if self.is_open:
            self._grown_text.append(thoughts)
        else:
            self._tail = (self._tail + thoughts)[-_TAIL_LEN:]
            self.rows[1:] = [GrowingText(self.width, " ".join(self._tail.split())).rows[-1]]
        self._head("thoughts" if end else "thinking")
        if end:
            self._end_thoughts()
            self._say(rest)

    def _head(self, title: str) -> None:
        line = f"{'▾' if self.is_open else '▸'} {title}, {word_count(self._num_words)}"
        self.rows[0] = fit(line, self.width).rstrip()

    def _end_thoughts(self) -> None:
        self._held = self._end = ""
        if not self._num_words:
            self.rows[:] = [""]
        elif self.is_open:
            self._grown_text.append("\n\n" if self.rows[-1] else "\n")
        else:
            self.rows[1:] = ["", ""]

    def _say(self, text: str) -> None:
        """Add text after the thoughts, without the line ends between them."""
        text = text.lstrip() if self.has_thoughts else text
        self._has_begun = bool(text)
        self._held = ""
        self._grown_text.append(text)

    def _count(self, text: str) -> None:
        self._num_words += len(text.split()) - (self._in_word and bool(text) and not text[0].isspace())
        self._in_word = not text[-1].isspace() if text else self._in_word


def word_count(num: int) -> str:
    return f"{num:,} word{'s' if num != 1 else ''}"
