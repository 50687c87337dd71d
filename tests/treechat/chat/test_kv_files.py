"""KV between runs: a real engine of a tiny model loads the KV that the previous one saved."""

from __future__ import annotations

import logging
import os
import time

import pytest

from tests.fakes import ByteTokenizer
from tests.treechat.shared import tiny_engine
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.model.kv_files import MAX_AGE_S, KVFiles, kv_dir, remove_old
from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.chat.tokens.template import Template
from treechat.config import Sampling


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(tokenizer) -> tuple[ChatModel, int]:
    """Load a model like the app does; returns it and the number of tokens with saved KV."""
    engine = tiny_engine()
    kv_files = KVFiles("tiny", 10_000_000)
    found = kv_files.load(engine)
    return ChatModel("tiny", engine, Template(tokenizer), before_close=lambda: kv_files.save(engine)), found


async def test_the_next_start_reuses_the_saved_kv(store):
    settings = Settings(max_tokens=5, sampling=Sampling(temperature=0.0))
    model, found = start(ByteTokenizer())
    assert found == 0
    chat = Chat.new(store, settings, model)
    async for _ in chat.send("Hello, which way is it to the sea?"):
        pass
    reply = chat.current_id
    model.close()
    model.close()
    model, found = start(ByteTokenizer())
    chat = Chat.open(store, chat.conversation_id, settings, model)
    cost = chat.kv.cost(reply)
    assert found > 0
    assert (cost.restored, cost.computed, cost.mark) == (found, 1, "◐")
    async for _ in chat.send("And back?"):
        pass
    turn = chat.turn(chat.current_id)
    assert turn.restored_tokens == found
    assert turn.cached_tokens == 0
    model.close()


def test_each_model_has_its_own_directory_whatever_its_name(cache):
    names = ("org/model", "org-model", "/home/me/model", "../../x", "", "長" * 100, "a" * 300)
    directories = [kv_dir(name) for name in names]
    assert len(set(directories)) == len(names)
    assert all(directory.parent == cache / "kv" for directory in directories)


def test_old_files_are_removed_except_those_of_the_current_model(tmp_path):
    for name in ("old", "current", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.safetensors").touch()
    then = time.time() - MAX_AGE_S - 1
    for name in ("old", "current"):
        os.utime(tmp_path / name, (then, then))
    remove_old(tmp_path, tmp_path / "current")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "new"]


def test_a_directory_that_cannot_be_written_is_logged_and_not_raised(cache, caplog):
    model, _ = start(ByteTokenizer())
    cache.mkdir()
    (cache / "kv").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        model.close()
    assert "KV is not saved" in caplog.text
