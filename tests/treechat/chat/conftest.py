"""Fixtures: a store in memory, and a chat model with a scripted engine."""

from __future__ import annotations

import pytest

from tests.fakes import ByteTokenizer, ScriptedEngine
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.template import Template
from treechat.store import Store


@pytest.fixture
def store():
    with Store.open(None) as opened:
        yield opened


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(["Hello."], num_slots=1_000, max_len=10_000)


@pytest.fixture
def model(engine: ScriptedEngine) -> ChatModel:
    return ChatModel("scripted", engine, Template(ByteTokenizer()))
