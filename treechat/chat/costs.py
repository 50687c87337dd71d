"""What resuming at a node would take, from where its path's KV is now."""

from __future__ import annotations

from collections.abc import Iterable

from treechat.chat.events import Cost
from treechat.chat.model import ChatModel
from treechat.chat.spans import SpanBook
from treechat.tree import Tree


def costs_of(model: ChatModel, spans: SpanBook, tree: Tree, node_ids: Iterable[str]) -> dict[str, Cost]:
    """The cost of each node. One residency lookup serves a node and all its ancestors among `node_ids`.

    The last sampled token of a reply has no KV until the next turn, so one missing token still counts as resident.
    """
    costs: dict[str, Cost] = {}
    rate = model.engine.stats().prefill_tokens_per_s
    # Deepest first: a path looked up once answers for every node on it.
    for path in sorted((tree.path(node_id) for node_id in set(node_ids)), key=len, reverse=True):
        if path[-1] in costs:
            continue
        ids, ends = spans.known_ids(path)
        residency = model.engine.residency(ids) if ids else None
        resident = residency.resident if residency else 0
        host = residency.host if residency else 0
        for node_id, end in zip(path, ends, strict=True):
            if node_id not in costs:
                reused = min(resident, end)
                restored = min(host, end - reused)
                computed = end - reused - restored
                costs[node_id] = Cost(reused, restored, computed, computed / rate if rate else None)
    return costs
