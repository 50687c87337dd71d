"""`export`: each format, and a backup of all conversations that `import` restores."""

import io
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treechat.cli.export import FORMATS
from treechat.formats.document import ImportReport
from treechat.formats.native.reader import read_native
from treechat.formats.native.writer import FORMAT, write_native
from treechat.store import NewNode, Store
from treechat.store.spans import TURN_COLUMNS
from treechat.transfer.export import SUFFIXES, all_documents, part_of, text_chunks, write_file
from treechat.transfer.import_writer import import_document
from treechat.tree import Span, Turn

NODES = "conversation_id, id, parent_id, role, status, created_at, label, bookmarked, preview, text"
QUERIES = {
    "conversations": "SELECT id, title, created_at, updated_at, current_id FROM conversations ORDER BY updated_at, seq",
    "nodes": f"SELECT {NODES} FROM nodes ORDER BY id",
    "siblings": "SELECT conversation_id, parent_id, group_concat(id) FROM (SELECT * FROM nodes ORDER BY seq)"
    " GROUP BY 1, 2",
    "spans": "SELECT node_id, tokenizer, ids, logprobs FROM spans ORDER BY 1, 2",
    "turns": f"SELECT node_id, {TURN_COLUMNS.replace('sampling, ', '')} FROM turns ORDER BY 1",
}
OBJECTS = (
    "SELECT id, meta FROM nodes UNION ALL SELECT id, meta FROM conversations"
    " UNION ALL SELECT node_id, sampling FROM turns"
)


def contents(store: Store) -> dict[str, list]:
    """The content of a database that an export and import must restore, with sorted keys in JSON objects."""
    found = {name: store.rows(sql) for name, sql in QUERIES.items()}
    return found | {
        "objects": sorted((i, json.dumps(json.loads(text), sort_keys=True)) for i, text in store.rows(OBJECTS))
    }


def test_all_and_import_restore_an_equal_database(cli, trip, tmp_path):
    with cli.store() as store:
        other = store.create_conversation("Other", source="chatgpt", source_id="abc", created_at=1.0).id
        spans = [Span("t1", (1, 2**31 - 1), (-0.1, -math.inf)), Span("t2", (), None)]
        store.add_node(other, None, "assistant", "hi \U0010fffd", turn=Turn("m", seed=2**64 - 1), spans=spans)
        store.rename(trip["c"], "Changed last")
    cli("export", "--all", "-o", str(tmp_path / "all.jsonl"))
    restored = tmp_path / "restored.db"
    cli("import", str(tmp_path / "all.jsonl"), "--db", str(restored))
    with cli.store() as store, Store.open(restored) as copy:
        assert contents(copy) == contents(store)
        assert contents(copy)["spans"] and contents(copy)["turns"]
    cli("export", "--all", "--db", str(restored), "-o", str(tmp_path / "again.jsonl"))
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes()
    with Store.open(restored) as store:
        found = store.find_source("chatgpt", "abc")
        assert found is not None and found.id == other


planes = [range(plane << 16, (plane + 1) << 16) for plane in range(17)]
characters = st.one_of(
    *(
        st.characters(min_codepoint=p[0], max_codepoint=p[-1], exclude_categories=["Cs"], exclude_characters="\0")
        for p in planes
    )
)
texts = st.one_of(st.just(""), st.text(characters, max_size=12))
logprobs = st.floats(width=32, max_value=0, allow_nan=False)
counts = st.none() | st.integers(0, 2**40)
seconds = st.none() | st.floats(0, 1e9)
turns = st.none() | st.builds(
    Turn, texts, st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False) | texts, max_size=2),
    st.none() | st.integers(0, 2**64 - 1), st.none() | texts, *[counts] * 5, *[seconds] * 3,
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
metas = st.dictionaries(texts, json_values, max_size=2)
shapes = st.sampled_from(["deep", "broad", "any"])


@st.composite
def spans(draw):
    made = []
    for tokenizer in draw(st.lists(st.sampled_from(["tok", "other", "\U0001f600"]), unique=True, max_size=2)):
        ids = draw(st.lists(st.integers(0, 2**31 - 1), max_size=3))
        made.append(Span(tokenizer, tuple(ids), draw(st.none() | st.tuples(*[logprobs] * len(ids)))))
    return made


