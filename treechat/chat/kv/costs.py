"""The cost of resuming at a node: where the KV of its path is now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.path_spans import SpanBook
from treechat.tree import Tree
from treechat_engine import Residency


@dataclass(frozen=True, slots=True)
class Cost:
    """What resuming at a node takes.

    reused: tokens with KV in device memory.
    restored: tokens with KV in host memory.
    computed: tokens to prefill.
    seconds: estimated time of the prefill; None if the rate is unknown.
    """

    reused: int
    restored: int
    computed: int
    seconds: float | None = None

    @property
    def mark(self) -> str:
        """`●` resident, `◐` partly resident or in host memory, `○` cold."""
        if self.computed <= 1 and not self.restored:
            return "●"
        return "◐" if self.reused > 0 or self.restored else "○"


def costs_of(model: ChatModel, spans: SpanBook, tree: Tree, node_ids: Iterable[str]) -> dict[str, Cost]:
    """Return the cost of each node and of its ancestors. The engine looks up each span once, after that of its parent.

    The last sampled token of a reply has no KV until the next turn, so one missing token still counts as resident.

    model: its engine is asked.
    spans: the spans for this model.
    tree: the tree of the nodes.
    node_ids: the nodes.
    """
    nodes = with_ancestors(tree, node_ids)
    ids = spans.known_arrays(nodes)
    estimates = spans.estimated_lens([node_id for node_id in nodes if node_id not in ids])
    # Below a node without a span nothing is cached: such a node takes the row of the last ancestor with a span.
    row_of: dict[str | None, int] = {None: -1}
    is_whole: dict[str | None, bool] = {None: True}
    looked_up: list[Sequence[int]] = []
    parents: list[int] = []
    for node_id in nodes:
        above = tree[node_id].parent_id
        row_of[node_id], is_whole[node_id] = row_of[above], is_whole[above] and node_id in ids
        if is_whole[node_id]:
            row_of[node_id] = len(looked_up)
            looked_up.append(ids[node_id])
            parents.append(row_of[above])
    found = [*model.engine.residencies_along(looked_up, parents), Residency()]
    rate = model.engine.stats().prefill_tokens_per_s
    ends: dict[str | None, int] = {None: 0}
    costs: dict[str, Cost] = {}
    for node_id in nodes:
        size = len(ids[node_id]) if node_id in ids else estimates[node_id]
        ends[node_id] = end = ends[tree[node_id].parent_id] + size
        residency = found[row_of[node_id]]
        computed = end - residency.resident - residency.host
        costs[node_id] = Cost(residency.resident, residency.host, computed, computed / rate if rate else None)
    return costs


def with_ancestors(tree: Tree, node_ids: Iterable[str]) -> list[str]:
    """Return the nodes and their ancestors, once each, parents before children."""
    found: dict[str, None] = {}
    for node_id in node_ids:
        above: list[str] = []
        current: str | None = node_id
        while current is not None and current not in found:
            above.append(current)
            current = tree[current].parent_id
        found.update(dict.fromkeys(reversed(above)))
    return list(found)
