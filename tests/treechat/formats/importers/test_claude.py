"""Import from Claude: the official zip of 2024, the current one, and the web API's object."""

import io
import json
import zipfile

import pytest

ZERO = "00000000-0000-4000-8000-000000000000"


def message(uuid, sender, text="", parent=None, at=None, **more):
    stamp = None if at is None else f"2025-01-01T00:00:{at:02d}.123456789Z"
    return {"uuid": uuid, "sender": sender, "text": text, "parent_message_uuid": parent, "created_at": stamp, **more}


def text(value):
    return [{"type": "text", "text": value}]


def chat(messages, **more):
    return {"uuid": "c-1", "name": "Chat", "created_at": "2025-01-01T00:00:00Z", "chat_messages": messages, **more}


def test_exports_of_2024_are_a_single_branch(read):
    messages = [{"uuid": "1", "text": "Hi", "sender": "human"}, {"uuid": "2", "text": "Hello", "sender": "assistant"}]
    found = read([chat(messages), chat([], name="Empty")], "claude")
    assert found.nodes() == {"1": (None, "user", "Hi"), "2": ("1", "assistant", "Hello")}
    assert found.report.dropped == ["export.bin, item 2 (Empty): it has no messages"]
    assert found.documents[0].conversation.created_at == 1735689600.0


@pytest.mark.parametrize("root", [ZERO, "00000000-0000-0000-0000-000000000000", None])
def test_the_array_mixes_branches_and_the_root_has_a_sentinel_for_a_parent(read, root):
    messages = [
        message("a2", "assistant", "", "u1", 3, content=text("Two")),
        message("u2", "human", "", "a1", 4, content=text("More")),
        message("u1", "human", "", root, 1, content=text("Hi")),
        message("a1", "assistant", "", "u1", 2, content=text("One")),
    ]
    found = read([chat(messages, model="claude-x")], "claude")
    assert list(found.nodes().items()) == [
        ("u1", (None, "user", "Hi")),
        ("a1", ("u1", "assistant", "One")),
        ("u2", ("a1", "user", "More")),
        ("a2", ("u1", "assistant", "Two")),
    ]
    assert found.current == "u2"
    assert found.message("a1").turn.model == "claude-x" and found.message("u1").turn is None
    assert not found.report.dropped


def test_the_api_shape_points_to_its_leaf_and_has_its_text_in_content(read):
    messages = [
        message("u1", "human", "", ZERO, 1, content=text("Hi")),
        message("a1", "assistant", "", "u1", 2, content=text("One"), stop_reason="max_tokens"),
        message("a2", "assistant", "", "u1", 3, content=text("Two")),
    ]
    found = read(chat(messages, current_leaf_message_uuid="a1", model="m"), "claude")
    assert found.current == "a1"
    assert found.message("a1").turn.finish_reason == "length"


def test_a_missing_leaf_is_reported_and_the_newest_is_current(read):
    messages = [message("u1", "human", "Hi", ZERO, 1), message("a1", "assistant", "One", "u1", 2)]
    found = read(chat(messages, current_leaf_message_uuid="gone"), "claude")
    assert found.current == "a1" and "gone is missing" in found.report.dropped[0]


def test_thoughts_tools_pasted_text_and_files(read):
    blocks = [
        {"type": "thinking", "thinking": "Hm", "summaries": []},
        {"type": "tool_use", "name": "repl", "input": {"code": "1"}, "id": "t1"},
        {"type": "tool_result", "name": "repl", "content": [{"type": "text", "text": "1"}], "is_error": False},
        {"type": "text", "text": "Done"},
        {"type": "sparkle", "text": "New"},
    ]
    user = message("u1", "human", "See", ZERO, 1, attachments=[{"file_name": "p.txt", "extracted_content": "Pasted"}])
    user["files"] = [{"file_name": "cat.png", "file_kind": "image"}]
    found = read([chat([user, message("a1", "assistant", "", "u1", 2, content=blocks)])], "claude")
    assert found.nodes()["u1"][2] == "See\n\n[file: p.txt]\n\nPasted\n\n[image: cat.png]"
    assert found.nodes()["a1"][2] == "[thoughts]\n\n[called repl]\n\n[result of repl]\n\nDone\n\nNew"
    parts = found.message("a1").meta["parts"]
    assert (parts[0]["text"], parts[1]["arguments"], parts[2]["text"]) == ("Hm", {"code": "1"}, "1")
    assert "sparkle" in found.report.dropped[0]


def test_other_files_in_the_zip_are_skipped(read):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("users.json", '[{"uuid": "u", "full_name": "x"}]')
        file.writestr("projects.json", '[{"uuid": "p", "docs": []}]')
        file.writestr("conversations.json", json.dumps([chat([message("u1", "human", "Hi", ZERO)])]))
    assert list(read(archive.getvalue(), "claude").nodes()) == ["u1"]


def test_damage_is_reported_and_the_rest_is_kept(read):
    messages = [message("u1", "human", "Hi"), 7, message("u1", "human", "Again"), message("x", "human", "X", "y")]
    found = read([chat(messages)], "claude")
    assert set(found.nodes()) == {"u1", "x"}
    assert len(found.report.dropped) == 3


def test_missing_senders_alternate_and_are_reported(read):
    messages = [
        {"uuid": i, "text": i, "sender": sender} for i, sender in zip("abcd", (None, "?", "human", {}), strict=True)
    ]
    found = read([{"uuid": "c", "chat_messages": messages}], "claude")
    assert [role for _, role, _ in found.nodes().values()] == ["user", "assistant", "user", "assistant"]
    assert "no known sender in 3 messages" in found.report.dropped[0]
