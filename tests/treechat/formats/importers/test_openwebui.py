"""Import from Open WebUI: wrong lists of children, a missing current node, reasoning in HTML, and webui.db."""

import json
import sqlite3

import pytest

from treechat.errors import FormatError
from treechat.formats.document import ImportReport
from treechat.formats.importers import openwebui
from treechat.formats.reading import sqlite_source
from treechat.formats.reading.inputs import inputs_of

WEBUI = """
CREATE TABLE chat (id VARCHAR PRIMARY KEY, user_id VARCHAR, title TEXT, chat JSON, created_at BIGINT, updated_at BIGINT,
  share_id TEXT, archived BOOLEAN, pinned BOOLEAN, meta JSON, folder_id TEXT);
CREATE TABLE folder (id TEXT, parent_id TEXT, user_id TEXT, name TEXT);
CREATE TABLE user (id VARCHAR, name VARCHAR);
INSERT INTO folder VALUES ('f', NULL, 'me', CAST('Work' AS BLOB));
"""


def message(message_id, parent, role, content="", children=(), **more):
    fields = {"id": message_id, "parentId": parent, "childrenIds": list(children), "role": role, "content": content}
    return fields | more


def chat(messages, current=None, **more):
    history = {"currentId": current, "messages": {m["id"]: m for m in messages}}
    return {"id": "c", "title": "T", "created_at": 100, "chat": {"models": ["m"], "history": history}} | more


def test_branches_in_the_order_of_the_children(read):
    messages = [
        message("a1", "u", "assistant", "One", model="llama", timestamp=130),
        message("u", None, "user", "Hi", ["a2", "a1", "stranger", 7], timestamp=120),
        message("a2", "u", "assistant", "Two", done=False),
        message("a3", "u", "assistant", "Three", error={"content": "no memory"}),
    ]
    found = read([chat(messages, "a1")], "openwebui")
    assert list(found.nodes().items()) == [
        ("u", (None, "user", "Hi")),
        ("a2", ("u", "assistant", "Two")),
        ("a1", ("u", "assistant", "One")),
        ("a3", ("u", "assistant", "Three")),
    ]
    assert found.current == "a1" and found.message("a1").turn.model == "llama"
    assert [found.message(i).node.status for i in ("a1", "a2", "a3")] == ["complete", "interrupted", "failed"]
    assert found.message("u").node.created_at == 120 and found.message("a2").node.created_at == 120


def test_a_node_without_parent_gets_the_one_that_lists_it(read):
    found = read([chat([message("u", None, "user", "Hi", ["a"]), message("a", None, "assistant", "A")])], "openwebui")
    assert found.nodes()["a"] == ("u", "assistant", "A")


def test_a_missing_current_node_is_reported(read):
    found = read([chat([message("u", None, "user", "Hi")], "gone")], "openwebui")
    assert found.current == "u" and "gone is missing" in found.report.dropped[0]


def test_reasoning_and_tool_calls_in_html(read):
    text = (
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
        "&gt; 1 &lt; 2\n&gt; so\n</details>\n"
        '<details type="tool_calls" done="true" id="t" name="f" arguments="{&quot;a&quot;: 1}" result="&quot;ok&quot;">'
        "\n<summary>Tool Executed</summary>\n</details>\nIt is <b>so</b>.\n<details>mine</details>"
    )
    found = read([chat([message("u", None, "assistant", text)])], "openwebui")
    expected = "[thoughts]\n\n[called f]\n\n[result of f]\n\nIt is <b>so</b>.\n<details>mine</details>"
    assert found.nodes()["u"][2] == expected
    thoughts, call, result = found.message("u").meta["parts"]
    assert thoughts == {"type": "thoughts", "text": "1 < 2\nso", "seconds": "3"}
    assert call["arguments"] == '{"a": 1}' and result["text"] == '"ok"'


def test_unclosed_details_stay_text_and_parse_in_time(read):
    text = '<details type="reasoning">' * 100_000
    assert read([chat([message("u", None, "assistant", text)])], "openwebui").nodes()["u"][2] == text


def test_chats_without_a_history_and_damaged_ones(read):
    old = {
        "id": "o",
        "chat": {
            "title": "Old",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}],
        },
    }
    bad = chat([message("u", "x", "robot", "Beep"), message("x", "u", "user", "X")])
    bad["chat"]["history"]["messages"]["n"] = None
    found = read([old, bad, {"id": "e", "chat": None}], "openwebui")
    assert [m.text for m in found.documents[0].messages] == ["Hi", "A"]
    assert found.documents[0].tree.roots == [found.documents[0].messages[0].node.id]
    assert set(found.nodes(1)) == {"u", "x"}
    assert len(found.report.dropped) == 4


