"""After a restart the current branch's KV is restored from disk, with a real engine and a tiny model."""

from __future__ import annotations

import pytest

from tests.fakes import TURNS_ONLY, ByteTokenizer
from tests.treechat.shared import tiny_engine
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.model.kv_files import KVFiles
from treechat.chat.tokens.template import Template
from treechat.config import Config, Sampling
from treechat.tui.services.kv_watch import KvWatch

BRANCH_BYTES = 150 * 2 * 2 * 32 * 4
"""Bytes of about 150 tokens: keys and values, 2 layers, 32 float32 numbers."""


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(tmp_path / "cache"))
    template = Template(ByteTokenizer(TURNS_ONLY))

    def started(max_bytes: int) -> ChatModel:
        engine = tiny_engine()
        kv_files = KVFiles("tiny", max_bytes)
        kv_files.load(engine)
        return ChatModel("tiny", engine, template, before_close=lambda: kv_files.save(engine))

    return started


@pytest.mark.parametrize("max_bytes", [10_000_000, 2 * BRANCH_BYTES])
async def test_the_current_branch_is_restored_even_if_others_have_no_room(
    open_app, tmp_path, start, monkeypatch, max_bytes
) -> None:
    monkeypatch.setattr(KvWatch, "rest_s", 1_000)
    path, config = tmp_path / "x.db", Config(max_tokens=8, sampling=Sampling(temperature=0.0))
    async with open_app(path, model=start(max_bytes), config=config) as d:
        reply = await d.send("The branch that is gone on with. " * 3)
        here = d.app.chat.conversation_id
        for number in range(6):
            await d.press("ctrl+n")
            await d.send(f"{number} is another conversation. " * 3)
        d.app.switch_to(here)
        await d.until(lambda: reply.id in d.app.tree_pane.costs, "where its KV is")
        await d.press("ctrl+q")
    async with open_app(path, model=start(max_bytes), config=config, chat=here) as d:
        await d.until(lambda: reply.id in d.app.tree_pane.costs, "where its KV is")
        cost = d.app.tree_pane.costs[reply.id]
        assert (cost.mark, cost.reused) == ("◐", 0)
        assert cost.restored > 100 and cost.computed <= 2
        await d.press("tab", "w")
        await d.until(lambda: d.app.tree_pane.costs[reply.id].mark == "●", "it is warm")
        assert d.app.chat.model.engine.stats().slots_free < 2000
