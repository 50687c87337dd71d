"""Messages as strips with what stands beside their words folded to a line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from treechat.chat.session import Chat
from treechat.tui.safe_text import fit, one_line
from treechat.tui.transcript.markdown import KEPT, StripCache
from treechat.tui.transcript.message_parts import Aside, Piece, may_have_parts, pieces_of, split_thoughts
from treechat.tui.transcript.streaming_reply import GrowingReply, words

INDENT = 2
"""Cells before the lines of what is unfolded."""


@dataclass(slots=True)
class _Folded:
    """One message, drawn. lines: of its fold lines, in order."""

    text: str
    pieces: list[Piece]
    strips: list[Strip]
    lines: list[int]


class Bodies(StripCache):
    """Bodies of messages. Which asides are open is kept for as long as the window is."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, set[int]] = {}
        self._folded: dict[str, _Folded] = {}
        self._inner = StripCache()
        self._line_style = self._rule_style = Style()

    def use(self, width: int, theme_name: str, colors: Mapping[str, str], is_dark: bool) -> bool:
        if not super().use(width, theme_name, colors, is_dark):
            return False
        self._inner.use(max(width - INDENT, 1), theme_name, colors, is_dark)
        self._folded.clear()
        self._line_style = Style.parse(f"italic {colors.get('text-secondary', 'default')}")
        self._rule_style = Style.parse(colors.get("text-secondary", "default"))
        return True

    # What is folded

    def pieces(self, chat: Chat, node_id: str) -> list[Piece]:
        """A message in its order: words, and what is folded."""
        text = chat.text(node_id)
        folded = self._folded.get(node_id)
        if folded is not None and folded.text == text:
            return folded.pieces
        node = chat.tree[node_id]
        parts = chat.nodes.parts(node_id) if may_have_parts(text) else []
        pieces = pieces_of(text, node.role == "assistant", parts)
        if pieces == [text] and node.status != "complete" and chat.opens_with_thoughts(node_id):
            # It was cut off before the end of its thoughts, which began in the prompt.
            return [Aside("thoughts", text, True)]
        return pieces

    def toggle(self, chat: Chat, node_id: str, index: int | None = None) -> bool:
        """Open or fold one aside, all of them for None; whether the message has any."""
        num = sum(isinstance(piece, Aside) for piece in self.pieces(chat, node_id))
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
        self._folded.pop(node_id, None)
        return True

    def visible_text(self, chat: Chat, node_id: str) -> str:
        """The words of a message, and what is unfolded of the rest; of what is folded, thoughts are left out whole."""
        pieces = self.pieces(chat, node_id)
        asides = [piece for piece in pieces if isinstance(piece, Aside)]
        if not asides:
            return chat.text(node_id)
        is_open = self._open.get(node_id, set())
        index, texts = 0, []
        for piece in pieces:
            if isinstance(piece, Aside):
                closed = "" if piece.title == "thoughts" else f"[{piece.title}]"
                texts.append(piece.text if index in is_open else closed)
                index += 1
            else:
                texts.append(piece)
        return "\n\n".join(filter(None, texts))

    def fold_at(self, chat: Chat, node_id: str, line: int) -> int | None:
        """Which aside the line of the body folds or opens; None for any other line."""
        if node_id in chat.replies:
            return 0 if line == 0 else None
        folded = self._folded.get(node_id)
        return folded.lines.index(line) if folded is not None and line in folded.lines else None

    # Strips

    def message(self, chat: Chat, node_id: str) -> list[Strip]:
        """The message as strips of at most `width` cells; at least one."""
        text = chat.text(node_id)
        folded = self._folded.get(node_id)
        if folded is None or folded.text != text:
            is_reply = chat.tree[node_id].role == "assistant"
            pieces = self.pieces(chat, node_id)
            if any(isinstance(piece, Aside) for piece in pieces):
                folded = self._compose(node_id, text, pieces, is_reply)
            else:
                folded = _Folded(text, pieces, self.body(node_id, text, is_reply), [])
            self._folded[node_id] = folded
            if len(self._folded) > KEPT:
                self._folded.pop(next(iter(self._folded)))
        return folded.strips

    def estimate(self, text: str) -> int:
        thoughts = split_thoughts(text) if text[:1] in ("<", "[") else None
        return super().estimate(text) if thoughts is None else 2 + super().estimate(thoughts[1])

    def growing(self, chat: Chat, node_id: str) -> GrowingReply:
        """A reply's rows so far."""
        return GrowingReply(
            self.width,
            chat.text(node_id),
            is_open=bool(self._open.get(node_id)),
            begins_inside=chat.opens_with_thoughts(node_id),
        )

    def _compose(self, node_id: str, text: str, pieces: list[Piece], is_reply: bool) -> _Folded:
        strips: list[Strip] = []
        lines: list[int] = []
        for number, piece in enumerate(pieces):
            if isinstance(piece, Aside):
                is_open = len(lines) in self._open.get(node_id, ())
                lines.append(len(strips))
                strips += self._aside(f"{node_id}/{number}", piece, is_open)
            else:
                strips += [Strip([])] if strips else []
                strips += self.body(f"{node_id}/{number}", piece, is_reply)
                strips += [Strip([])] if number < len(pieces) - 1 else []
        return _Folded(text, pieces, strips, lines)

    def _aside(self, key: str, aside: Aside, is_open: bool) -> list[Strip]:
        note = words(len(aside.text.split())) if aside.text.strip() else "nothing kept of it"
        line = f"{'▾' if is_open else '▸'} {one_line(aside.title)}, {note}"
        strips = [Strip([Segment(fit(line, self.width).rstrip(), self._line_style)])]
        if is_open and aside.text.strip():
            rule = Segment("│ ", self._rule_style)
            strips += [Strip([rule, *strip]) for strip in self._inner.body(key, aside.text, aside.is_markdown)]
        return strips
