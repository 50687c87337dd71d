"""Import of pi's sessions."""

import json


def entry(kind, entry_id, parent, **more):
    return {"type": kind, "id": entry_id, "parentId": parent, "timestamp": "2025-01-01T00:00:00.000Z", **more}


def message(entry_id, parent, role, text="", content=None, **more):
    content = [{"type": "text", "text": text}] if content is None else content
    return entry("message", entry_id, parent, message={"role": role, "content": content, **more})


def lines(*entries, version=3):
    header = {"type": "session", "version": version, "id": "s", "timestamp": "2025-01-01T00:00:00Z", "cwd": "/x"}
    return "\n".join(map(json.dumps, [header, *entries])) + "\n"


def test_branches_labels_name_and_current_message(read):
    data = lines(
        entry("model_change", "m", None, provider="p", modelId="x"),
        message("u", "m", "user", "Hi"),
        message("a", "u", "assistant", "One", model="claude", stopReason="stop"),
        message("u2", "a", "user", "More"),
        message("b", "u", "assistant", "Two", stopReason="aborted"),
        entry("label", "l", "b", targetId="a", label="good"),
        entry("session_info", "i", "l", name="My session"),
    )
    found = read(data, "pi")
    assert found.nodes() == {
        "u": (None, "user", "Hi"),
        "a": ("u", "assistant", "One"),
        "u2": ("a", "user", "More"),
        "b": ("u", "assistant", "Two"),
    }
    assert found.current == "b" and found.message("b").node.status == "stopped"
    assert found.message("a").labels == ("good",) and found.message("a").turn.model == "claude"
    assert found.documents[0].conversation.title == "My session"
    assert found.report.dropped == found.report.failed == []


def test_a_turn_with_tools_is_one_node(read):
    calls = [
        {"type": "thinking", "thinking": "Look"},
        {"type": "toolCall", "id": "1", "name": "bash", "arguments": {"command": "ls"}},
    ]
    data = lines(
        message("u", None, "user", content="List"),
        message("c", "u", "assistant", content=calls, stopReason="toolUse"),
        message("r", "c", "toolResult", "a.txt", toolName="bash", toolCallId="1", isError=False),
        message("a", "r", "assistant", "There is a.txt", stopReason="stop", model="m"),
        message("a2", "r", "assistant", "One file", stopReason="stop"),
    )
    found = read(data, "pi")
    head = "[thoughts]\n\n[called bash]\n\n[result of bash]\n\n"
    assert found.nodes() == {
        "u": (None, "user", "List"),
        "a": ("u", "assistant", head + "There is a.txt"),
        "a2": ("u", "assistant", head + "One file"),
    }
    parts = found.message("a").meta["parts"]
    assert parts[1]["arguments"] == {"command": "ls"} and parts[2]["text"] == "a.txt"


def test_shell_commands_summaries_and_extensions(read):
    shell = entry("message", "b", "u", message={"role": "bashExecution", "command": "ls", "output": "a.txt\n"})
    data = lines(
        message("u", None, "user", "Hi"),
        shell,
        entry("compaction", "k", "b", summary="Before: hi", firstKeptEntryId="u"),
        entry("custom_message", "x", "k", content="Shown", display=True),
        entry("custom_message", "y", "x", content="Not shown", display=False),
        entry("custom", "z", "y", data={}),
        message("a", "z", "assistant", "Yes", stopReason="stop"),
        entry("telepathy", "q", "a"),
    )
    found = read(data, "pi")
    assert [text for _, _, text in found.nodes().values()] == ["Hi", "$ ls\na.txt", "Shown", "Yes"]
    assert found.message("x").meta["parts"][0]["raw"]["summary"] == "Before: hi"
    assert found.current == "a"
    assert found.report.dropped == ["export.bin: entries of the unknown type telepathy"]


def test_the_first_version_had_no_ids(read):
    entries = [
        {k: v for k, v in message("", "", role, role).items() if k not in ("id", "parentId")}
        for role in ("user", "assistant")
    ]
    found = read(lines(*entries, version=1), "pi")
    assert [m.text for m in found.documents[0].messages] == ["user", "assistant"]
    assert found.documents[0].tree.roots == [found.documents[0].messages[0].node.id]


def test_damage_is_reported(read):
    data = lines(message("u", None, "user", "Hi"), message("u", None, "user", "Again"), message("x", "y", "user", "X"))
    found = read(data + '{"id": 3}\n{"type": "mess', "pi")
    assert set(found.nodes()) == {"u", "x"}
    assert len(found.report.dropped) == 2 and len(found.report.failed) == 2


def test_a_failed_reply_without_text_has_its_error_as_text(read):
    data = lines(
        message("u", None, "user", "Hi"),
        message("a", "u", "assistant", content=[], stopReason="error", errorMessage="529 overloaded\nTry later"),
        message("b", "u", "assistant", "Half", stopReason="aborted", errorMessage="Request was aborted."),
    )
    found = read(data, "pi")
    assert [found.message(i).text for i in "ab"] == ["[error: 529 overloaded Try later]", "Half"]
    assert found.message("b").meta["parts"] == [{"type": "error", "text": "Request was aborted."}]
