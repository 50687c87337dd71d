"""Import from llama.cpp's web UI: lines, and the objects of older versions."""

import json


def message(message_id, parent, role, content="", children=(), **more):
    fields = {"id": message_id, "convId": "c", "type": "text", "timestamp": 1_700_000_000_000, "parent": parent}
    return fields | {"role": role, "content": content, "children": list(children)} | more


def lines(current, *messages, session_id="c"):
    session = {
        "type": "session",
        "id": session_id,
        "name": "Chat",
        "currNode": current,
        "lastModified": 1_700_000_100_000,
    }
    return "\n".join(map(json.dumps, [session, *({"type": "message", "message": m} for m in messages)])) + "\n"


TREE = [
    message("r", None, "system", type="root", children=["u"]),
    message("u", "r", "user", "Hi", ["b", "a"]),
    message("a", "u", "assistant", "One", model="qwen", reasoningContent="Hm"),
    message("b", "u", "assistant", "Two"),
]
EXPECTED = [
    ("u", (None, "user", "Hi")),
    ("b", ("u", "assistant", "Two")),
    ("a", ("u", "assistant", "[thoughts]\n\nOne")),
]


def test_lines_in_the_order_of_the_children(read):
    found = read(lines("b", *TREE) + lines("", *TREE[:2], session_id="d"), "llamacpp")
    assert list(found.nodes().items()) == EXPECTED
    assert found.current == "b" and found.message("a").turn.model == "qwen"
    assert len(found.documents) == 2 and found.report.dropped == found.report.failed == []
    assert found.documents[0].conversation.updated_at == 1_700_000_100


def test_an_empty_current_node_is_legal_and_a_missing_one_is_reported(read):
    assert read(lines("", *TREE), "llamacpp").report.dropped == []
    assert "gone is missing" in read(lines("gone", *TREE), "llamacpp").report.dropped[0]


def test_older_exports_are_objects(read):
    old = {"conv": {"id": "c", "name": "Chat", "currNode": "a", "lastModified": 1}, "messages": TREE}
    for data in (old, [old], json.dumps([old, old | {"conv": {"id": "d"}}], indent=1)):
        found = read(data, "llamacpp")
        assert list(found.nodes().items()) == EXPECTED


def test_tool_calls_are_joined_and_extras_kept(read):
    call = json.dumps([{"id": "1", "function": {"name": "search", "arguments": "{}"}}])
    extra = [
        {"type": "imageFile", "name": "a.png", "base64Url": "data:x"},
        {"type": "textFile", "name": "n.txt", "content": "Notes"},
    ]
    messages = [
        message("u", None, "user", "Hi", extra=extra),
        message("c", "u", "assistant", "", toolCalls=call),
        message("t", "c", "tool", "Found", toolName="search"),
        message("a", "t", "assistant", "Yes", toolCalls=""),
        message("a2", "a", "assistant", "Also"),
    ]
    found = read(lines("a2", *messages), "llamacpp")
    assert found.nodes() == {
        "u": (None, "user", "Hi\n\n[image: a.png]\n\n[file: n.txt]\n\nNotes"),
        "a": ("u", "assistant", "[called search]\n\n[result of search]\n\nYes"),
        "a2": ("a", "assistant", "Also"),
    }


def test_damage_is_reported(read):
    data = lines("a", *TREE, TREE[1], message("x", "y", "user", "X")) + '{"type": "message"}\n{"broken\n[]\n'
    found = read(data, "llamacpp")
    assert set(found.nodes()) == {"u", "a", "b", "x"}
    assert len(found.report.dropped) == 2 and len(found.report.failed) == 3


def test_a_single_branch_that_was_saved_without_its_root(read):
    found = read({"conv": {"id": "c", "currNode": "a"}, "messages": TREE[1:3]}, "llamacpp")
    assert list(found.nodes().items()) == [EXPECTED[0], EXPECTED[2]]
    assert found.current == "a" and not found.report.dropped
