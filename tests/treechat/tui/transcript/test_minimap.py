"""The minimap: every message is in one cell, and each cell shows its mark of the highest precedence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treechat.chat.kv.costs import Cost
from treechat.store import NewNode, Store
from treechat.tree import Node, Tree
from treechat.tui.transcript.minimap import MARKS, Cell, Minimap, cells, with_here

WARM, PART, COLD = Cost(9, 0, 1), Cost(9, 0, 9), Cost(0, 0, 9)


def chain(num: int, **marks) -> tuple[Tree, list[str]]:
    """Return a chain of nodes n0, n1, …

    marks: `bookmarks`: ids of bookmarked nodes; `forks`: ids of nodes that get a sibling.
    """
    tree = Tree()
    path = [f"n{index}" for index in range(num)]
    for index, node_id in enumerate(path):
        parent_id = path[index - 1] if index else None
        tree.add(Node(node_id, parent_id, "user", bookmarked=node_id in marks.get("bookmarks", ())))
        if node_id in marks.get("forks", ()):
            tree.add(Node(f"other {node_id}", parent_id, "user"))
    return tree, path


@given(st.integers(0, 200), st.integers(0, 60))
def test_each_turn_is_in_one_cell_and_no_cell_is_empty(num, height):
    tree, path = chain(num)
    found = cells(tree, path, {}, height)
    assert len(found) == min(num, height)
    turns = [index for cell in found for index in range(cell.first, cell.last + 1)]
    assert turns == (list(range(num)) if height else [])
    assert [cell for index in range(num) for cell in with_here(found, index) if cell.mark == "here"] == [
        Cell(cell.first, cell.last, "here") for cell in found for _ in range(cell.first, cell.last + 1)
    ]
    sizes = [cell.last - cell.first + 1 for cell in found]
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)


def test_a_cell_shows_here_then_a_bookmark_then_a_fork_then_the_least_warm_turn():
    tree, path = chain(12, bookmarks=("n2", "n4"), forks=("n2", "n6"))
    costs = {f"n{index}": WARM for index in range(9)} | {"n8": PART, "n9": COLD, "n10": WARM}
    found = with_here(cells(tree, path, costs, 6), path.index("n4"))
    assert [cell.mark for cell in found] == ["●", "bookmark", "here", "fork", "○", "●"]
    assert len(set(MARKS.values())) == len(MARKS)


def long_tree(path) -> list[str]:
    ids = [f"n{index}" for index in range(60)]
    with Store.open(path) as store:
        conversation = store.create_conversation("long")
        rows = [
            NewNode(ids[i - 1] if i else None, "assistant" if i % 2 else "user", f"turn {i}", id=ids[i])
            for i in range(60)
        ]
        rows.append(NewNode(ids[29], "user", "another way", id="other"))
        rows.append(NewNode(ids[0], "assistant", "short", id="short"))
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, ids[-1])
    return ids


async def test_the_map_shows_cursor_forks_bookmarks_and_warmth_and_a_click_goes_there(open_app, tmp_path) -> None:
    ids = long_tree(tmp_path / "long.db")
    async with open_app(tmp_path / "long.db") as d:
        minimap = d.app.query_one(Minimap)

        def column() -> str:
            return "".join(line[-1] for line in d.screen_text().splitlines()[2:20])

        await d.until(lambda: column().count("┃") > 8, "warm turns, for the branch was rested on")
        assert column()[-1] == MARKS["here"] and column().count(MARKS["fork"]) == 2
        await d.press("tab", "tab", "g", "b")
        assert column()[0] == MARKS["here"] and column()[-1] != MARKS["here"]
        await d.press("j", "j", "j", "j", "j")
        assert column()[0] == MARKS["bookmark"]
        row = next(i for i, cell in enumerate(minimap.cells) if cell.last >= 40)
        await d.pilot.click(Minimap, offset=(0, row + 1))
        await d.until(lambda: d.app.cursor_id == ids[minimap.cells[row].first], "the turn that was clicked")
        d.app.look_at("short")
        await d.pilot.pause()
        assert not minimap.cells and not column().strip()
