"""Thoughts, calls and results are folded to one line, in imported messages and in streaming replies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import TURNS_ONLY, ByteTokenizer, scripted_model
from treechat.chat.tokens.template import Template
from treechat.store import NewNode, Store
from treechat.tree import preview_of
from treechat.tui.transcript.message_parts import FoldedPart, split_message, split_thoughts
from treechat.tui.transcript.streaming_reply import StreamingReply

PARTS = [
    {"type": "thoughts", "text": "First *this*."},
    {"type": "redacted", "raw": {}},
    {"type": "thoughts", "text": "Then that."},
    {"type": "call", "name": "python", "arguments": {"code": "1+1"}},
    {"type": "result", "name": "python", "text": "2"},
    {"type": "thoughts"},
]
TEXT = "[thoughts]\n\n[called python]\n\n[result of python]\n\n[thoughts]\n\nIt is two."


def test_imported_parts_are_put_at_their_placeholders() -> None:
    assert split_message(TEXT, True, PARTS) == [
        FoldedPart("thoughts", "First *this*.\n\nThen that.", True),
        FoldedPart("called python", '{\n  "code": "1+1"\n}'),
        FoldedPart("result of python", "2"),
        FoldedPart("thoughts", "", True),
        "It is two.",
    ]
    # A placeholder without a part, or inside a sentence, is the user's text.
    assert split_message("[called perl]\n\nIn [thoughts] only", True, PARTS) == ["[called perl]\n\nIn [thoughts] only"]
    assert split_message(TEXT, True) == [TEXT]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>\na\n</think>\n\nb", ("a", "b")),
        (" <think>never ends", ("never ends", "")),
        ("[THINK]a[/THINK]b", ("a", "b")),
        ("a plan\n</think>\n\nb", ("a plan", "b")),
        ("say `<think>` and\n</think>\nb", None),
        ("a < b", None),
        ("", None),
    ],
)
def test_thoughts_are_split_from_the_text(text, found) -> None:
    assert split_thoughts(text) == found


def test_thoughts_of_others_are_text() -> None:
    assert split_message("<think>a</think>b", False) == ["<think>a</think>b"]
    assert split_message("<think>\n\n</think>\n\nb", True) == ["b"]


def test_hostile_texts_take_linear_time() -> None:
    num = 100_000
    assert len(split_message("<think>a</think>" * num, True)) <= 21
    assert split_message("a\n</think>\n" * num, True)[0] == FoldedPart("thoughts", "a", True)
    parts = [{"type": "image"}, {"type": "call", "name": "y"}] * num
    text = "\n\n".join(["[called x]"] * num)
    assert split_message(text, True, parts) == [text]
    assert len(split_message(text.replace("x", "y"), True, parts)) == num
    assert preview_of("<think></think>" * num + "[called x" * num).startswith("[called x")
    growing = StreamingReply(40)
    for _ in range(num):
        growing.append("<think>")
    assert growing.rows[0] == "▸ thinking, 1 word"


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "/thi", "nk>", " a word", "\n", "x", "[THINK]", "["])))
def test_a_growing_reply_is_the_same_however_it_is_cut(pieces) -> None:
    for is_open in (False, True):
        growing = StreamingReply(30, is_open=is_open)
        for piece in pieces:
            growing.append(piece)
        assert growing.rows == StreamingReply(30, "".join(pieces), is_open=is_open).rows


def test_a_growing_reply_counts_its_thoughts_and_shows_their_last_words() -> None:
    growing = StreamingReply(40)
    for piece in ("<thi", "nk>\nOne ", "two th", "ree\nfour</th"):
        growing.append(piece)
    assert growing.rows == ["▸ thinking, 4 words", "One two three four"]
    growing.append("ink>\n\nSo: ")
    growing.append("*five*")
    assert growing.rows == ["▸ thoughts, 4 words", "", "So: *five*"]
    inside = StreamingReply(40, "hm", begins_inside=True, is_open=True)
    assert inside.rows == ["▾ thinking, 1 word", "hm"]
    assert StreamingReply(40, "<think></think>\nYes").rows == ["Yes"]


def test_rows_of_the_tree_show_the_first_words_after_the_thoughts() -> None:
    assert preview_of("<think>long plan</think>\n\nYes.") == "Yes."
    assert preview_of(TEXT) == "It is two."
    assert preview_of("[image: a.png]\n\nWhat is it?") == "What is it?"
    assert preview_of("[thoughts]") == "[thoughts]"
    assert preview_of("<think>not done") == "<think>not done"
    assert preview_of("[called to order] we met") == "we met"


async def test_imported_thoughts_unfold_by_key_and_by_mouse_and_are_copied_only_then(open_app, tmp_path) -> None:
    path = tmp_path / "x.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("imported").id
        rows = [
            NewNode(None, "user", "How much?", "u"),
            NewNode("u", "assistant", TEXT, "a", meta={"parts": PARTS}),
        ]
        store.add_nodes(conversation, rows)
        store.set_current(conversation, "a")
    async with open_app(path, size=(120, 30)) as d:
        app = d.app
        copied = []
        app.copy_to_clipboard = copied.append
        assert "▸ thoughts, 4 words" in d.screen_text()
        assert "Then that." not in d.screen_text()
        await d.press("tab", "tab", "y")
        assert copied.pop() == "[called python]\n\n[result of python]\n\nIt is two."
        await d.press("o")
        assert "▾ thoughts, 4 words" in d.screen_text()
        assert "│ First this." in d.screen_text()
        assert '│   "code": "1+1"' in d.screen_text()
        await d.press("y")
        assert copied.pop() == 'First *this*.\n\nThen that.\n\n{\n  "code": "1+1"\n}\n\n2\n\nIt is two.'
        await d.press("o")
        assert "code" not in d.screen_text()
        lines = d.screen_text().split("\n")
        y = next(i for i, line in enumerate(lines) if "▸ result of python, 1 word" in line)
        await d.pilot.click(offset=(lines[y].index("result"), y))
        await d.until(lambda: "│ 2" in d.screen_text(), "the result alone")
        assert "code" not in d.screen_text()
        await d.press("k", "o")
        assert "no thoughts in this message" in d.screen_text()


async def test_thoughts_are_counted_during_streaming_and_folded_at_the_end(open_app) -> None:
    thoughts = "word " * 40
    async with open_app(reply=f"<think>\n{thoughts}\n</think>\n\nThe **answer**.", size=(120, 30)) as d:
        app = d.app
        engine = app.chat.model.engine
        engine.pause_at = 60
        app.composer.put("think")
        await d.press("enter")
        await d.until(lambda: "▸ thinking, 11 words" in d.screen_text(), "a count")
        await d.press("tab", "tab", "o")
        await d.until(lambda: "▾ thinking, 11 words" in d.screen_text(), "unfolded while it grows")
        engine.gate.set()
        await d.until(lambda: d.is_idle and "The answer." in d.screen_text(), "the reply")
        assert "▾ thoughts, 40 words" in d.screen_text()
        await d.press("o")
        assert "▸ thoughts, 40 words" in d.screen_text()
        assert "word word" not in d.screen_text()
        assert app.chat.tree[app.chat.current_id].preview == "The **answer**."
        await d.press("r")
        await d.until(lambda: len(app.chat.tree) == 3 and d.is_idle, "a second one")
        await d.press("v")
        await d.until(lambda: app.screen is not app.main_screen and "thoughts, 40" in d.screen_text(), "side by side")
        await d.press("t")
        await d.until(lambda: "│ word word" in d.screen_text(), "unfolded there")


async def test_thoughts_that_begin_in_the_prompt_are_recognized_from_the_first_word_and_after_a_stop(
    open_app,
) -> None:
    tokenizer = ByteTokenizer(TURNS_ONLY)
    render = tokenizer.apply_chat_template
    tokenizer.apply_chat_template = lambda messages, *, tokenize, add_generation_prompt: (
        render(messages, tokenize=tokenize, add_generation_prompt=add_generation_prompt)
        + ("<think>\n" if add_generation_prompt else "")
    )
    model = replace(scripted_model("Let me see.\n</think>\n\nYes."), template=Template(tokenizer))
    async with open_app(model=model, size=(100, 30)) as d:
        model.engine.pause_at = 6
        d.app.composer.put("well?")
        await d.press("enter")
        await d.until(lambda: "▸ thinking, 2 words" in d.screen_text(), "a count from the first word")
        await d.press("escape")
        await d.until(lambda: d.is_idle and "▸ thoughts, 2 words" in d.screen_text(), "what came before it was stopped")
        model.engine.pause_at = None
        reply = await d.send("again")
        assert "▸ thoughts, 3 words" in d.screen_text()
        assert d.app.transcript.cache.visible_text(d.app.chat, reply.id) == "Yes."
