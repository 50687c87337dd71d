"""Find the conversation or node of a name on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from treechat.errors import NodeNotFound

if TYPE_CHECKING:
    from treechat.store import Store


class Target(NamedTuple):
    """A conversation, or a node in it. node_id: None for the conversation itself."""

    conversation_id: str
    node_id: str | None


def find(store: Store, name: str) -> Target:
    """The conversation of that name, or else the node. `@` is the last conversation. Raises NodeNotFound."""
    try:
        return Target(store.resolve_conversation(name).id, None)
    except NodeNotFound as conversation_error:
        try:
            resolved = store.resolve(name)
        except NodeNotFound as node_error:
            # Prefer the error that lists several candidates to the error that there is none.
            raise max(conversation_error, node_error, key=lambda error: "matches several" in error.message) from None
        return Target(resolved.conversation_id, resolved.node.id)
