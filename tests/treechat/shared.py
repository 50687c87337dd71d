"""Fixtures for the tests of several layers: a small tree in a database, and an engine with a tiny model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from treechat.store import NewNode, Store
from treechat_engine import Engine, EngineConfig


def store_trip(path: Path) -> str:
    """Store one turn with two replies, the first of them current. Return the conversation's id."""
    with Store.open(path) as store:
        conversation = store.create_conversation("a trip")
        rows = [
            NewNode(None, "user", "Where to?", id="u"),
            NewNode("u", "assistant", "To **Siena**.", id="a"),
            NewNode("u", "assistant", "To *Lucca*.", id="b"),
        ]
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "a")
        return conversation.id


def tiny_engine() -> Engine:
    """Return an engine with 2,000 slots for a model of two layers of width 32. The weights are always the same."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=257,
    )  # fmt: skip
    return Engine(LlamaForCausalLM(config).float().eval(), EngineConfig(kv_tokens=2000, num_threads=1))
