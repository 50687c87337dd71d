"""The slots by conversation and branch, and freeing the KV of a branch. Blocking: call it in a thread."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from treechat.chat.kv.costs import Cost, costs_of
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.path_spans import SpanBook
from treechat.store import Store
from treechat.tree import Tree
from treechat_engine import EngineStats


@dataclass(frozen=True, slots=True)
class TierCounts:
    """Numbers of tokens by where their KV is: in device memory, in host memory, nowhere."""

    device: int = 0
    host: int = 0
    cold: int = 0

    @property
    def total(self) -> int:
        return self.device + self.host + self.cold

    def __add__(self, other: TierCounts) -> TierCounts:
        return TierCounts(self.device + other.device, self.host + other.host, self.cold + other.cold)


@dataclass(frozen=True, slots=True)
class BranchUsage:
    """The tokens of one run.

    head_id: first node.
    tip_id: last node.
    num_nodes: number of nodes.
    depth: number of forks above.
    title: label or preview.
    counts: tokens of these nodes alone.
    """

    head_id: str
    tip_id: str
    num_nodes: int
    depth: int
    title: str
    counts: TierCounts


@dataclass(frozen=True, slots=True)
class ConversationUsage:
    """The tokens of one conversation.

    id: conversation id.
    title: conversation title.
    counts: tokens of all its nodes.
    branches: its runs in the order of the tree; empty if the conversation is cold.
    """

    id: str
    title: str
    counts: TierCounts
    branches: tuple[BranchUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotUsage:
    """The slots by conversation, for all conversations that have tokens for the model.

    stats: the engine's figures at the same time.
    conversations: those with the most tokens on the device first.
    num_other: slots of hidden branches, of other databases and of unfinished texts.
    """

    stats: EngineStats
    conversations: tuple[ConversationUsage, ...]
    num_other: int


def slot_usage_of(store: Store, model: ChatModel) -> SlotUsage:
    """Take a snapshot. A prefix that several conversations share counts for the last changed of them."""
    counts = store.token_counts(model.fingerprint)
    warm = _warm_ids(store, model)
    stats = model.engine.stats()
    usages: list[ConversationUsage] = []
    begun: set[tuple[int, ...]] = set()
    for info in store.conversations():
        if info.id in warm:
            usages.append(_usage_of(store, model, info.id, info.title, begun))
        elif info.id in counts:
            usages.append(ConversationUsage(info.id, info.title, TierCounts(cold=counts[info.id])))
    usages.sort(key=lambda usage: (-usage.counts.device, -usage.counts.host, -usage.counts.cold))
    used = stats.slots_total - stats.slots_free
    return SlotUsage(stats, tuple(usages), max(used - sum(usage.counts.device for usage in usages), 0))


def _warm_ids(store: Store, model: ChatModel) -> set[str]:
    """Return the conversations with more than a shared prefix cached: over half of a root or of a message below it."""
    rows = store.beginnings(model.fingerprint)
    index_of: dict[str | None, int] = {None: -1}
    spans: list[array[int]] = []
    parents: list[int] = []
    ends = {-1: 0}
    asked = []
    for conversation_id, node_id, parent_id, role, ids in rows:
        if parent_id not in index_of:
            continue
        parent, index = index_of[parent_id], len(spans)
        index_of[node_id] = index
        spans.append(array("q", ids))
        parents.append(parent)
        ends[index] = ends[parent] + len(ids)
        asked.append((conversation_id, role, ends[parent], len(ids)))
    found = model.engine.residencies_along(spans, parents)
    return {
        conversation_id
        for (conversation_id, role, start, size), residency in zip(asked, found, strict=True)
        if role != "system" and 2 * (residency.resident + residency.host - start) > size
    }


def _usage_of(
    store: Store, model: ChatModel, conversation_id: str, title: str, begun: set[tuple[int, ...]]
) -> ConversationUsage:
    tree = store.load_tree(conversation_id)
    spans = SpanBook(store, model.template)
    counts = own_counts(tree, costs_of(model, spans, tree, tree.walk()))
    _count_once(tree, spans, counts)
    for root_id, span in spans.known(tree.roots).items():
        if span.ids in begun:
            counts[root_id] = TierCounts()
        begun.add(span.ids)
    branches = []
    for run in tree.runs():
        ids = run.node_ids
        node = next((tree[i] for i in ids if tree[i].role != "system"), tree[ids[0]])
        label = next((tree[i].label for i in (ids[-1], ids[0]) if tree[i].label), None)
        own = sum((counts[i] for i in ids), TierCounts())
        branches.append(BranchUsage(ids[0], ids[-1], len(ids), run.depth, label or node.preview, own))
    return ConversationUsage(conversation_id, title, sum(counts.values(), TierCounts()), tuple(branches))


def _count_once(tree: Tree, spans: SpanBook, counts: dict[str, TierCounts]) -> None:
    """Count the slots of a prefix that siblings share for one of them only."""
    for parent_id in {tree[node_id].parent_id for node_id in counts}:
        children = tree.children(parent_id)
        if len(children) < 2:
            continue
        # In the order of their tokens, each sibling shares most with the previous one.
        ordered = sorted(spans.known_arrays(children).items(), key=lambda item: item[1])
        for (_, before), (node_id, ids) in pairwise(ordered):
            common, own = _num_common(before, ids), counts[node_id]
            on_host = max(common - own.device, 0)
            counts[node_id] = TierCounts(max(own.device - common, 0), max(own.host - on_host, 0), own.cold)


def _num_common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def own_counts(tree: Tree, costs: Mapping[str, Cost]) -> dict[str, TierCounts]:
    """Return the tokens of each node alone: the cost of resuming at it, less that of resuming at its parent."""
    none = Cost(0, 0, 0)
    counts = {}
    for node_id, cost in costs.items():
        above = costs.get(tree[node_id].parent_id or "", none)
        counts[node_id] = TierCounts(
            cost.reused - above.reused, cost.restored - above.restored, cost.computed - above.computed
        )
    return counts


def free(store: Store, model: ChatModel, conversation_id: str, head_id: str | None = None) -> int:
    """Drop the KV of a subtree. Prefixes shared with other branches or conversations or used by running replies stay.

    Returns the number of tokens that left the device.

    store: the open database.
    model: its engine holds the KV.
    conversation_id: the conversation.
    head_id: the root of the subtree; None takes the whole conversation.
    """
    tree = store.load_tree(conversation_id)
    spans = SpanBook(store, model.template)
    heads = tree.children(None, hidden=True) if head_id is None else [head_id]
    num_freed = 0
    for head in heads:
        nodes = list(tree.subtree(head, hidden=True))
        counts = own_counts(tree, costs_of(model, spans, tree, nodes))
        cached = {i for i in nodes if counts[i].device or counts[i].host}
        above = {tree[i].parent_id for i in cached}
        start = len(spans.known_ids(tree.path(tree[head].parent_id)))
        # From the leaves: the prefix that several leaves share goes with the last of them.
        for node_id in cached - above:
            num_freed += model.engine.free(spans.known_ids(tree.path(node_id)), start)
    return num_freed
