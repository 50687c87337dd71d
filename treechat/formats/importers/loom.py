"""Import basemode-loom's JSON: nodes of text, each of which continues its parent; the user wrote the roots.

The context of a tree, a system prompt, is a sibling of the root there and becomes the root's parent here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.importer import Importer
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.reading.records import read_records
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.sibling_order import OrderedForest, ordered_forest
from treechat.tree import ROLES, Role


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    nodes = value.get("nodes") if isinstance(value, dict) else None
    return isinstance(nodes, list) and any(
        isinstance(node, dict) and "parent_id" in node and {"tree_id", "root_id"} & set(node) for node in nodes
    )


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    for place, value in read_records(file, report):
        nodes: dict[str, dict[str, Any]] = {}
        for number, node in enumerate(list_of(dict_of(value).get("nodes")), 1):
            node_id = id_of(dict_of(node).get("id"))
            if node_id is None:
                report.drop(place, f"node {number} has no id")
            elif node_id in nodes:
                report.drop(place, f"node {node_id} occurs twice; the first one is kept")
            elif len(nodes) == MAX_NODES:
                report.fail(place, f"more than {MAX_NODES:,} nodes; the rest is left out")
                break
            else:
                nodes[node_id] = node
        if not nodes:
            report.drop(place, "it has no nodes")
            continue
        parents = {node_id: id_of(node.get("parent_id")) for node_id, node in nodes.items()}
        for node_id, node in nodes.items():
            context_id = id_of(node.get("context_id"))
            if parents[node_id] is None and context_id != node_id and _is_context(nodes.get(context_id or "", {})):
                parents[node_id] = context_id
        forest = ordered_forest(parents, {}, _branch_indices(nodes), report, place)
        trees: dict[str, list[str]] = {}
        for root_id in forest.children[None]:
            trees.setdefault(first_text(nodes[root_id], "tree_id", "root_id") or root_id, []).append(root_id)
        for tree_id, root_ids in trees.items():
            yield _tree(tree_id, root_ids, nodes, forest, place, report)


def _is_context(node: dict[str, Any]) -> bool:
    return node.get("kind") == "context"


def _branch_indices(nodes: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """Return the sort keys of siblings: older files number them, else None."""
    numbers = {node_id: node.get("branch_index") for node_id, node in nodes.items()}
    return {i: float(number) if type(number) is int and abs(number) < 2**31 else None for i, number in numbers.items()}


def _tree(
    tree_id: str,
    root_ids: list[str],
    nodes: dict[str, dict[str, Any]],
    forest: OrderedForest,
    place: str,
    report: ImportReport,
) -> Document:
    root = nodes.get(tree_id, nodes[root_ids[0]])
    title = first_text(dict_of(root.get("metadata")), "name", "title")
    draft = Draft("basemode-loom", tree_id, title, seconds(root.get("created_at")))
    stack = root_ids[::-1]
    while stack:
        node_id = stack.pop()
        node = nodes[node_id]
        metadata = dict_of(node.get("metadata"))
        model = first_text(node, "model") or None
        sampling = {key: node[key] for key in ("temperature", "max_tokens") if type(node.get(key)) in (int, float)}
        draft.add(
            node_id,
            forest.parents[node_id],
            _role(node, model),
            text_of(node.get("text")),
            seconds(node.get("created_at")),
            model=model,
            sampling=sampling,
            bookmarked=metadata.get("bookmarked") is True,
            meta={key: node.get(key) for key in ("kind", "strategy", "context_id", "metadata")},
        )
        stack.extend(reversed(forest.children.get(node_id, ())))
    draft.current = _last_checked_out(tree_id if tree_id in nodes else root_ids[0], nodes, forest)
    return draft.document(report, place)


def _role(node: dict[str, Any], model: str | None) -> Role:
    if _is_context(node):
        return "system"
    role_name = dict_of(node.get("metadata")).get("role")
    return next((role for role in ROLES if role == role_name), "assistant" if model else "user")


def _last_checked_out(root_id: str, nodes: dict[str, dict[str, Any]], forest: OrderedForest) -> str | None:
    """Return the last node along the checked-out children, None if there are none."""
    node_id = root_id
    while chosen := [i for i in forest.children.get(node_id, ()) if nodes[i].get("checked_out") in (True, 1)]:
        node_id = chosen[0]
    return None if node_id == root_id else node_id


IMPORTER = Importer("basemode-loom", "basemode-loom", recognises, read)
