"""The paths whose KV is evicted last: the current one, protected and bookmarked nodes, visible nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from treechat.chat.kv.costs import with_ancestors
from treechat.chat.tokens.path_spans import SpanBook
from treechat.tree import Tree

MAX_PATHS = 64
"""The most paths to protect. Protecting more would favour none of them."""


class Protection:
    """The nodes to protect. Bookmarks are searched when `look` is called, not at each jump."""

    def __init__(self) -> None:
        self.chosen: dict[str, None] = {}
        """Ids of the nodes that the user protects, until the window closes."""
        self._visible_ids: list[str] = []
        self._bookmarks: list[str] = []

    def look(self, tree: Tree, visible_ids: Iterable[str] | None = None) -> None:
        """Read the bookmarks of the tree, and take the visible nodes if they are given."""
        self._bookmarks = [node.id for node in list(tree.nodes.values()) if node.bookmarked][-MAX_PATHS:]
        self._visible_ids = self._visible_ids if visible_ids is None else list(visible_ids)

    def paths(self, tree: Tree, spans: SpanBook, current_id: str | None) -> list[Sequence[int]]:
        """Return the token ids of the paths, the current one first. A path ends before a node without a span."""
        leaves = leaves_of(tree, [i for i in (*self.chosen, *self._bookmarks, *self._visible_ids) if i in tree])
        chosen = [*([] if current_id is None else [current_id]), *leaves][:MAX_PATHS]
        paths = [spans.known_ids(tree.path(node_id)) for node_id in chosen]
        return [ids for ids in paths if ids]


def leaves_of(tree: Tree, node_ids: Sequence[str]) -> list[str]:
    """Return the nodes that are ancestors of none of the others, in order, once each."""
    above = {tree[node_id].parent_id for node_id in with_ancestors(tree, node_ids)}
    return [node_id for node_id in dict.fromkeys(node_ids) if node_id not in above]
