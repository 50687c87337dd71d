"""The fused forward: which models use it, that its results agree, and that the model gets its weights back."""

from __future__ import annotations

import pytest
import torch

from tests.engine.families import SUPPORTED, build
from treechat_engine import Engine, EngineConfig, EngineError, SamplingParams
from treechat_engine.model.decoder import RotaryTable
from treechat_kernels.cpu.sibling_attention import sibling_attention

FUSED = [
    "llama", "llama, rope llama3", "mistral", "ministral", "qwen2", "qwen2, window", "qwen3", "gemma", "gemma2",
    "gemma3", "phi3", "olmo2", "olmo3", "granite", "smollm3", "seed_oss", "cwm",
]  # fmt: skip
NOT_FUSED = {
    "mixtral": "experts",
    "gpt2": "no embed_tokens",
    "cohere": "not an RMS norm",
    "glm": "differs by",
    "gpt_oss": "experts",
}
SMALL = EngineConfig(kv_tokens=64, self_check=False)


@pytest.mark.parametrize("name", FUSED)
def test_the_standard_decoder_runs_fused_in_every_family(name):
    with Engine(build(SUPPORTED[name]), SMALL) as engine:
        stats = engine.stats()
        assert stats.forward == "fused", stats.forward_reason
        assert "computes the same" in stats.forward_reason


@pytest.mark.parametrize("name", NOT_FUSED)
def test_another_model_runs_its_own_forward_and_reports_the_reason(name):
    with Engine(build(SUPPORTED[name]), SMALL) as engine:
        stats = engine.stats()
        assert stats.forward == "transformers"
        assert NOT_FUSED[name] in stats.forward_reason


@pytest.mark.parametrize(("dtype", "factor"), [("float32", 1.01), ("float16", 1.1), ("bfloat16", 1.25)])
def test_a_forward_that_computes_something_else_is_not_chosen(dtype, factor):
    model = build(SUPPORTED["llama"]).to(getattr(torch, dtype))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.model.layers[0].mlp.register_forward_hook(lambda _module, _args, out: out * factor)
    with Engine(model, SMALL) as engine:
        assert "differ" in engine.stats().forward_reason, engine.stats().forward_reason
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]), f"{name} was not given back"


@pytest.mark.parametrize("name", ["llama", "phi3", "gemma3"])
def test_a_closed_engine_restores_the_models_weights_bit_for_bit(name):
    model = build(SUPPORTED[name])
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    Engine(model, SMALL).close()
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key]), f"{key} was not given back"


def test_the_weights_are_in_memory_once():
    model = build(SUPPORTED["llama"])
    with Engine(model, SMALL):
        linears = [model.model.layers[0].self_attn.q_proj, model.model.layers[0].mlp.up_proj]
        for weight in (linear.weight for linear in linears):
            own = weight.untyped_storage().nbytes() == weight.numel() * weight.element_size()
            assert not (own and weight.numel()), "a linear of the model holds memory of its own"


def test_the_transformers_forward_can_be_requested():
    with Engine(build(SUPPORTED["llama"]), EngineConfig(kv_tokens=64, forward="transformers")) as engine:
        assert engine.stats().forward_reason == "the configuration requires it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forward": "fused"}, "does not run this model"),
        ({"forward": "fastest"}, "unknown"),
        ({"decode_weights": "int3"}, "unknown"),
    ],
)
def test_an_unavailable_forward_is_refused(options, message):
    model = build(SUPPORTED["gpt2"])
    before = model.config._attn_implementation
    with pytest.raises(EngineError, match=message):
        Engine(model, EngineConfig(kv_tokens=64, **options))
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_smaller_weights_decode_close_to_the_exact_ones_and_do_not_change_the_prefill(form):
    ids = list(range(3, 40))
    params = SamplingParams(max_tokens=2, top_logprobs=1)
    with Engine(build(SUPPORTED["llama"]), SMALL) as engine:
        (exact,) = engine.generate([ids], params)
    with Engine(build(SUPPORTED["llama"]), EngineConfig(kv_tokens=64, decode_weights=form)) as engine:
        (small,) = engine.generate([ids], params)
    assert small.logprobs[0] == exact.logprobs[0], "the prompt's logits are float32"
    assert small.logprobs[1] != exact.logprobs[1], "the smaller weights were not used"
    assert small.logprobs[1] == pytest.approx(exact.logprobs[1], abs=0.1)


@pytest.mark.parametrize("forward", ["transformers", "fused"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral-window"])
def test_siblings_that_read_their_prefix_together_give_the_tokens_of_each_alone(
    family, forward, engines, greedy, prompt, monkeypatch
):
    calls = []

    def count(q, *args, **options):
        calls.append(q.shape[0])
        return sibling_attention(q, *args, **options)

    monkeypatch.setattr("treechat_engine.attention.attention.sibling_attention", count)
    trunk = prompt(150)
    prompts = [trunk + prompt(n, seed=n) for n in (1, 2, 2, 7)] + [prompt(20, seed=9)]
    done = engines(family, forward=forward).generate(prompts, SamplingParams(max_tokens=8))
    assert [list(each.token_ids) for each in done] == [greedy(family, ids, 8) for ids in prompts]
    shares = max(calls, default=0)
    assert shares == (0 if family == "mistral-window" else 5), "the prefix was not read together"


def test_positions_after_the_first_rotary_table_are_computed_when_needed():
    model = build(SUPPORTED["llama"])
    model.config.max_position_embeddings = 4096
    ids = [3 + i % 90 for i in range(2060)]
    results = []
    for forward in ("transformers", "fused"):
        with Engine(model, EngineConfig(kv_tokens=2200, forward=forward)) as engine:
            results.append(engine.generate([ids], SamplingParams(max_tokens=4))[0].token_ids)
    assert results[0] == results[1]


def test_a_longer_path_does_not_move_the_table_that_graphs_read():
    model = build(SUPPORTED["llama"])
    table = RotaryTable(model.model.rotary_emb, None)
    like = torch.zeros(1, 32)
    table.reserve(100, like)
    kept = table.table_for(0, like)
    cos, _ = table.at(torch.tensor([5, 4000]), 4001, like)
    assert cos.shape[0] == 2 and kept.shape[0] < 4001
    # Later short paths and captures use the same table.
    assert table.table_for(100, like) is table.table_for(0, like) is kept
    table.at(torch.tensor([9000]), 9001, like)
    assert table.table_for(0, like) is kept
