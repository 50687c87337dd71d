"""Fixtures: tiny random models of several families, and engines over them with poisoned free slots."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers

from tests.interpreting import patch_once
from treechat_engine import Engine, EngineConfig

torch.set_num_threads(1)
patch_once()

COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_GEMMA2 = {"sliding_window": 12, "head_dim": 16, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 16}
_GPT_OSS = {"sliding_window": 12, "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1}
_FEW_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    # For tests that interpret kernels, whose time grows with the heads of each token.
    "llama-few-heads": ("Llama", {"num_attention_heads": 3, "num_key_value_heads": 1}),
    "gemma2-few-heads": ("Gemma2", {**_GEMMA2, **_FEW_HEADS}),
    "gpt-oss-few-heads": ("GptOss", {**_GPT_OSS, **_FEW_HEADS}),
    "qwen2": ("Qwen2", {}),
    "mistral-window": ("Mistral", {"sliding_window": 12}),
    "gemma2-softcap-window": ("Gemma2", _GEMMA2),
    "gpt-oss-sinks": ("GptOss", _GPT_OSS),
}


def build(family: str, **changes: Any) -> Any:
    """Return a seeded float32 model of the family. Its weights are large, so greedy text varies."""
    name, options = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**(COMMON | options | changes))
    torch.manual_seed(7)
    model = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim >= 2 or "sinks" in parameter_name:
                parameter.normal_(0, 0.15)
    return model


@pytest.fixture(scope="session")
def models() -> Callable[[str], Any]:
    """Return models(family) -> a model that belongs to the test."""
    built: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in built:
            built[family] = build(family)
        return copy.deepcopy(built[family])

    return get


@pytest.fixture(scope="session")
def greedy(models: Callable[[str], Any]) -> Callable[[str, list[int], int], list[int]]:
    """Return greedy(family, ids, n) -> the n tokens that transformers generates."""
    references: dict[str, Any] = {}

    @functools.cache
    def run(family: str, ids: tuple[int, ...], num_tokens: int) -> tuple[int, ...]:
        if family not in references:
            references[family] = models(family)
            references[family].set_attn_implementation("eager")
        with torch.inference_mode():
            out = references[family].generate(torch.tensor([ids]), max_new_tokens=num_tokens, do_sample=False)
        return tuple(out[0, len(ids) :].tolist())

    return lambda family, ids, num_tokens: list(run(family, tuple(ids), num_tokens))


@pytest.fixture
def engines(models: Callable[[str], Any]) -> Iterator[Callable[..., Engine]]:
    """Yield engines(family, **config) -> an engine whose free slots hold NaN. Check finally that no slot is lost."""
    started: list[Engine] = []

    def start(family: str = "llama", **config: Any) -> Engine:
        # Tests hook into the transformers forward. The exactness tests choose each of the two forwards.
        options = {"kv_tokens": 600, "forward": "transformers"} | config
        engine = Engine(models(family), EngineConfig(**options), poison=True)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.close()
        engine.cache.check()
        stats = engine.stats()
        assert stats.running == stats.waiting == 0
        assert stats.slots_free + stats.slots_cached == stats.slots_total, "a slot was not given back"


@pytest.fixture(scope="session")
def prompt() -> Callable[..., list[int]]:
    """Return prompt(n, seed) -> n random token ids."""

    def make(num_tokens: int, seed: int = 0) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(COMMON["vocab_size"], (num_tokens,), generator=generator).tolist()

    return make
