"""The JSON object stored with a conversation, for example its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treechat.errors import NodeNotFound
from treechat.store.codec import dump_json
from treechat.store.connection import Connection
from treechat.store.values import short_id


class Meta(Connection):
    """Change a conversation's meta."""

    def set_meta(self, conversation_id: str, key: str, value: Mapping[str, Any] | None) -> None:
        """Set one key of the conversation's meta; other keys do not change. Raises NodeNotFound.

        conversation_id: the conversation.
        key: the key.
        value: its new value; None removes it.
        """
        path = f'$."{key}"'
        with self.transaction() as conn:
            # Replace meta that is damaged or is not an object: nothing in it can be read.
            meta = "CASE WHEN json_valid(meta) AND json_type(meta) = 'object' THEN meta ELSE '{}' END"
            change = f"json_remove({meta}, ?)" if value is None else f"json_set({meta}, ?, json(?))"
            values = (path,) if value is None else (path, dump_json(dict(value)))
            query = f"UPDATE conversations SET meta = {change} WHERE id = ?"
            if conn.execute(query, (*values, conversation_id)).rowcount == 0:
                raise NodeNotFound(f"There is no conversation {short_id(conversation_id)}")
