"""Filters of the tree's rows, and the breadcrumb above them."""

from __future__ import annotations

from tests.fakes import scripted_model
from treechat.store import NewNode, Store
from treechat.tree import Node, Tree
from treechat.tui.tree.filters import apply_filter, breadcrumb
from treechat.tui.tree.rows import RowLayout


def a_tree() -> Tree:
    """u1 - a1 - u2 - a2, and a1 - u3 - a3 with a bookmark, and a second reply b1 to u1."""
    edges = [("u1", None), ("a1", "u1"), ("u2", "a1"), ("a2", "u2"), ("u3", "a1"), ("a3", "u3"), ("b1", "u1")]
    nodes = [
        Node(i, parent, "user" if i[0] == "u" else "assistant", preview=f"text of {i}", bookmarked=i == "a3")
        for i, parent in edges
    ]
    return Tree(nodes)


def rows_of(chosen, current_id="a2", warm=()) -> list[str]:
    tree = a_tree()
    layout = RowLayout(tree, current_id)
    apply_filter(layout, tree, chosen, current_id, warm)
    assert all(row.guides == "" for row in layout.rows)
    return [row.tip_id for row in layout.rows]


def test_each_filter_keeps_its_rows_and_the_current_one() -> None:
    assert rows_of("forks only") == ["u1", "a1", "a2"]
    assert rows_of("my turns") == ["u1", "u2", "u3"]
    assert rows_of("bookmarked") == ["a2", "a3"]
    assert set(rows_of("warm", warm={"b1"})) == {"a2", "b1"}


def test_an_excluded_node_belongs_to_the_row_above() -> None:
    tree = a_tree()
    layout = RowLayout(tree, "a2")
    apply_filter(layout, tree, "my turns", "a2", ())
    assert layout.rows[layout.row_of("a3")].tip_id == "u3"
    assert layout.rows[layout.row_of("b1")].tip_id == "u1"


def test_the_breadcrumb_keeps_its_end() -> None:
    tree = a_tree()
    assert breadcrumb(tree, "a2", 80) == "text of u1 › text of a1 › text of u2"
    assert breadcrumb(tree, "a2", 20) == "… of a1 › text of u2"


async def test_one_key_goes_through_the_filters(open_app) -> None:
    async with open_app(size=(120, 30)) as d:
        await d.send("one")
        await d.send("two")
        await d.press("tab", "f", "f")
        await d.until(lambda: "f my turns" in d.screen_text(), "the filter's name")
        assert [d.app.chat.text(row.tip_id) for row in d.app.tree_pane.rows] == ["one", "two"]
        await d.press("k")
        assert d.app.chat.text(d.app.cursor_id) == "one"
        await d.press("f")
        assert len(d.app.tree_pane.rows) == 1
        await d.press("f", "f")
        assert d.app.tree_pane.filter == "everything"


async def test_the_warm_filter_follows_the_cache(open_app, tmp_path) -> None:
    path = tmp_path / "warm.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("warm")
        rows = [NewNode(None, "user", "root", id="r")]
        rows += [NewNode("r", "assistant", f"branch {i}", id=f"b{i}") for i in range(3)]
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "b0")
    model = scripted_model("x")
    async with open_app(path, size=(120, 30), model=model) as d:
        await d.until(lambda: model.engine.warmed, "the current branch is warmed by resting on it")
        await d.press("tab", "f", "f", "f", "f")
        assert d.app.tree_pane.filter == "warm"
        d.app.chat.kv.warm("b2")
        await d.until(lambda: "b2" in {row.tip_id for row in d.app.tree_pane.rows}, "the branch that became warm")


async def test_hoisting_shows_the_breadcrumb(open_app) -> None:
    async with open_app(size=(120, 30), reply=lambda n: f"reply {n}") as d:
        await d.send("a question")
        await d.press("tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a fork")
        await d.press("z")
        await d.until(lambda: "a question › reply 1" in d.screen_text(), "the breadcrumb")
        await d.press("Z")
        await d.until(lambda: "›" not in d.screen_text(), "the whole tree")
