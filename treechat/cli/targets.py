"""What a name on the command line stands for: a conversation, or a node of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from treechat.errors import NodeNotFound

if TYPE_CHECKING:
    from treechat.store import Store


class Found(NamedTuple):
    """`node_id` is None where the name is a conversation's."""

    conversation_id: str
    node_id: str | None


def find(store: Store, name: str) -> Found:
    """The conversation, or else the node, that answers to `name`; `@` is the last conversation. Raises NodeNotFound."""
    try:
        return Found(store.resolve_conversation(name).id, None)
    except NodeNotFound as conversation_error:
        try:
            resolved = store.resolve(name)
        except NodeNotFound as node_error:
            # The answer "several" says more than the answer "none".
            raise max(conversation_error, node_error, key=lambda error: "may be any of" in error.message) from None
        return Found(resolved.conversation_id, resolved.node.id)
