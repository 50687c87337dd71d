"""Models that the engine refuses with a reason, and models that fail its check at load time."""

from __future__ import annotations

import pytest
import torch
import transformers

from treechat_engine import Engine, EngineConfig, UnsupportedModelError
from treechat_engine.model.support import check_config


def test_encoder_decoders_are_refused():
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        check_config(transformers.T5Config())


@pytest.mark.parametrize("kind", ["linear_attention", "conv", "chunked_attention"])
def test_layers_other_than_attention_are_refused_by_name(kind):
    config = transformers.Qwen2Config(num_hidden_layers=2, layer_types=["full_attention", kind])
    with pytest.raises(UnsupportedModelError, match=kind):
        check_config(config)


def test_rotary_embeddings_that_depend_on_the_longest_position_are_refused():
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(UnsupportedModelError, match="dynamic"):
        check_config(transformers.LlamaConfig(rope_parameters=rope))


def test_a_recurrent_model_is_refused():
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=1)
    )
    with pytest.raises(UnsupportedModelError):
        Engine(model, EngineConfig(kv_tokens=64))


def test_a_layer_that_kept_its_own_attention_is_refused(models):
    model = models("llama")
    layer = model.model.layers[1].self_attn
    layer.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(UnsupportedModelError, match="1 of 2 layers"):
        Engine(model, EngineConfig(kv_tokens=64))


def test_a_model_that_mixes_tokens_outside_its_attention_fails_the_self_check(models):
    model = models("llama")
    model.model.layers[0].mlp.register_forward_hook(lambda _module, _args, out: out + out.cumsum(1))
    with pytest.raises(UnsupportedModelError, match="differ"):
        Engine(model, EngineConfig(kv_tokens=64))


def test_a_refused_model_gets_its_own_attention_back(models):
    model = models("llama")
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    before = model.config._attn_implementation
    with pytest.raises(UnsupportedModelError):
        Engine(model, EngineConfig(kv_tokens=64))
    assert model.config._attn_implementation == before


def test_a_bfloat16_engine_passes_its_self_check(models, prompt):
    with Engine(models("llama").to(torch.bfloat16), EngineConfig(kv_tokens=64)) as engine:
        assert engine.stats().dtype == "bfloat16"
        assert len(engine.generate([prompt(10)])[0].token_ids) > 0
