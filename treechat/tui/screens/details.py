"""The origin of a message: model, sampling, seed, tokens and times."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from treechat.chat.kv.costs import Cost
from treechat.tree import Node, Turn
from treechat.tui.bindings import PAGE_BINDINGS
from treechat.tui.safe_text import one_line
from treechat.tui.screens.modal import Modal
from treechat.tui.transcript.captions import cost_caption

Facts = list[tuple[str, str]]


def facts_of(node: Node, turn: Turn | None, cost: Cost | None) -> Facts:
    """Return the known facts as (name, value) pairs."""
    facts = [("id", node.id), ("role", node.role), ("state", node.status)]
    if node.created_at:
        facts.append(("written", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(node.created_at))))
    if turn is not None:
        facts += _turn_facts(turn)
    if cost is not None:
        facts.append(("cost to continue", cost_caption(cost)))
    return facts


def _turn_facts(turn: Turn) -> Facts:
    facts = [("model", turn.model)]
    if turn.seed is not None:
        facts.append(("seed", str(turn.seed)))
    facts += [(name.replace("_", " "), f"{value}") for name, value in turn.sampling.items()]
    counts = {
        "prompt tokens": turn.prompt_tokens,
        "· reused": turn.cached_tokens,
        "· restored": turn.restored_tokens,
        "· computed": turn.computed_tokens,
        "reply tokens": turn.completion_tokens,
    }
    facts += [(name, f"{num:,}") for name, num in counts.items() if num is not None]
    times = {"waited": turn.queue_s, "first token after": turn.ttft_s, "whole reply in": turn.total_s}
    facts += [(name, f"{seconds:.3f} s") for name, seconds in times.items() if seconds is not None]
    if turn.tokens_per_s is not None:
        facts.append(("speed", f"{turn.tokens_per_s:.1f} tokens/s"))
    if turn.finish_reason is not None:
        facts.append(("ended by", turn.finish_reason))
    return facts


class DetailsScreen(Modal[None]):
    """The facts as a table."""

    BINDINGS = PAGE_BINDINGS

    def __init__(self, facts: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._facts = facts

    def compose(self) -> ComposeResult:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, value in self._facts:
            table.add_row(Text(name, style="bold"), Text(one_line(value)))
        with Vertical(classes="window") as window:
            window.border_title = "Details"
            window.border_subtitle = "esc closes"
            with VerticalScroll():
                yield Static(table)
