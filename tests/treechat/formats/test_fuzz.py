"""Hostile and damaged files: no traceback, and every incomplete conversation is reported."""

import contextlib
import json
import random
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.treechat.formats.writers import DATABASES, WRITERS, WrittenMessage, openai_pairs
from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport, Message
from treechat.formats.importers.registry import IMPORTERS, importer_for
from treechat.formats.native.writer import write_native
from treechat.formats.reading.inputs import inputs_of
from treechat.formats.reading.lenient_fields import END_OF_TIME
from treechat.store import Store
from treechat.transfer.import_writer import import_document
from treechat.tree import Conversation, Node

TREE = [
    WrittenMessage(None, "user", "Hello"),
    WrittenMessage(0, "assistant", "One é 😀"),
    WrittenMessage(0, "assistant", "Two"),
    WrittenMessage(1, "user", "More"),
    WrittenMessage(3, "assistant", "Yes"),
]
ODD: list[Any] = [
    None, True, 0, -1, 1e308, 10**400, "", "node-0", "\ud800", "\0", "x" * 5000, [], {}, [[]], {"a": {}}, "2024-99-99",
    [None, 7, "s"], {"content_type": "text", "parts": [{}]}, {"type": "text", "text": {}}, {"role": []},
    '<details type="',
]  # fmt: skip
NAMES = sorted([*WRITERS, *DATABASES, "treechat", "openai pairs"])
NUM_IN_ALL, NUM_SAMPLED = 10_000, 40


def export_of(name: str, path: Path) -> bytes:
    if name in DATABASES:
        return DATABASES[name](TREE, path)
    if name == "openai pairs":
        return openai_pairs(TREE)
    if name == "treechat":
        messages = [
            Message(Node(f"node-{i}", None if s.parent is None else f"node-{s.parent}", s.role), s.text)
            for i, s in enumerate(TREE)
        ]
        return "".join(write_native([Document(Conversation("c", "T", 1.0, 2.0, "node-4"), messages)])).encode()
    return WRITERS[name](TREE)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.choices(range(len(data) + 1), k=2))
        match rng.randrange(6):
            case 0:
                data = data[:end]
            case 1:
                data = data[:at] + data[min(end, at + rng.randint(1, 30)) :]
            case 2:
                data = data[:at] + data[at:end] * 2 + data[end:]
            case 3:
                data = (
                    data[:at]
                    + rng.choice([b"\xff", b"\0", b'"', b"[" * 2000, b"{", b"]}", b"\\ud800", b"\n"])
                    + data[at:]
                )
            case 4:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 5:
                data = data.replace(b"node-%d" % rng.randrange(5), b"node-%d" % rng.randrange(6))
    return data


def mutate_value(rng: random.Random, value: Any, chance: float = 0.04) -> Any:
    if rng.random() < chance:
        return nest(rng.randint(1, 3000)) if rng.random() < 0.05 else rng.choice(ODD)
    if isinstance(value, dict):
        items = list(value.items())
        if rng.random() < chance:
            rng.shuffle(items)
            items = items[: rng.randint(0, len(items))]
        return {key: mutate_value(rng, item, chance) for key, item in items}
    if isinstance(value, list):
        items = list(value)
        if items and rng.random() < chance:
            items = rng.choices(items, k=rng.randint(0, 6))
        return [mutate_value(rng, item, chance) for item in items]
    return value


def nest(depth: int) -> Any:
    value: Any = "deep"
    for i in range(depth):
        value = [value] if i % 2 else {"content": value}
    return value


def dump(value: Any) -> str:
    """Return `json.dumps(value)`, or fixed deep JSON if the value is too deep for it."""
    try:
        return json.dumps(value)
    except RecursionError:
        return '{"content": [' * 3000 + '"deep"' + "]}" * 3000


COLUMN_VALUES = [
    None,
    b"\xff",
    b"",
    "",
    0,
    -1.5,
    2**62,
    "[" * 5000,
    "{}",
    '{"history": {"messages": 7}}',
    "node-0",
    "node-3",
]


