"""Move a branch to another place in its tree: copy it (graft), or send the user's messages again there (rebase)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from treechat.chat.event_queue import EventQueue
from treechat.chat.events import ChatEvent, ReplayProgress
from treechat.chat.session import Chat
from treechat.errors import UsageError
from treechat.store import NewNode
from treechat.store.values import new_id
from treechat.tree import Node, Role

_ABOVE: dict[Role, tuple[Role | None, ...]] = {
    "system": (None, "system"),
    "user": (None, "system", "assistant"),
    "assistant": ("user",),
}
"""The roles allowed above a message of each role; None: it is a root."""


def fits_under(chat: Chat, role: Role, target_id: str | None, is_text: bool = False) -> bool:
    """Whether a message of that role may be below the target (None: a root). is_text: the tree has no turns."""
    if target_id is None:
        return is_text or None in _ABOVE[role]
    if target_id not in chat.tree or target_id in chat.replies or chat.tree.is_hidden(target_id):
        return False
    return is_text or chat.tree[target_id].role in _ABOVE[role]


def graft(chat: Chat, node_id: str, target_id: str | None) -> Node:
    """Copy a message and its visible descendants below another node; returns the copy, which becomes current.

    Texts, turns and sampled ids are copied. Probabilities are not, since they are those of another path. One undo
    removes the whole copy. Raises UsageError if a reply in the branch is generated now, or if the branch cannot follow
    the target.
    """
    _check(chat, node_id, target_id)
    ids = list(chat.tree.subtree(node_id))
    if any(i in chat.replies for i in ids):
        raise UsageError("A reply is being written in this branch", "Stop it first (esc).")
    assert chat.conversation_id is not None, "a node without a conversation"
    new_ids = {old: new_id() for old in ids}
    texts, turns = chat.store.texts(ids), chat.store.turns(ids)
    rows = [
        NewNode(
            target_id if old == node_id else new_ids[str(chat.tree[old].parent_id)],
            chat.tree[old].role,
            texts[old],
            id=new_ids[old],
            status=chat.tree[old].status,
            meta={**chat.store.meta(old), "copied_from": old},
            # The tokens that the template adds depend on the messages above, so only sampled spans are copied.
            spans=[replace(span, logprobs=None) for span in chat.store.all_spans(old)] if old in turns else (),
            turn=turns.get(old),
        )
        for old in ids
    ]
    nodes = chat.store.graft(chat.conversation_id, rows)
    for node in nodes:
        chat.tree.add(node)
    chat.jump(nodes[0].id)
    return nodes[0]


def rebase(chat: Chat, node_ids: Sequence[str], target_id: str | None) -> AsyncGenerator[ChatEvent, None]:
    """Send the texts of messages again, in order: the first below the target, each next one below the last reply.

    Ends after a reply that is stopped or fails; all texts are kept. One undo removes all new nodes. If the user makes
    another node current in between, that node stays current. Raises UsageError, ModelError, GenerationError.

    chat: the conversation.
    node_ids: the user's messages, in order.
    target_id: the node below which the first message is; None adds a root.
    """
    return chat.stream(lambda events: _rebase(chat, events, node_ids, target_id))


async def _rebase(chat: Chat, events: EventQueue, node_ids: Sequence[str], target_id: str | None) -> None:
    chat.ready_model()
    if not node_ids:
        raise UsageError(
            "There is no message of yours to replay", "Select one of your messages, or a message above them."
        )
    _check(chat, node_ids[0], target_id)
    texts = chat.nodes.texts(node_ids)
    parent_id, follows = target_id, True
    for number, node_id in enumerate(node_ids, 1):
        here = chat.current_id
        follows = number == 1 or (follows and here == parent_id)
        await events.hand_over(ReplayProgress(number, len(node_ids)))

        def added(node: Node, is_first: bool = number == 1, back_id: str | None = None if follows else here) -> None:
            if is_first and node.parent_id == target_id:
                chat.store.note_added("rebase", node.id)
            if back_id is not None:
                chat.jump(back_id)

        events.on_added = added
        (reply,) = await chat.send_into(events, texts[node_id], parent_id=parent_id)
        if reply.status != "complete":
            return
        parent_id = reply.id


def _check(chat: Chat, node_id: str, target_id: str | None) -> None:
    node, is_text = chat.tree[node_id], chat.is_text_tree
    if not fits_under(chat, node.role, target_id, is_text):
        if node.role == "assistant":
            raise UsageError("A reply can only follow a message of yours", "Choose such a message as the target.")
        raise UsageError("This message cannot be placed there", "Your message follows a reply, or is a root.")
