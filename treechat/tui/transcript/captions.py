"""Short texts: beside a message's name, below a reply, and in the status line."""

from __future__ import annotations

from treechat.chat.kv.costs import Cost
from treechat.chat.session import Chat
from treechat.tree import Node, Turn
from treechat.tui.safe_text import one_line


def header_notes(chat: Chat, node_id: str) -> tuple[str, str]:
    """Return (label and bookmark, for the left; sibling number, for the right)."""
    node = chat.tree[node_id]
    label = f"  {one_line(node.label)}" if node.label else ""
    star = "  ★" if node.bookmarked else ""
    siblings = chat.tree.siblings(node_id)
    # A node that another window has just hidden is not among its siblings.
    fork = f"⋔ {siblings.index(node_id) + 1}/{len(siblings)}" if len(siblings) > 1 and node_id in siblings else ""
    return label + star, fork


_ENDINGS = {
    "stopped": "stopped · c continues",
    "interrupted": "interrupted · c continues",
    "failed": "failed · r tries again",
}


def ending_caption(node: Node, turn: Turn | None) -> str:
    """Return why a reply is incomplete and the key to press; "" for a complete reply."""
    if turn is not None and turn.finish_reason == "length":
        return "cut off at max tokens · c continues"
    return _ENDINGS.get(node.status, "")


def turn_caption(turn: Turn) -> str:
    """Return `reused 1,234 · computed 12 · first token 0.08 s · 24 tok/s`, without unknown parts."""
    parts = []
    reused = (turn.cached_tokens or 0) + (turn.restored_tokens or 0)
    if turn.prompt_tokens:
        parts.append(f"reused {reused:,} · computed {turn.computed_tokens or 0:,}")
    if turn.ttft_s:
        parts.append(f"first token {turn.ttft_s:.2f} s")
    if turn.tokens_per_s:
        parts.append(format_speed(turn.tokens_per_s))
    return " · ".join(parts)


def format_speed(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.1f} tok/s" if tokens_per_s < 100 else f"{tokens_per_s:,.0f} tok/s"


def cost_caption(cost: Cost) -> str:
    """Return `reuse 1,234 · compute 12`, and the estimated wait from 0.05 s on."""
    restored = f" · restore {cost.restored:,}" if cost.restored else ""
    wait = f" · ~{cost.seconds:.1f} s" if cost.seconds and cost.seconds >= 0.05 else ""
    return f"{cost.mark} reuse {cost.reused:,}{restored} · compute {cost.computed:,}{wait}"
