"""The tree as lines of text: the rows of the app's tree pane, each with an id."""

from __future__ import annotations

from collections.abc import Iterator

from treechat.cli.output import SHORT_LEN, one_line, pad, plural
from treechat.tree import Node, Tree
from treechat.tui.tree.rows import RowLayout, gutter

_FACTS_LEN = 34
"""Cells to the right of the text."""


def lines(tree: Tree, current_id: str | None, root_id: str | None, messages: bool, width: int) -> Iterator[str]:
    """One line per run (id of its last node, first message, length, position among siblings), or per message.

    tree: the tree.
    current_id: the node to mark as current.
    root_id: draw only this node and the nodes below it; None for all.
    messages: one line per message.
    width: columns; the gutter takes at most a third.
    """
    layout = RowLayout(tree, current_id, hoisted_id=root_id, expanded_ids=_AllIds())
    for row in layout.rows:
        nodes = [tree[node_id] for node_id in layout.nodes_of(row)]
        guides = gutter(row, width - SHORT_LEN - 2)
        place = f"{row.index}/{row.num_siblings}" if row.num_siblings > 1 else ""
        if not messages:
            facts = f"{plural(row.num_nodes, 'message'):>12}  {place:>5}  {_facts(nodes, current_id)}"
            yield _line(row.tip_id, guides, nodes[0].preview, facts, width)
            continue
        below = guides.replace("├─", "│ ").replace("└─", "  ")
        for i, node in enumerate(nodes):
            facts = f"{'' if i else place:>5}  {_facts([node], current_id)}"
            yield _line(node.id, below if i else guides, f"{node.role}: {node.preview}", facts, width)


class _AllIds(frozenset[str | None]):
    """A set that contains each id: all forks are expanded."""

    def __contains__(self, _: object) -> bool:
        return True


def _facts(nodes: list[Node], current_id: str | None) -> str:
    """The status of the last node if it is not complete, and the labels, bookmark and current mark of all."""
    facts: list[str] = [nodes[-1].status] if nodes[-1].status != "complete" else []
    facts += [f"“{one_line(node.label)}”" for node in nodes if node.label]
    facts += ["★"] if any(node.bookmarked for node in nodes) else []
    return "  ".join(facts + (["← here"] if any(node.id == current_id for node in nodes) else []))


def _line(node_id: str, guides: str, text: str, facts: str, width: int) -> str:
    room = max(width - SHORT_LEN - 2 - len(guides) - 2 - _FACTS_LEN, 10)
    mark = "●" if facts.endswith("← here") else "○"
    return f"{node_id[:SHORT_LEN]}  {guides}{mark} {pad(one_line(text) or '(empty)', room)} {facts}".rstrip()