def test_the_parts_of_newer_versions_are_used_unless_the_text_was_edited(read):
    text = '<details type="tool_calls"><summary>Tool Executed</summary>"18C"</details>It is 18C.\n\nBye'
    output = [
        {"type": "reasoning", "content": [{"type": "output_text", "text": "Look it up"}], "duration": 3},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "18C"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "It is 18C."}, {"text": "Bye"}]},
        {"type": "new", "x": 1},
        None,
    ]
    messages = [
        message("a", None, "assistant", text, output=output),
        message("b", "a", "assistant", text.replace("18C.", "19C."), output=output),
        message("c", "b", "assistant", "Plain", output="?"),
    ]
    found = read([chat(messages)], "openwebui")
    assert [found.message(i).text for i in "abc"] == [
        "[thoughts]\n\n[called weather]\n\n[result of weather]\n\nIt is 18C.\nBye",
        "[called a tool]\n\nIt is 19C.\n\nBye",
        "Plain",
    ]
    assert [part["type"] for part in found.message("a").meta["parts"]] == [
        "thoughts", "call", "result", "new", "output",
    ]  # fmt: skip


def test_the_system_prompt_of_a_chat_is_the_parent_of_its_roots(read):
    for more in (
        {"system": "Be kind"},
        {"params": {"system": "Be kind"}},
        {"system": "", "params": {"system": "Be kind"}},
    ):
        record = chat([message("u", None, "user", "Hi")])
        record["chat"] |= more
        assert read([record], "openwebui").nodes() == {
            "system-prompt": (None, "system", "Be kind"),
            "u": ("system-prompt", "user", "Hi"),
        }

    record = chat([message("s", None, "system", "Mine"), message("u", "s", "user", "Hi")])
    record["chat"]["system"] = "Be kind"
    assert list(read([record], "openwebui").nodes()) == ["s", "u"]


def webui(path, *rows):
    conn = sqlite3.connect(path)
    conn.executescript(WEBUI)
    for key, title, content, *more in rows:
        conn.execute(
            "INSERT INTO chat VALUES (?, 'me', ?, ?, 100, 200, NULL, ?, 0, '{}', ?)", (key, title, content, *more)
        )
    conn.commit()
    conn.close()
    return path.read_bytes()


def test_the_database_gives_what_the_export_gives(read, tmp_path):
    messages = [message("u", None, "user", "Hi", ["a", "b"]), message("a", "u", "assistant", "One")]
    messages.append(message("b", "u", "assistant", "Two \ud800"))
    content = chat(messages, "a")["chat"]
    data = webui(
        tmp_path / "made.db",
        ("c", "Mine", json.dumps(content), True, "f"),
        ("broken", "Broken", "{", False, None),
        ("empty", "Empty", None, False, None),
        ("d", "Other", json.dumps(chat([message("u", None, "user", "Yo")])["chat"]), False, "gone"),
    )
    found = read(data, "openwebui")
    exported = read([chat(messages, "a")], "openwebui")
    assert found.nodes() == exported.nodes() and found.current == "a"
    first, second = (document.conversation for document in found.documents)
    assert first.id == exported.documents[0].conversation.id
    assert (first.title, first.created_at, first.updated_at) == ("Mine", 100, 200)
    assert (first.meta["folder"], first.meta["archived"]) == ("Work", True)
    assert second.title == "Other" and not {"folder", "archived"} & set(second.meta)
    assert [why.rpartition(": ")[2] for why in found.report.failed] == ["not JSON, or cut off at character 1", EMPTY]
    assert any("replaced" in why for why in found.report.dropped)


EMPTY = "not JSON, or cut off at character 0"


def test_a_database_of_another_program_is_not_open_webuis(tmp_path):
    path = tmp_path / "x.db"
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE chat (id TEXT)")
    conn.close()
    with inputs_of(path) as [file], pytest.raises(FormatError, match="not Open WebUI's"):
        list(openwebui.read(file, ImportReport()))


def test_a_chat_that_is_too_large_does_not_block_the_others(read, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_source, "MAX_RECORD_BYTES", 2_000)
    chats = [json.dumps(chat([message("u", None, "user", "x" * length)])["chat"]) for length in (1, 3_000, 2)]
    data = webui(tmp_path / "made.db", *((f"c{i}", "T", content, False, None) for i, content in enumerate(chats)))
    found = read(data, "openwebui")
    assert [len(document.messages[0].text) for document in found.documents] == [1, 2]
    assert len(found.report.failed) == 1 and "chat 2: it cannot be read" in found.report.failed[0]
