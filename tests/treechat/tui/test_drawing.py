"""Only changed lines are drawn again, and the screen equals the result of a complete repaint."""

from __future__ import annotations

import random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from treechat.store import NewNode, Store
from treechat.tui.transcript.blocks import num_common
from treechat.tui.transcript.heights import CHUNK, Heights

KEYS = ("j", "k", "h", "l", "J", "K", "g", "G", "[", "]", "b", "enter", "tab", "space", "pageup", "pagedown", "f")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3 * CHUNK), st.data())
def test_heights_are_added_up_as_one_by_one(heights, data) -> None:
    tops = Heights(list(heights))
    for _ in range(5):
        index = data.draw(st.integers(0, len(heights) - 1))
        heights[index] = data.draw(st.integers(1, 500))
        tops.change(index, heights[index])
        ends = [sum(heights[: i + 1]) for i in (index - 1, index)] if index else [0, heights[0]]
        assert [tops[index], tops[index + 1]] == ends
        assert tops.total == tops[len(heights)] == sum(heights)
        assert tops.index_at(tops[index]) == index and tops.index_at(tops[index + 1] - 1) == index
    assert tops.index_at(-1) == 0
    assert tops.index_at(tops.total) == len(heights) - 1


@given(st.lists(st.sampled_from("ab")), st.lists(st.sampled_from("ab")))
def test_paths_have_in_common_what_they_begin_with(path, other) -> None:
    num = num_common(path, other)
    assert path[:num] == other[:num]
    assert num in (len(path), len(other)) or path[num] != other[num]


def grown(path) -> None:
    rng = random.Random(3)
    with Store.open(path) as store:
        conversation = store.create_conversation("a tree")
        rows = []
        for i in range(60):
            above = None if i == 0 else i - 1 if rng.random() < 0.8 else rng.randrange(i)
            text = "\n\n".join(f"{i}: **words** and `code` " * rng.randrange(1, 9) for _ in range(rng.randrange(1, 4)))
            role = "user" if above is None or rows[above].role == "assistant" else "assistant"
            rows.append(NewNode(None if above is None else f"n{above}", role, text, id=f"n{i}"))
        store.add_nodes(conversation.id, rows)


def drawn(app):
    return [list(strip.simplify()) for strip in app.screen._compositor.render_strips()]


async def whole(d):
    """Return the screen after every widget was drawn again."""
    for widget in d.app.screen.walk_children(with_self=True):
        widget.refresh()
    await d.pilot.pause()
    return drawn(d.app)


async def test_after_any_keys_the_screen_is_what_a_whole_repaint_draws(open_app, tmp_path) -> None:
    grown(tmp_path / "tree.db")
    rng = random.Random(5)
    async with open_app(tmp_path / "tree.db", size=(110, 30), load_model=None) as d:
        await d.press("tab")
        for _ in range(40):
            key = rng.choice(KEYS)
            await d.press(key)
            if d.app.composer.has_focus:
                rng.choice((d.app.tree_pane, d.app.transcript)).focus()
                await d.pilot.pause()
            assert drawn(d.app) == await whole(d), key


async def test_a_growing_reply_is_drawn_as_a_whole_repaint_draws_it(open_app, tmp_path) -> None:
    grown(tmp_path / "tree.db")
    text = "<think>\nFirst this. Then that.\n</think>\n\nSo it is:\n\n- one\n- two\n\n" + "and so on " * 60
    async with open_app(tmp_path / "tree.db", size=(110, 30), load_model=None) as d:
        chat, transcript = d.app.chat, d.app.transcript
        node_id = next(i for i in reversed(chat.path()) if i.role == "assistant").id
        d.app.composer.cursor_blink = False
        growing = SimpleNamespace(text="", turn=None)
        chat.replies[node_id] = growing
        try:
            transcript.refresh_message(node_id)
            for start in range(0, len(text), 23):
                growing.text = text[: start + 23]
                transcript.grow(node_id)
                await d.pilot.pause()
                if start == 230:
                    await d.press("tab", "tab", "pageup")
                if start == 460:
                    await d.press("pagedown", "pagedown", "pagedown")
                if start % 2:
                    # No text is lost when the reply is drawn from its beginning again.
                    d.app.redraw()
                assert drawn(d.app) == await whole(d), start
            shown = transcript.blocks.body_len(node_id)
            transcript.refresh_message(node_id)
            assert shown == transcript.blocks.body_len(node_id) > 6
        finally:
            chat.replies.clear()
