"""Render messages to strips, each folded part as one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from treechat.chat.session import Chat
from treechat.tui.safe_text import fit, one_line
from treechat.tui.transcript.markdown import MAX_CACHED, StripCache
from treechat.tui.transcript.message_parts import FoldedPart, MessagePart, may_have_parts, split_message, split_thoughts
from treechat.tui.transcript.streaming_reply import StreamingReply, word_count

INDENT = 2
"""Cells before the lines of an unfolded part."""


@dataclass(slots=True)
class _RenderedMessage:
    """One rendered message.

    text: the text that was rendered.
    parts: its text and folded parts, in order.
    strips: the lines.
    lines: index in `strips` of each folded part's line.
    """

    text: str
    parts: list[MessagePart]
    strips: list[Strip]
    lines: list[int]


class MessageCache(StripCache):
    """Cache rendered messages, and remember which of their folded parts are open."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, set[int]] = {}
        self._rendered: dict[str, _RenderedMessage] = {}
        self._inner = StripCache()
        self._line_style = self._rule_style = Style()

    def use(self, width: int, theme_name: str, colors: Mapping[str, str], is_dark: bool) -> bool:
        if not super().use(width, theme_name, colors, is_dark):
            return False
        self._inner.use(max(width - INDENT, 1), theme_name, colors, is_dark)
        self._rendered.clear()
        self._line_style = Style.parse(f"italic {colors.get('text-secondary', 'default')}")
        self._rule_style = Style.parse(colors.get("text-secondary", "default"))
        return True

    # Folded parts

    def parts(self, chat: Chat, node_id: str) -> list[MessagePart]:
        """Return the text and folded parts of a message, in order."""
        text = chat.text(node_id)
        rendered = self._rendered.get(node_id)
        if rendered is not None and rendered.text == text:
            return rendered.parts
        node = chat.tree[node_id]
        imported = chat.nodes.parts(node_id) if may_have_parts(text) else []
        parts = split_message(text, node.role == "assistant", imported)
        if parts == [text] and node.status != "complete" and chat.opens_with_thoughts(node_id):
            # The reply was cut off inside its thoughts, whose start tag is in the prompt.
            return [FoldedPart("thoughts", text, True)]
        return parts

    def toggle(self, chat: Chat, node_id: str, index: int | None = None) -> bool:
        """Open or fold one part of a message; None: all parts. Return whether the message has any."""
        num = sum(isinstance(part, FoldedPart) for part in self.parts(chat, node_id))
        num = num or chat.opens_with_thoughts(node_id)
        if not num:
            return False
        is_open = self._open.setdefault(node_id, set())
        if index is not None:
            is_open ^= {index}
        elif is_open:
            is_open.clear()
        else:
            is_open.update(range(num))
        self._rendered.pop(node_id, None)
        return True

    def visible_text(self, chat: Chat, node_id: str) -> str:
        """Return the text and the open parts of a message.

        Folded thoughts are omitted. Other folded parts are replaced by their title.
        """
        parts = self.parts(chat, node_id)
        if not any(isinstance(part, FoldedPart) for part in parts):
            return chat.text(node_id)
        is_open = self._open.get(node_id, set())
        index, texts = 0, []
        for part in parts:
            if isinstance(part, FoldedPart):
                closed = "" if part.title == "thoughts" else f"[{part.title}]"
                texts.append(part.text if index in is_open else closed)
                index += 1
            else:
                texts.append(part)
        return "\n\n".join(filter(None, texts))

    def fold_at(self, chat: Chat, node_id: str, line: int) -> int | None:
        """Return the index of the folded part that has this line of the body; None for other lines."""
        if node_id in chat.replies:
            return 0 if line == 0 else None
        rendered = self._rendered.get(node_id)
        return rendered.lines.index(line) if rendered is not None and line in rendered.lines else None

    # Strips

    def message(self, chat: Chat, node_id: str) -> list[Strip]:
        """Return the message as one or more strips of at most `width` cells."""
        text = chat.text(node_id)
        rendered = self._rendered.get(node_id)
        if rendered is None or rendered.text != text:
            is_reply = chat.tree[node_id].role == "assistant"
            parts = self.parts(chat, node_id)
            if any(isinstance(part, FoldedPart) for part in parts):
                rendered = self._compose(node_id, text, parts, is_reply)
            else:
                rendered = _RenderedMessage(text, parts, self.body(node_id, text, is_reply), [])
            self._rendered[node_id] = rendered
            if len(self._rendered) > MAX_CACHED:
                self._rendered.pop(next(iter(self._rendered)))
        return rendered.strips

    def estimate(self, text: str) -> int:
        thoughts = split_thoughts(text) if text[:1] in ("<", "[") else None
        return super().estimate(text) if thoughts is None else 2 + super().estimate(thoughts[1])

    def growing(self, chat: Chat, node_id: str) -> StreamingReply:
        """Return the rows of a streaming reply so far."""
        return StreamingReply(
            self.width,
            chat.text(node_id),
            is_open=bool(self._open.get(node_id)),
            begins_inside=chat.opens_with_thoughts(node_id),
        )

    def _compose(self, node_id: str, text: str, parts: list[MessagePart], is_reply: bool) -> _RenderedMessage:
        strips: list[Strip] = []
        lines: list[int] = []
        for number, part in enumerate(parts):
            if isinstance(part, FoldedPart):
                is_open = len(lines) in self._open.get(node_id, ())
                lines.append(len(strips))
                strips += self._folded_part(f"{node_id}/{number}", part, is_open)
            else:
                strips += [Strip([])] if strips else []
                strips += self.body(f"{node_id}/{number}", part, is_reply)
                strips += [Strip([])] if number < len(parts) - 1 else []
        return _RenderedMessage(text, parts, strips, lines)

    def _folded_part(self, key: str, part: FoldedPart, is_open: bool) -> list[Strip]:
        note = word_count(len(part.text.split())) if part.text.strip() else "text not kept"
        line = f"{'▾' if is_open else '▸'} {one_line(part.title)}, {note}"
        strips = [Strip([Segment(fit(line, self.width).rstrip(), self._line_style)])]
        if is_open and part.text.strip():
            rule = Segment("│ ", self._rule_style)
            strips += [Strip([rule, *strip]) for strip in self._inner.body(key, part.text, part.is_markdown)]
        return strips
