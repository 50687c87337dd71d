"""Import of llm's logs.db in both generations, with the tables that its migrations create."""

import json
import sqlite3

import pytest

from treechat.errors import FormatError
from treechat.formats.document import ImportReport
from treechat.formats.importers.llm import llm_logs
from treechat.formats.reading.inputs import inputs_of

OLD = """
CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, prompt_json TEXT, options_json TEXT,
  response TEXT, response_json TEXT, conversation_id TEXT, duration_ms INTEGER, datetime_utc TEXT, input_tokens INTEGER,
  output_tokens INTEGER, token_details TEXT, schema_id TEXT, resolved_model TEXT, reasoning TEXT);
CREATE TABLE tool_calls (id INTEGER PRIMARY KEY, response_id TEXT, tool_id INTEGER, name TEXT, arguments TEXT,
  tool_call_id TEXT);
CREATE TABLE tool_results (id INTEGER PRIMARY KEY, response_id TEXT, tool_id INTEGER, name TEXT, output TEXT,
  tool_call_id TEXT, instance_id INTEGER, exception TEXT);
CREATE TABLE fragments (id INTEGER PRIMARY KEY, hash TEXT, content TEXT, datetime_utc TEXT, source TEXT);
CREATE TABLE prompt_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);
CREATE TABLE prompt_attachments (response_id TEXT, attachment_id TEXT, "order" INTEGER);
CREATE VIRTUAL TABLE responses_fts USING fts5(prompt, response, content=responses);
"""
NEW = """
CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT, tool_name TEXT, text TEXT,
  payload TEXT);
CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, forked_from TEXT, datetime_utc TEXT);
CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT, tip_message_hash TEXT, model TEXT,
  resolved_model TEXT, options_json TEXT, datetime_utc TEXT);
"""


@pytest.fixture
def logs(tmp_path):
    """Return a function that creates a database from a script and rows, and returns its bytes."""

    def make(script, **tables):
        path = tmp_path / "made.db"
        path.unlink(missing_ok=True)
        conn = sqlite3.connect(path)
        conn.executescript(script)
        for table, rows in tables.items():
            for row in rows:
                columns = ", ".join(f'"{name}"' for name in row)
                conn.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
        conn.commit()
        conn.close()
        return path.read_bytes()

    return make


def response(response_id, prompt, text, conversation="c", second=0, **more):
    at = f"2024-01-01T00:00:{second:02d}.123456"
    return {
        "id": response_id,
        "model": "m",
        "prompt": prompt,
        "response": text,
        "conversation_id": conversation,
        "datetime_utc": at,
        **more,
    }


def test_responses_are_a_chain_with_system_prompts_and_options(read, logs):
    rows = [
        response("r2", "More", "Two", second=2, system="Be kind", resolved_model="m-1"),
        response("r1", "Hi", "One", second=1, system="Be kind", options_json='{"temperature": 0.5}', reasoning="Hm"),
        response("r3", "Alone", "Yes", conversation=None),
    ]
    found = read(logs(OLD, responses=rows, conversations=[{"id": "c", "name": "Chat"}]), "llm")
    assert found.nodes() == {
        "r1/system": (None, "system", "Be kind"),
        "r1/prompt": ("r1/system", "user", "Hi"),
        "r1": ("r1/prompt", "assistant", "[thoughts]\n\nOne"),
        "r2/prompt": ("r1", "user", "More"),
        "r2": ("r2/prompt", "assistant", "Two"),
    }
    assert [m.text for m in found.documents[1].messages] == ["Alone", "Yes"]
    assert found.message("r1").turn.sampling == {"temperature": 0.5} and found.message("r2").turn.model == "m-1"
    assert found.documents[0].conversation.title == "Chat" and found.current == "r2"


