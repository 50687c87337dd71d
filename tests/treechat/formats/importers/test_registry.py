"""All importers on random conversations: nodes, parents, the order of siblings and texts are kept."""

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.treechat.formats.writers import DATABASES, WRITERS, WrittenMessage, children, sillytavern, trees
from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.registry import IMPORTERS
from treechat.store import Store
from treechat.transfer.import_writer import import_document

ONE_TREE = sorted(set(WRITERS) - {"sillytavern"})
DEEP = [WrittenMessage(i - 1 if i else None, "assistant" if i % 2 else "user", f"{i}.") for i in range(2_000)]
random_trees = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def outline(document: Document) -> list[tuple[int, str, str]]:
    """Return depth, role and text of each node, parents before children, siblings in order."""
    depths: dict[str | None, int] = {None: -1}
    rows = []
    for message in document.messages:
        depths[message.node.id] = depths[message.node.parent_id] + 1
        rows.append((depths[message.node.id], message.node.role, message.text))
    return rows


def expected(tree: list[WrittenMessage]) -> list[tuple[int, str, str]]:
    rows, stack = [], [(0, number) for number in reversed(children(tree, None))]
    child_ids: dict[int | None, list[int]] = {}
    for number, item in enumerate(tree):
        child_ids.setdefault(item.parent, []).append(number)
    while stack:
        depth, number = stack.pop()
        rows.append((depth, tree[number].role, tree[number].text))
        stack.extend((depth + 1, child) for child in reversed(child_ids.get(number, [])))
    return rows


def test_each_importer_has_a_writer():
    assert {name.partition(" ")[0] for name in WRITERS} | {"treechat", "llm"} == set(IMPORTERS)


@pytest.mark.parametrize("name", ONE_TREE)
@random_trees
@given(tree=trees())
@example(tree=DEEP)
def test_trees_are_kept(read, name, tree):
    # Flat formats repeat each path, and the standard library cannot write deep nesting.
    tree = tree[:100] if name in ("openai", "sharegpt", "librechat nested") else tree
    found = read(WRITERS[name](tree), name.partition(" ")[0])
    [document] = found.documents
    assert outline(document) == expected(tree)
    assert found.report.dropped == found.report.failed == []
    if name not in ("openai", "sharegpt", "basemode-loom"):
        assert found.message(found.current).text == tree[-1].text


@pytest.mark.parametrize("name", sorted(DATABASES))
@random_trees
@given(tree=trees())
@example(tree=DEEP)
def test_trees_in_a_database_are_kept(read, tmp_path, name, tree):
    [document] = read(DATABASES[name](tree, tmp_path / "made.db"), name.partition(" ")[0]).documents
    assert outline(document) == expected(tree)


@random_trees
@given(tree=trees())
def test_swipes_along_a_branch_are_kept(read, tree):
    [document] = read(sillytavern(tree), "sillytavern").documents
    level, first = [], children(tree, None)
    while first:
        level.append([tree[number].text for number in first])
        first = children(tree, first[0])
    by_depth: dict[int, list[str]] = {}
    for depth, _, text in outline(document):
        by_depth.setdefault(depth, []).append(text)
    assert list(by_depth.values()) == level


@pytest.mark.parametrize("name", sorted(WRITERS))
@random_trees
@given(tree=trees())
def test_a_grown_export_adds_what_is_new_to_the_same_tree(read, name, tree):
    report = ImportReport()
    with Store.open(None) as store:
        for part in (tree[: len(tree) // 2 + 1], tree, tree):
            for document in read(WRITERS[name](part), name.partition(" ")[0]).documents:
                import_document(store, document, name, report)
        [info] = store.conversations()
        whole = store.load_tree(info.id)
    assert report.conversations == 1 and report.nodes == len(whole)
    if name != "sillytavern":
        assert len(whole) == len(tree)
