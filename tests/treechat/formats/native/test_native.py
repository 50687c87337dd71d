"""The native format: round trip of export and import, its schema, and hostile files."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport, Message
from treechat.formats.native.reader import read_native
from treechat.formats.native.writer import write_native
from treechat.formats.reading import lines
from treechat.tree import Conversation, Node

SCHEMA = json.loads((Path(__file__).parents[4] / "assets" / "treechat.schema.json").read_text())
HEADER = '{"format": "treechat", "version": 1, "id": "c", "title": "t", "created": 0, "current": null, "models": []}\n'


def read(data: str | bytes) -> tuple[list[Document], ImportReport]:
    report = ImportReport()
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return list(read_native(io.BytesIO(raw), "f.jsonl", report)), report


def node_line(node_id: str, parent: str | None = None, **more: Any) -> str:
    return json.dumps({"id": node_id, "parent": parent, "role": "user", "text": node_id, **more}) + "\n"


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether the value conforms; implements the subset of JSON schema that our schema uses."""
    if "$ref" in schema:
        return conforms(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    if "oneOf" in schema:
        return sum(conforms(value, s) for s in schema["oneOf"]) == 1
    if "anyOf" in schema:
        return any(conforms(value, s) for s in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return value in schema["enum"]
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    types |= {"integer": int, "number": (int, float)}
    if not isinstance(value, types[schema["type"]]):
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        closed = schema.get("additionalProperties", True) or set(value) <= set(known)
        return (
            closed
            and set(schema.get("required", [])) <= set(value)
            and all(conforms(item, known[key]) for key, item in value.items() if key in known)
        )
    if isinstance(value, list):
        return all(conforms(item, schema["items"]) for item in value)
    return not isinstance(value, str) or re.search(schema.get("pattern", ""), value) is not None


@pytest.mark.parametrize("tokens", [False, True])
def test_export_import_export_is_byte_identical(document, tokens):
    once = "".join(write_native([document, document], tokens))
    documents, report = read(once)
    assert "".join(write_native(documents, tokens)) == once
    assert (report.dropped, report.failed) == ([], [])


def test_with_tokens_nothing_is_lost(document):
    [back], _ = read("".join(write_native([document], tokens=True)))
    assert [m.spans for m in back.messages] == [m.spans for m in document.messages]
    assert [m.turn for m in back.messages] == [m.turn for m in document.messages]
    assert back.messages[2].node.bookmarked and back.messages[2].labels == ("first",)
    assert back.conversation.current_id == "u2"


@pytest.mark.parametrize("tokens", [False, True])
def test_each_exported_line_conforms_to_the_schema(document, tokens):
    for line in write_native([document], tokens):
        assert conforms(json.loads(line), SCHEMA), line


def test_the_schema_refuses_what_is_not_ours(document):
    good = [json.loads(line) for line in write_native([document], tokens=True)][3]
    for key, value in {"role": "tool", "id": "a b", "extra": 1, "created": "now", "spans": [{"ids": []}]}.items():
        assert not conforms(good | {key: value}, SCHEMA), key


def test_only_with_tokens_are_token_ids_written(document):
    assert "spans" not in "".join(write_native([document]))


def test_a_streaming_reply_is_exported_as_interrupted(document):
    node = Node("s", None, "assistant", "streaming")
    lines_out = list(write_native([Document(document.conversation, [Message(node, "par")])]))
    assert json.loads(lines_out[1])["status"] == "interrupted"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_tree_of_any_texts_survives(data):
    messages = []
    for i, text in enumerate(data.draw(st.lists(texts, max_size=8))):
        parent = data.draw(st.sampled_from([None, *[m.node.id for m in messages]]))
        messages.append(Message(Node(f"n{i}", parent, "user"), text))
    title = data.draw(texts)
    first = "".join(write_native([Document(Conversation("c", title, 0.0, 0.0), messages)]))
    documents, report = read(first)
    second = "".join(write_native(documents))
    assert sorted(second.splitlines()) == sorted(first.splitlines())
    assert "".join(write_native(read(second)[0])) == second
    assert report.failed == report.dropped == []


def test_a_deep_chain_is_read_and_counted(depth):
    data = HEADER + "".join(node_line(f"n{i}", f"n{i - 1}" if i else None) for i in range(depth))
    [document], report = read(data)
    assert len(document.messages) == depth
    assert document.num_forks == 0
    assert not report.dropped and not report.failed


def test_children_may_come_before_their_parents():
    [document], report = read(HEADER + node_line("b", "a") + node_line("a"))
    assert [m.node.id for m in document.messages] == ["a", "b"]
    assert not report.dropped


def test_duplicates_missing_parents_and_cycles_are_reported_and_kept():
    data = HEADER + node_line("a") + node_line("a") + node_line("b", "gone") + node_line("x", "y") + node_line("y", "x")
    [document], report = read(data)
    assert {m.node.id for m in document.messages} == {"a", "b", "x", "y"}
    assert [m.node.id for m in document.messages if m.node.parent_id is None] == ["a", "b", "x"]
    assert len(report.dropped) == 3
    assert "occurs twice" in report.dropped[0]
    assert "gone" in report.dropped[1]
    assert "its own ancestor" in report.dropped[2]


def test_a_node_that_is_its_own_parent_becomes_a_root():
    [document], report = read(HEADER + node_line("a", "a"))
    assert document.messages[0].node.parent_id is None
    assert len(report.dropped) == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5_000, "not JSON"),
        ("[]", "not a JSON object"),
        ('{"id": "a", "meta": {"x": NaN}}', "not JSON"),
        ('{"id": "a", "meta": {"x": 1e999}}', "not JSON"),
        (node_line("a", spans=[{"tokenizer": "t", "ids": [1], "logprobs": [10**400]}]), "not a list of numbers"),
        (node_line("a", role="tool"), "role is none of"),
        (node_line("a", text=3), "text is not a string"),
        (node_line("a b"), "not a node id"),
        (node_line("a", created=True), "created is not a number"),
        (node_line("a", turn={"model": "m", "seed": 2**70}), "seed is not a whole number"),
        (node_line("a", turn=[]), "turn is not an object"),
        (node_line("a", spans=[{"tokenizer": "t", "ids": [-1]}]), "not a list of token ids"),
        (node_line("a", spans=[{"tokenizer": "t", "ids": [1], "logprobs": []}]), "1 ids and 0 logprobs"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_is_read(line, why):
    [document], report = read(HEADER + line.rstrip("\n") + "\n" + node_line("z"))
    assert [m.node.id for m in document.messages] == ["z"]
    [failure] = report.failed
    assert failure.startswith("f.jsonl, line 2: ") and why in failure


def test_invalid_utf8_and_lone_surrogates_are_replaced_and_counted():
    bad = HEADER.encode() + b'{"id": "a", "parent": null, "role": "user", "text": "\xff\\ud800 \xef\xbf\xbd"}\n'
    [document], report = read(bad)
    assert document.messages[0].text == "\ufffd\ufffd \ufffd"
    assert report.dropped == ["f.jsonl, line 2: 2 invalid characters were replaced"]


def test_a_line_without_end_is_skipped_without_being_held():
    stream = io.BytesIO(b"short\n" + b"x" * 1_000 + b"\nnext\n")
    assert [(line.number, line.text) for line in lines.read_lines(stream, max_bytes=100)] == [
        (1, "short"), (2, None), (3, "next"),
    ]  # fmt: skip


@pytest.mark.parametrize("data", ["", "hello\n", "{}\n", node_line("a"), HEADER.replace("1,", "99,", 1)])
def test_a_foreign_file_is_a_format_error(data):
    with pytest.raises(FormatError):
        read(data)


def test_a_missing_current_node_is_reported():
    [document], report = read(HEADER.replace("null", '"gone"') + node_line("a"))
    assert document.conversation.current_id is None
    assert "gone" in report.dropped[0]


def test_a_meta_nested_too_deep_is_cut_and_the_rest_of_it_stays(document):
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    message = Message(Node("a", None, "user"), "hi", meta={"deep": deep, "nan": float("nan"), "kept": [1, {"x": "y"}]})
    [_, line] = write_native([Document(document.conversation, [message])])
    meta = json.loads(line)["meta"]
    assert meta["nan"] is None and meta["kept"] == [1, {"x": "y"}] and meta["deep"] != deep
