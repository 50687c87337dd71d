"""Import of LibreChat's export, flat and nested."""

import json

NONE = "00000000-0000-0000-0000-000000000000"


def message(message_id, parent, text="", user=False, **more):
    return {"messageId": message_id, "parentMessageId": parent, "text": text, "isCreatedByUser": user, **more}


def chat(messages, recursive=False, key="messages", **more):
    options = {"model": "gpt-x"}
    head = {"conversationId": "c", "title": "T", "endpoint": "openAI", "recursive": recursive, "options": options}
    return head | {key: messages} | more


EXPECTED = {
    "u1": (None, "user", "Hi"),
    "a1": ("u1", "assistant", "One"),
    "u2": ("a1", "user", ""),
    "a3": ("u2", "assistant", "Deep"),
    "a2": ("u1", "assistant", "Two"),
}


def test_flat_with_the_root_sentinel(read):
    messages = [
        message("u1", NONE, "Hi", True),
        message("a1", "u1", "One", model="gpt-y"),
        message("a2", "u1", "Two", error=True),
        message("u2", "a1", "", True),
        message(
            "a3", "u2", "", content=[{"type": "think", "think": "Hm"}, {"type": "text", "text": {"value": "Deep"}}]
        ),
    ]
    found = read(json.dumps(chat(messages), indent=2), "librechat")
    assert found.nodes() == EXPECTED | {"a3": ("u2", "assistant", "[thoughts]\n\nDeep")}
    assert found.message("a1").turn.model == "gpt-y" and found.message("a3").turn.model == "gpt-x"
    assert found.message("a2").node.status == "failed"
    assert found.documents[0].conversation.meta["endpoint"] == "openAI"


def test_nested_and_a_message_without_text_still_has_its_subtree(read):
    for key in ("messages", "messagesTree"):
        deep = message("a3", "u2", "Deep")
        nested = message("u1", NONE, "Hi", True, children=[
            message("a1", "u1", "One", children=[message("u2", "a1", "", True, children=[deep])]),
            message("a2", "u1", "Two"),
        ])  # fmt: skip
        found = read(chat([nested], recursive=True, key=key), "librechat")
        assert list(found.nodes().items()) == list(EXPECTED.items())
        assert found.report.dropped == ["export.bin, item 1 (T): 1 of its 5 messages have no text"]


def test_messages_nested_deep_are_read(read, depth):
    head = json.dumps(chat([])).replace('"messages": []', '"messages": [')[:-1]
    opening = "".join(f'{{"messageId": "m{i}", "text": "{i}", "children": [' for i in range(depth))
    found = read(head + opening + "]}" * depth + "]}", "librechat")
    assert len(found.documents[0].messages) == depth
    assert found.nodes()[f"m{depth - 1}"] == (f"m{depth - 2}", "assistant", str(depth - 1))


def test_files_tool_calls_and_damage(read):
    call = {"type": "tool_call", "tool_call": {"name": "search", "args": "{}", "output": "Found"}}
    messages = [
        message("u1", NONE, "Hi", True, files=[{"filename": "a.png", "type": "image/png"}]),
        message("a1", "u1", content=[call, {"type": "text", "text": "Yes"}], unfinished=True),
        "no message",
        message("a1", "u1", "again"),
        message("z", "gone", "Z"),
    ]
    found = read(chat(messages), "librechat")
    assert found.nodes()["u1"][2] == "Hi\n\n[image: a.png]"
    assert found.nodes()["a1"][2] == "[called search]\n\n[result of search]\n\nYes"
    assert found.message("a1").node.status == "stopped"
    assert len(found.report.dropped) == 3


def test_the_prompt_of_the_conversation_is_the_parent_of_its_roots(read):
    roots = [message("u1", NONE, "Hi", True), message("u2", NONE, "Yo", True), message("a1", "u1", "One")]
    found = read(chat(roots) | {"options": {"promptPrefix": "Be kind", "model": "m"}}, "librechat")
    assert list(found.nodes().items()) == [
        ("system-prompt", (None, "system", "Be kind")),
        ("u1", ("system-prompt", "user", "Hi")),
        ("a1", ("u1", "assistant", "One")),
        ("u2", ("system-prompt", "user", "Yo")),
    ]