def mutate_columns(rng: random.Random, data: bytes) -> bytes:
    """Return the database with some values replaced by other types, which SQLite allows in any column."""
    conn = sqlite3.connect(":memory:")
    conn.deserialize(data)
    tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for _ in range(rng.randint(1, 6)):
        table = rng.choice(tables)
        columns = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
        rowids = [row[0] for row in conn.execute(f"SELECT rowid FROM {table}")]
        change = f"UPDATE OR IGNORE {table} SET {rng.choice(columns)} = ? WHERE rowid = ?"
        with contextlib.suppress(sqlite3.IntegrityError):
            conn.execute(change, (rng.choice(COLUMN_VALUES), rng.choice(rowids)))
    conn.commit()
    changed = conn.serialize()
    conn.close()
    return changed


def mutate(rng: random.Random, data: bytes, name: str) -> bytes:
    if name in DATABASES and rng.random() < 0.5:
        return mutate_columns(rng, data)
    if name in DATABASES or rng.random() < 0.5:
        return mutate_bytes(rng, data)
    text = data.decode()
    values = [json.loads(text)] if name in ONE_VALUE else [json.loads(line) for line in text.splitlines()]
    changed = "\n".join(dump(mutate_value(rng, value)) for value in values).encode()
    return mutate_bytes(rng, changed) if rng.random() < 0.2 else changed


ONE_VALUE = ("chatgpt", "claude", "librechat", "librechat nested", "openwebui", "basemode-loom", "sharegpt")


def import_file(path: Path, name: str, forced: bool) -> tuple[int, ImportReport]:
    """Import into a new store and check it; return the number of nodes and the report."""
    report = ImportReport()
    with Store.open(None) as store:
        try:
            with inputs_of(path) as files:
                for file in files:
                    importer = IMPORTERS[name.partition(" ")[0]] if forced else importer_for(file)
                    if importer is None:
                        raise FormatError("unknown")
                    for document in importer.read(file, report):
                        check(document)
                        import_document(store, document, importer.name, report)
        except FormatError as error:
            report.fail(path.name, str(error))
        assert not store.repairs
        total = 0
        for info in store.conversations():
            tree = store.load_tree(info.id)
            total += len(tree)
            assert info.current_id is None or info.current_id in tree
        assert not store.repairs and total == report.nodes
    return total, report


def check(document: Document) -> None:
    seen: set[str | None] = {None}
    for message in document.messages:
        node = message.node
        assert re.fullmatch(r"[\w.:-]{1,128}", node.id) and node.id not in seen and node.parent_id in seen
        seen.add(node.id)
        assert 0 <= node.created_at <= END_OF_TIME or document.source is None
        json.dumps(dict(message.meta), allow_nan=False)
    assert document.conversation.current_id in seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("start", "count"),
    [(0, NUM_SAMPLED), pytest.param(NUM_SAMPLED, NUM_IN_ALL, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])],
)
def test_mutated_files_never_end_in_a_traceback(tmp_path, name, start, count):
    whole = export_of(name, tmp_path / "made.db")
    path = tmp_path / "x"
    for seed in range(start, start + count):
        rng = random.Random(f"{name} {seed}")
        path.write_bytes(mutate(rng, whole, name))
        try:
            import_file(path, name, forced=rng.random() < 0.5)
        except BaseException:
            print(f"seed {seed}")
            raise
    assert {p.name for p in tmp_path.iterdir()} <= {"x", "made.db"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(DATABASES)))
def test_a_cut_off_file_is_reported(tmp_path, name):
    whole = export_of(name, tmp_path / "made.db")
    path = tmp_path / "x"
    path.write_bytes(whole)
    total, report = import_file(path, name, forced=False)
    assert total and not report.dropped and not report.failed
    for cut in range(1, len(whole) - 1, max(1, len(whole) // 150)):
        if b"\n" in whole[cut - 2 : cut + 1]:
            # A cut between two lines leaves a valid file.
            continue
        path.write_bytes(whole[:cut])
        _, report = import_file(path, name, forced=False)
        assert report.dropped or report.failed, cut