@st.composite
def rows(draw, prefix="n"):
    shape, made = draw(shapes), []
    for i in range(draw(st.integers(1, 12))):
        above = {"deep": [f"{prefix}{i - 1}"], "broad": [f"{prefix}0"], "any": [None, *[row.id for row in made]]}[shape]
        new = NewNode(
            draw(st.sampled_from(above)) if i else None,
            draw(st.sampled_from(["system", "user", "assistant"])),
            draw(texts),
            f"{prefix}{i}",
            draw(st.sampled_from(["complete", "stopped", "interrupted", "failed"])),
            draw(st.floats(0.5, 2e9)),
            draw(metas),
            draw(st.none() | texts),
            draw(st.booleans()),
            spans=draw(spans()),
            turn=draw(turns),
        )
        made.append(new)
    return made


@settings(max_examples=25, deadline=None)
@given(rows(), rows("m"), texts, metas, st.data())
def test_any_trees_are_imported_equal_and_export_to_the_same_bytes(first, second, title, meta, data):
    with Store.open(None) as store, Store.open(None) as copy:
        for made in (first, second):
            conversation = store.create_conversation(title, created_at=3.5, meta=meta)
            store.add_nodes(conversation.id, made)
            store.set_current(conversation.id, data.draw(st.sampled_from(made)).id)
        exported = "".join(write_native(all_documents(store, tokens=True), tokens=True))
        report = ImportReport()
        for document in read_native(io.BytesIO(exported.encode()), "x", report):
            import_document(copy, document, FORMAT, report)
        assert report.dropped == report.failed == [] and report.nodes == len(first) + len(second)
        assert contents(copy) == contents(store)
        assert "".join(write_native(all_documents(copy, tokens=True), tokens=True)) == exported


def test_a_file_is_replaced_whole_through_its_link_and_keeps_its_permissions(cli, trip, tmp_path):
    file, link, bystander = tmp_path / "x.md", tmp_path / "link.md", tmp_path / "x.md.part"
    file.write_text("old")
    bystander.write_text("mine")
    file.chmod(0o600)
    link.symlink_to(file)
    cli("export", "--format", "markdown", "-o", str(link))
    assert link.is_symlink() and "Where to go?" in file.read_text() and bystander.read_text() == "mine"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()

    def failing():
        yield "begun"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_file(file, failing())
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"x.md", "link.md", "x.md.part", "config", "data"}


def test_a_pipe_is_written_to_and_stays_a_pipe(cli, trip, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        cli("export", "-o", str(pipe))
        assert read.result(timeout=120).decode() == cli("export").stdout
    assert pipe.is_fifo()


def test_a_database_is_not_replaced_by_an_export(cli, trip, tmp_path):
    link, log = tmp_path / "link.jsonl", cli.db.with_name(f"{cli.db.name}-wal")
    link.symlink_to(cli.db)
    with cli.store() as store:
        store.rename(trip["c"], "Renamed")
        before = cli.db.read_bytes(), log.read_bytes()
        for target in (cli.db, link, log):
            said = cli("export", "-o", str(target), status=1).stderr
            assert "belongs to a database; an export does not replace it" in said
        assert (cli.db.read_bytes(), log.read_bytes()) == before and before[1]
    (tmp_path / "notes-wal").write_text("mine")
    cli("export", "-o", str(tmp_path / "notes-wal"))
    assert cli.json("ls")[0]["title"] == "Renamed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("to", [("-o", "/dev/full"), ()])
def test_a_full_disk_is_reported(trip, cli, to):
    args = [sys.executable, "-m", "treechat", "export", "--db", str(cli.db), *to]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, timeout=240)
    assert done.returncode == 1 and "cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and Path("/dev/full").is_char_device()


def test_the_command_line_has_each_format():
    assert set(FORMATS) == set(SUFFIXES)