def test_tools_fragments_and_attachments(read, logs):
    rows = [
        response("r1", "Find", "", second=1),
        response("r2", "", "Found it", second=2),
        response("r3", "Go", "", second=3),
    ]
    data = logs(
        OLD,
        responses=rows,
        tool_calls=[
            {"response_id": "r1", "name": "search", "arguments": '{"q": 1}', "tool_call_id": "t"},
            {"response_id": "r3", "name": "search", "arguments": "{", "tool_call_id": "u"},
        ],
        tool_results=[{"response_id": "r2", "name": "search", "output": "42", "tool_call_id": "t"}],
        fragments=[{"id": 1, "content": "A long text"}],
        prompt_fragments=[{"response_id": "r1", "fragment_id": 1, "order": 0}],
        attachments=[{"id": "a", "type": "image/png", "path": "/x/cat.png"}],
        prompt_attachments=[{"response_id": "r1", "attachment_id": "a", "order": 0}],
    )
    found = read(data, "llm")
    assert found.nodes() == {
        "r1/prompt": (None, "user", "A long text\n\nFind\n\n[image: cat.png]"),
        "r2": ("r1/prompt", "assistant", "[called search]\n\n[result of search]\n\nFound it"),
        "r3/prompt": ("r2", "user", "Go"),
        "r3": ("r3/prompt", "assistant", "[called search]"),
    }
    assert found.message("r2").meta["parts"][0]["arguments"] == {"q": 1}


def test_the_oldest_files_have_few_columns(read, logs):
    script = "CREATE TABLE responses (id TEXT PRIMARY KEY, prompt TEXT, response TEXT)"
    found = read(logs(script, responses=[{"id": "r", "prompt": "Hi", "response": "One"}]), "llm")
    assert [m.text for m in found.documents[0].messages] == ["Hi", "One"]


def message(key, parent, role, *parts):
    """Return a row of `messages` and its rows of `parts`."""
    rows = [
        {
            "message_hash": key,
            "position": i,
            "type": kind,
            "text": text,
            "payload": json.dumps(payload) if payload else None,
        }
        for i, (kind, text, payload) in enumerate(parts)
    ]
    return {"hash": key, "parent_hash": parent, "role": role}, rows


def test_the_tree_of_messages_with_its_threads(read, logs):
    made = [
        message("h1", None, "user", ("text", "Hi", None)),
        message(
            "h2",
            "h1",
            "assistant",
            ("reasoning", "Hm", None),
            ("tool_call", None, {"name": "f", "arguments": {"a": 1}}),
        ),
        message("h3", "h2", "tool", ("tool_result", None, {"name": "f", "output": "42"})),
        message("h4", "h3", "assistant", ("text", "It is 42", None)),
        message("h5", "h3", "assistant", ("text", "42.", None)),
        message(
            "h6",
            "h4",
            "user",
            ("text", None, {"text_ref": [{"literal": "Read "}, {"fragment": 1}]}),
            ("hologram", "H", None),
        ),
    ]
    data = logs(
        OLD + NEW,
        messages=[row for row, _ in made],
        parts=[part for _, parts in made for part in parts],
        fragments=[{"id": 1, "content": "this"}],
        threads=[
            {"id": "c", "name": "Chat", "tip_message_hash": "h6", "datetime_utc": "2026-01-01T00:00:00"},
            {
                "id": "d",
                "name": "Fork",
                "tip_message_hash": "h5",
                "forked_from": "c",
                "datetime_utc": "2026-01-02T00:00:00",
            },
        ],
        turns=[
            {
                "id": "t1",
                "thread_id": "c",
                "tip_message_hash": "h4",
                "model": "m",
                "datetime_utc": "2026-01-01T00:00:05",
            },
            {
                "id": "t2",
                "thread_id": "d",
                "parent_message_hash": "h3",
                "tip_message_hash": "h5",
                "model": "n",
                "options_json": '{"seed": 3}',
                "datetime_utc": "2026-01-02T00:00:05",
            },
        ],
        responses=[response("old", "Earlier", "Yes", conversation="e"), response("both", "Hi", "It is 42")],
    )
    found = read(data, "llm")
    head = "[thoughts]\n\n[called f]\n\n[result of f]\n\n"
    assert found.nodes() == {
        "h1": (None, "user", "Hi"),
        "h4": ("h1", "assistant", head + "It is 42"),
        "h6": ("h4", "user", "Read this\n\nH"),
        "h5": ("h1", "assistant", head + "42."),
    }
    assert found.message("h4").turn.model == "m" and found.message("h5").turn.sampling == {"seed": 3}
    assert found.current == "h5" and found.documents[0].conversation.title == "Fork"
    # A conversation in both generations is imported once.
    assert [m.text for m in found.documents[1].messages] == ["Earlier", "Yes"] and len(found.documents) == 2


