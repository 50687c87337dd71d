"""Large trees open and scroll without a pause, and a branch with cached lines is drawn at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from treechat.store import NewNode, Store

BODY = "A paragraph with **bold** words and `code`, long enough to be wrapped over more than one line of a terminal.\n"


def chain(path, num: int) -> None:
    with Store.open(path) as store:
        conversation = store.create_conversation("deep")
        rows = [
            NewNode(f"n{i - 1}" if i else None, "assistant" if i % 2 else "user", f"{i}: {BODY * 2}", id=f"n{i}")
            for i in range(num)
        ]
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, f"n{num - 1}")


async def test_a_thousand_turns_deep_open_at_their_end_and_scroll_to_the_first(open_app, tmp_path) -> None:
    path = tmp_path / "deep.db"
    chain(path, 1_000)
    async with open_app(path) as d:
        assert "999: A paragraph" in d.screen_text()
        assert d.app.transcript.is_at_end
        await d.press("tab", "tab", "g")
        assert "0: A paragraph" in d.screen_text()
        assert d.app.transcript.scroll_y == 0
        for _ in range(6):
            await d.press("pagedown")
        assert d.app.transcript.scroll_y > 60
        await d.press("G")
        assert "999: A paragraph" in d.screen_text()


async def test_lines_in_sight_stay_while_heights_above_are_learnt(open_app, tmp_path) -> None:
    path = tmp_path / "deep.db"
    chain(path, 60)
    async with open_app(path) as d:
        transcript = d.app.transcript
        seen = []
        while transcript.scroll_y > 0:
            top = transcript.blocks.node_ids[transcript.blocks.index_at(round(transcript.scroll_y))]
            seen.append(int(top[1:]))
            transcript.scroll_to(y=transcript.scroll_y - 1, animate=False)
        assert seen == sorted(seen, reverse=True)
        assert set(seen) >= set(range(1, 50))


async def test_five_thousand_siblings_open_and_scroll(open_app, tmp_path) -> None:
    path = tmp_path / "wide.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("wide")
        rows = [NewNode(None, "user", "root", id="root")]
        for i in range(2_500):
            rows.append(NewNode("root", "assistant", f"branch {i}", id=f"b{i}"))
            rows.append(NewNode(f"b{i}", "user", f"on {i}", id=f"c{i}"))
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "c7")
    async with open_app(path, size=(140, 40)) as d:
        assert len(d.app.tree_pane.rows) == 2_501
        await d.press("tab")
        for _ in range(20):
            await d.press("J")
        assert d.app.cursor_id == "c27"
        d.app.tree_pane.scroll_end(animate=False)
        await d.until(lambda: "branch 2499" in d.screen_text(), "the last row")


async def test_a_warm_branch_is_drawn_at_once(open_app, tmp_path) -> None:
    path = tmp_path / "two.db"
    chain(path, 200)
    with Store.open(path) as store:
        conversation_id = store.conversations()[0].id
        rows = [NewNode("n99", "user", "side branch", id="s0")]
        rows += [NewNode(f"s{i}", "assistant" if i % 2 == 0 else "user", BODY * 3, id=f"s{i + 1}") for i in range(100)]
        store.add_nodes(conversation_id, rows)
    async with open_app(path, size=(120, 40)) as d:
        app = d.app
        seconds = []
        for target in ["s100", "n199"] * 4:
            start = time.perf_counter()
            app.look_at(target, anchor="end")
            for y in range(app.transcript.size.height):
                app.transcript.render_line(y)
            seconds.append(time.perf_counter() - start)
        assert sorted(seconds[2:])[len(seconds[2:]) // 2] < 0.15


async def test_what_a_token_costs_does_not_grow_with_the_reply(open_app) -> None:
    async with open_app() as d:
        await d.send("hello")
        transcript = d.app.transcript
        chat, node_id = d.app.chat, d.app.chat.current_id

        class Growing:
            text = ""
            turn = None

        chat.replies[node_id] = Growing
        try:
            transcript.refresh_message(node_id)

            def seconds_for(num: int) -> float:
                start = time.perf_counter()
                for _ in range(num):
                    Growing.text += "word "
                    transcript.grow(node_id)
                return time.perf_counter() - start

            first = min(seconds_for(200) for _ in range(3))
            Growing.text += "word " * 100_000
            transcript.grow(node_id)
            last = min(seconds_for(200) for _ in range(3))
        finally:
            chat.replies.clear()
        assert last < 10 * first + 0.05


async def test_a_chain_of_twenty_thousand_opens_and_its_keys_do_not_wait(open_app, tmp_path) -> None:
    path = tmp_path / "chain.db"
    chain(path, 20_000)
    async with open_app(path, load_model=None) as d:
        app = d.app
        assert "19999: A paragraph" in d.screen_text() and app.transcript.is_at_end
        # Only a few texts were read.
        assert len(app.chat.nodes.loaded_texts) < 100
        await d.press("tab", "tab")
        start = time.perf_counter()
        for key in ("k", "k", "j", "g", "G") * 2:
            await d.press(key)
        assert time.perf_counter() - start < 20
        assert app.cursor_id == "n19999"
        app.jump("n0")
        await d.until(lambda: "0: A paragraph" in d.screen_text(), "the first message alone")
        app.jump("n19999")
        await d.until(lambda: "1: A paragraph" in d.screen_text(), "where the branch goes on")
        assert app.transcript.num_lines > 60_000


def test_textual_makes_frames_as_fast_as_is_asked_for() -> None:
    script = "from treechat.tui import FPS; from textual import constants; assert constants.MAX_FPS == FPS > 60"
    env = {key: value for key, value in os.environ.items() if key != "TEXTUAL_FPS"}
    subprocess.run([sys.executable, "-c", script], check=True, env=env)
