"""Random conversations, and a writer for each foreign format."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

STAMP = 1_700_000_000


class WrittenMessage(NamedTuple):
    """One message.

    parent: number of an earlier message, None for the root.
    role: `user` or `assistant`.
    text: its text.
    """

    parent: int | None
    role: str
    text: str


def children(tree: list[WrittenMessage], parent: int | None) -> list[int]:
    return [number for number, item in enumerate(tree) if item.parent == parent]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@st.composite
def trees(draw) -> list[WrittenMessage]:
    """Draw a deep, broad or arbitrary tree with one root. Texts are unique and not empty."""
    shape, tree = draw(st.sampled_from(["deep", "broad", "any"])), []
    for number, text in enumerate(draw(st.lists(texts, min_size=1, max_size=12))):
        above = {"deep": number - 1, "broad": 0, "any": draw(st.integers(0, max(0, number - 1)))}[shape]
        parent = above if number else None
        role = "assistant" if parent is not None and tree[parent].role == "user" else "user"
        tree.append(WrittenMessage(parent, role, f"{number}: {text}."))
    return tree


def _node_id(number: int | None) -> str | None:
    return None if number is None else f"node-{number}"


def _iso(number: int) -> str:
    return f"2024-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"


def chatgpt(tree: list[WrittenMessage]) -> bytes:
    mapping: dict = {"root": {"id": "root", "message": None, "parent": None, "children": [_node_id(0)]}}
    for number, item in enumerate(tree):
        mapping[f"node-{number}"] = {
            "id": f"node-{number}",
            "parent": "root" if item.parent is None else _node_id(item.parent),
            "children": [_node_id(i) for i in children(tree, number)],
            "message": {
                "id": f"node-{number}",
                "author": {"role": item.role},
                "content": {"content_type": "text", "parts": [item.text]},
                "create_time": STAMP + number,
                "end_turn": True if item.role == "assistant" else None,
                "metadata": {"model_slug": "gpt"},
            },
        }
    head = {"title": "T", "create_time": STAMP, "conversation_id": "c", "current_node": _node_id(len(tree) - 1)}
    return json.dumps([head | {"mapping": dict(reversed(mapping.items()))}]).encode()


def claude(tree: list[WrittenMessage]) -> bytes:
    messages = [
        {
            "uuid": _node_id(number),
            "sender": "human" if item.role == "user" else "assistant",
            "text": "",
            "content": [{"type": "text", "text": item.text}],
            "created_at": _iso(number),
            "parent_message_uuid": _node_id(item.parent) or "00000000-0000-4000-8000-000000000000",
        }
        for number, item in enumerate(tree)
    ]
    chat = {"uuid": "c", "name": "T", "created_at": _iso(0), "chat_messages": messages[::-1]}
    return json.dumps([chat]).encode()


def _libre(tree: list[WrittenMessage], number: int) -> dict:
    item = tree[number]
    none = "00000000-0000-0000-0000-000000000000"
    fields = {"messageId": _node_id(number), "parentMessageId": _node_id(item.parent) or none, "text": item.text}
    return fields | {"isCreatedByUser": item.role == "user", "createdAt": _iso(number), "model": "m"}


def librechat(tree: list[WrittenMessage]) -> bytes:
    messages = [_libre(tree, number) for number in range(len(tree))]
    return json.dumps({"conversationId": "c", "title": "T", "recursive": False, "messages": messages}).encode()


def librechat_nested(tree: list[WrittenMessage]) -> bytes:
    messages = [_libre(tree, number) | {"children": []} for number in range(len(tree))]
    for number, item in enumerate(tree):
        if item.parent is not None:
            messages[item.parent]["children"].append(messages[number])
    return json.dumps({"conversationId": "c", "title": "T", "recursive": True, "messages": messages[:1]}).encode()


def openwebui(tree: list[WrittenMessage]) -> bytes:
    messages = {
        _node_id(number): {
            "id": _node_id(number),
            "parentId": _node_id(item.parent),
            "childrenIds": [_node_id(i) for i in children(tree, number)],
            "role": item.role,
            "content": item.text,
            "timestamp": STAMP,
        }
        for number, item in reversed(list(enumerate(tree)))
    }
    history = {"currentId": _node_id(len(tree) - 1), "messages": messages}
    return json.dumps([{"id": "c", "title": "T", "chat": {"title": "T", "models": ["m"], "history": history}}]).encode()


def llamacpp(tree: list[WrittenMessage]) -> bytes:
    lines: list[dict] = [{"type": "session", "id": "c", "name": "T", "currNode": _node_id(len(tree) - 1)}]
    for number, item in enumerate(tree):
        message = {"id": _node_id(number), "parent": _node_id(item.parent), "role": item.role, "content": item.text}
        more = {"type": "text", "timestamp": 1000 * STAMP, "children": [_node_id(i) for i in children(tree, number)]}
        lines.append({"type": "message", "message": message | more})
    return _lines(lines)


def pi(tree: list[WrittenMessage]) -> bytes:
    lines: list[dict] = [{"type": "session", "version": 3, "id": "c", "timestamp": _iso(0), "cwd": "/"}]
    for number, item in enumerate(tree):
        message = {"role": item.role, "content": [{"type": "text", "text": item.text}], "stopReason": "stop"}
        entry = {
            "type": "message",
            "id": _node_id(number),
            "parentId": _node_id(item.parent),
            "timestamp": _iso(number),
        }
        lines.append(entry | {"message": message})
    return _lines(lines)


def loom(tree: list[WrittenMessage]) -> bytes:
    nodes = [
        {
            "id": _node_id(number),
            "parent_id": _node_id(item.parent),
            "tree_id": "node-0",
            "kind": "text" if number else "root",
            "text": item.text,
            "model": "m" if item.role == "assistant" else None,
            "checked_out": False,
            "created_at": _iso(number),
            "metadata": {"role": item.role},
        }
        for number, item in enumerate(tree)
    ]
    return json.dumps({"version": 1, "nodes": nodes}, indent=2).encode()


def _paths(tree: list[WrittenMessage]) -> list[list[WrittenMessage]]:
    """Return the paths from the root to each leaf, in the order of siblings."""
    found, stack = [], [[0]]
    while stack:
        path = stack.pop()
        child_ids = children(tree, path[-1])
        if not child_ids:
            found.append([tree[number] for number in path])
        stack.extend([*path, child] for child in reversed(child_ids))
    return found


def openai(tree: list[WrittenMessage]) -> bytes:
    rows = [[{"role": item.role, "content": item.text} for item in path] for path in _paths(tree)]
    return _lines([{"messages": row} for row in rows])


def sharegpt(tree: list[WrittenMessage]) -> bytes:
    senders = {"user": "human", "assistant": "gpt"}
    rows = [[{"from": senders[item.role], "value": item.text} for item in path] for path in _paths(tree)]
    return json.dumps([{"id": str(i), "conversations": row} for i, row in enumerate(rows)]).encode()


def sillytavern(tree: list[WrittenMessage]) -> bytes:
    """Write the first branch with the other children as swipes. The format has no descendants of swipes."""
    lines: list[dict] = [{"user_name": "Me", "character_name": "Ada", "chat_metadata": {}}]
    level = children(tree, None)
    while level:
        item = tree[level[0]]
        message = {"name": "x", "is_user": item.role == "user", "send_date": STAMP, "mes": item.text, "swipe_id": 0}
        lines.append(message | {"swipes": [tree[number].text for number in level], "swipe_info": [], "extra": {}})
        level = children(tree, level[0])
    return _lines(lines)


def llm(tree: list[WrittenMessage], path: Path) -> bytes:
    path.unlink(missing_ok=True)
    conn = sqlite3.connect(path)
    conn.executescript(
        "CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT);"
        "CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT, tool_name TEXT,"
        " text TEXT, payload TEXT);"
        "CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, datetime_utc TEXT);"
        "CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT, tip_message_hash TEXT,"
        " model TEXT, options_json TEXT, datetime_utc TEXT);"
    )
    for number, item in enumerate(tree):
        key, parent = _node_id(number), _node_id(item.parent)
        conn.execute("INSERT INTO messages VALUES (?, ?, ?)", (key, parent, item.role))
        conn.execute("INSERT INTO parts VALUES (?, ?, 0, 'text', NULL, ?, NULL)", (number, key, item.text))
        turn = (key, "thread", parent, key, "m", "{}", _iso(number))
        conn.execute("INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?)", turn)
    conn.execute("INSERT INTO threads VALUES ('thread', 'T', ?, ?)", (_node_id(len(tree) - 1), _iso(0)))
    conn.commit()
    conn.close()
    return path.read_bytes()


def openwebui_database(tree: list[WrittenMessage], path: Path) -> bytes:
    path.unlink(missing_ok=True)
    [record] = json.loads(openwebui(tree))
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE chat (id TEXT PRIMARY KEY, user_id TEXT, title TEXT, chat JSON, created_at BIGINT)")
    row = (record["id"], "me", record["title"], json.dumps(record["chat"]), STAMP)
    conn.execute("INSERT INTO chat VALUES (?, ?, ?, ?, ?)", row)
    conn.commit()
    conn.close()
    return path.read_bytes()


def openai_pairs(tree: list[WrittenMessage]) -> bytes:
    """Write a preference row for each message with two or more children; the first child is chosen."""
    rows = []
    for number, item in enumerate(tree):
        child_ids = [{"role": "assistant", "content": tree[i].text} for i in children(tree, number)]
        if len(child_ids) > 1:
            rows.append({"prompt": item.text, "chosen": child_ids[:1], "rejected": child_ids[1:2]})
    return _lines(rows)


def _lines(records: list[dict]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


WRITERS: dict[str, Callable[[list[WrittenMessage]], bytes]] = {
    "chatgpt": chatgpt,
    "claude": claude,
    "librechat": librechat,
    "librechat nested": librechat_nested,
    "openwebui": openwebui,
    "llamacpp": llamacpp,
    "pi": pi,
    "basemode-loom": loom,
    "openai": openai,
    "sharegpt": sharegpt,
    "sillytavern": sillytavern,
}
"""Writers by the importer's name; a second word distinguishes two writers for one importer."""

DATABASES: dict[str, Callable[[list[WrittenMessage], Path], bytes]] = {
    "llm": llm,
    "openwebui database": openwebui_database,
}
"""Writers of SQLite files, named in the same way."""