def test_only_all_includes_tokens_by_default(cli, trip):
    assert "spans" in cli("export", "--all").stdout
    assert "spans" not in cli("export", "--all", "--no-tokens").stdout
    assert "spans" not in cli("export").stdout
    cli("export", "--tokens", "--format", "markdown", status=2)


def test_numbers_without_a_json_form_are_null(cli, trip):
    with cli.store() as store:
        store.add_node(trip["c"], None, "user", "x", meta={"score": [math.nan, {"y": math.inf}]})
    last = json.loads(cli("export").stdout.splitlines()[-1])
    assert last["meta"] == {"score": [None, {"y": None}]}


def test_a_subtree_has_the_node_and_all_below_without_the_span_of_its_root(cli, trip, tmp_path):
    file = tmp_path / "x.jsonl"
    cli("export", "a1a1", "--subtree", "--tokens", "-o", str(file))
    header, *nodes = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(node["id"], node["parent"]) for node in nodes] == [(trip["a1"], None), (trip["q2"], trip["a1"])]
    assert "spans" not in nodes[0] and header["current"] == trip["q2"]
    report = cli.json("import", str(file), "--db", str(tmp_path / "o.db"))
    assert (report["nodes"], report["dropped"]) == (2, [])
    markdown = cli("export", "a1a1", "--subtree", "--format", "markdown").stdout
    assert "By train?" in markdown and "Where to go?" not in markdown
    cli("export", "a1a1", "--subtree", "--branch", status=2)


def test_a_subtree_from_a_root_keeps_all_its_tokens_and_the_current_node(cli, trip):
    assert cli("export", "sysy", "--subtree", "--tokens").stdout == cli("export", "--tokens").stdout


def test_openai_lines_of_leaves_and_of_bookmarks(cli, trip):
    lines = [json.loads(line)["messages"] for line in cli("export", "--format", "openai").stdout.splitlines()]
    assert [path[-1]["content"] for path in lines] == ["By train?", "To Florence."]
    [line] = cli("export", "--format", "openai", "--bookmarked", "--weights").stdout.splitlines()
    assert json.loads(line)["messages"][-1] == {"role": "assistant", "content": "To Florence.", "weight": 1}
    cli("export", "--weights", status=2)


def test_html_of_one_and_of_all_conversations(cli, trip, tmp_path):
    with cli.store() as store:
        store.add_node(store.create_conversation("Second").id, None, "user", "hi")
    cli("export", "--all", "--format", "html", "-o", str(tmp_path / "all.html"))
    page = (tmp_path / "all.html").read_text()
    assert page.count("<h1 ") == 2 and page.count("<article ") == 6
    assert "<title>Conversations</title>" in page and "\x1b" not in page
    assert "<title>Second</title>" in cli("export", "--format", "html").stdout


def test_dot_and_mermaid_of_all_conversations(cli, trip):
    with cli.store() as store:
        store.add_node(store.create_conversation("Second").id, None, "user", "hi")
    assert cli("export", "--all", "--format", "dot").stdout.count("subgraph") == 2
    mermaid = cli("export", "--all", "--format", "mermaid", "--messages").stdout
    assert mermaid.count("subgraph") == 2 and mermaid.count("-->") == 4
    cli("export", "--messages", status=2)


@pytest.mark.slow
def test_a_chain_of_100_000_is_exported_in_each_format_and_imported(tmp_path):
    with Store.open(None) as store, Store.open(None) as copy:
        conversation = store.create_conversation("deep").id
        rows = [NewNode(f"n{i - 1}" if i else None, "user", f"text {i}", f"n{i}") for i in range(100_000)]
        store.add_nodes(conversation, rows)
        store.set_current(conversation, "n99999")
        for form, suffix in SUFFIXES.items():
            write_file(
                tmp_path / f"deep{suffix}", text_chunks([part_of(store, conversation, None, "conversation")], form)
            )
            assert (tmp_path / f"deep{suffix}").stat().st_size
        with (tmp_path / "deep.jsonl").open("rb") as file:
            for document in read_native(file, "deep", ImportReport()):
                import_document(copy, document, FORMAT, ImportReport())
        assert contents(copy) == contents(store)