def test_cycles_and_missing_parents_in_the_tree(read, logs):
    made = [
        message(key, parent, "user", ("text", key, None)) for key, parent in [("x", "y"), ("y", "x"), ("z", "gone")]
    ]
    data = logs(NEW, messages=[row for row, _ in made], parts=[part for _, parts in made for part in parts])
    found = read(data, "llm")
    assert {m.text for d in found.documents for m in d.messages} == {"x", "y", "z"}
    assert len(found.report.dropped) == 2


def test_the_file_is_not_changed(read, logs, tmp_path):
    data = logs(OLD, responses=[response("r", "Hi", "One")])
    (tmp_path / "made.db").unlink()
    assert len(read(data, "llm").documents) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["export.bin"]
    assert (tmp_path / "export.bin").read_bytes() == data


def test_other_databases_damaged_ones_and_views_are_refused(read, logs, tmp_path):
    endless = (
        "CREATE VIEW responses AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
        " SELECT id, id AS prompt, id AS response FROM n"
    )
    whole = logs(OLD, responses=[response(f"r{i}", "x" * 3000, "One") for i in range(50)])
    damaged = b"SQLite format 3\0" + bytes(84) + whole[100:]
    for data in (damaged, b"SQLite format 3\0" + b"\0" * 500):
        with pytest.raises(FormatError):
            read(data)
    for data in (logs("CREATE TABLE notes (id INTEGER)"), logs(endless)):
        assert not read(data).documents
    with inputs_of(tmp_path / "made.db") as [file], pytest.raises(FormatError, match="not llm's"):
        list(llm_logs.read(file, ImportReport()))


def test_attachments_of_the_tree_have_their_kind_and_name(read, logs):
    payload = json.dumps({"attachment": {"id": "a1"}})
    unknown = json.dumps({"attachment": {"id": "gone"}})
    parts = [
        {"message_hash": "h", "position": i, "type": kind, "text": text, "payload": more}
        for i, (kind, text, more) in enumerate(
            [("text", "Look", None), ("attachment", None, payload), ("attachment", None, unknown)]
        )
    ]
    attachments = [{"id": "a1", "type": "image/png", "path": "/home/me/cat.png"}]
    script = NEW + "CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);"
    data = logs(script, messages=[{"hash": "h", "role": "user"}], parts=parts, attachments=attachments)
    [document] = read(data, "llm").documents
    assert document.messages[0].text == "Look\n\n[image: cat.png]\n\n[file]"


def test_attachments_missing_in_llms_tree_are_reported(read, logs):
    data = logs(
        OLD + NEW,
        responses=[response("r1", "Look", "A cat")],
        prompt_attachments=[{"response_id": "r1", "attachment_id": "a"}],
        messages=[{"hash": "u", "role": "user"}, {"hash": "a", "parent_hash": "u", "role": "assistant"}],
        parts=[
            {"message_hash": key, "position": 0, "type": "text", "text": text}
            for key, text in (("u", "Look"), ("a", "A cat"))
        ],
        threads=[{"id": "c", "name": "Cats", "tip_message_hash": "a"}],
    )
    found = read(data, "llm")
    assert [m.text for m in found.documents[0].messages] == ["Look", "A cat"] and len(found.documents) == 1
    assert "attachments from before llm 0.32 (1)" in found.report.dropped[0] and len(found.report.dropped) == 1


def test_bytes_in_columns_of_text_and_numbers_are_kept_as_text(read, logs):
    data = logs(
        OLD,
        responses=[response("r", "Hi", "One", input_tokens=b"\xff7", system=b"x")],
        prompt_attachments=[{"response_id": "r", "attachment_id": "a"}],
        attachments=[{"id": "a", "type": b"image/png", "path": b"cat.png"}],
        tool_calls=[{"response_id": "r", "name": b"look", "tool_call_id": b"1"}],
    )
    [document] = read(data, "llm").documents
    assert [m.text for m in document.messages] == ["Hi\n\n[file]", "One\n\n[called a tool]"]
    metas = json.loads(json.dumps([dict(m.meta) for m in document.messages]))
    assert metas[0]["parts"][0]["raw"]["path"] == "cat.png" and metas[1]["input_tokens"] == "\ufffd7"
