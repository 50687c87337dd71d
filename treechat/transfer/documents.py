"""Read conversations from the store as documents, the input of exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treechat.formats.document import Document, Message, Source
from treechat.store import Store


def document_of(
    store: Store, conversation_id: str, node_ids: Sequence[str] | None = None, tokens: bool = False
) -> Document:
    """Return a conversation as a document.

    store: the open database.
    conversation_id: the conversation.
    node_ids: the nodes of the document, parents first; None takes all visible nodes.
    tokens: include the spans.
    """
    tree = store.load_tree(conversation_id)
    # Read after the tree: loading the tree may move the current node to a visible one.
    conversation = store.conversation(conversation_id)
    ids = list(tree.walk()) if node_ids is None else list(node_ids)
    texts, turns, metas = store.texts(ids), store.turns(ids), store.metas(ids)
    spans = store.spans_of(ids) if tokens else {}
    messages = []
    for node_id in ids:
        node = tree[node_id]
        labels = (node.label,) if node.label is not None else ()
        found = tuple(spans.get(node_id, ()))
        messages.append(Message(node, texts[node_id], turns.get(node_id), found, labels, metas[node_id]))
    if conversation.current_id not in set(ids):
        conversation = replace(conversation, current_id=ids[-1] if node_ids and ids else None)
    source = store.source_of(conversation_id)
    return Document(conversation, messages, Source(*source) if source else None)


def subtree_of(store: Store, conversation_id: str, node_id: str, tokens: bool = False) -> Document:
    """Return a subtree as a document. Its node becomes a root.

    The span of that node continues the messages above it, so the document has no span for it; one is made from the
    text when it is needed.
    """
    tree = store.load_tree(conversation_id)
    document = document_of(store, conversation_id, list(tree.subtree(node_id)), tokens)
    root = document.messages[0]
    if root.node.parent_id is not None:
        document.messages[0] = replace(root, node=replace(root.node, parent_id=None), spans=())
    if document.conversation.current_id != store.conversation(conversation_id).current_id:
        conversation = replace(document.conversation, current_id=tree.leaf(node_id))
        document = replace(document, conversation=conversation)
    return document
