"""Check whether the engine can run a model exactly. Each refusal has its reason.

Of 73 model types of transformers (`python -m tests.bench.families` prints the table):

- Run, with the tokens of transformers through prefill, chunks, fork, jump, batch, eviction and rebuild. By the fused
  forward: cwm, gemma, gemma2, gemma3, granite, llama, ministral, ministral3, mistral, olmo2, olmo3, phi3, qwen2,
  qwen3, seed_oss, smollm3, vaultgemma. By that of transformers: afmoe, apertus, arcee, aria_text, biogpt, bitnet,
  cohere, cohere2, cohere2_moe, ctrl, deepseek_v2, deepseek_v3, dots1, ernie4_5, ernie4_5_moe, exaone4, exaone_moe,
  flex_olmo, gemma3n, gemma4, glm, glm4, glm4_moe, glm4_moe_lite, gpt2, gpt_bigcode, gpt_neox, gpt_oss, granitemoe,
  granitemoeshared, helium, hunyuan_v1_dense, hunyuan_v1_moe, hy_v3, jais2, jetmoe, laguna, mellum, mimo_v2_flash,
  minicpm3, minimax_m2, mixtral, modernbert_decoder, nanochat, nemotron, olmo, olmoe, opt, persimmon, phi, phimoe,
  qwen2_moe, qwen3_moe, solar_open, stablelm, starcoder2.
- Refused, with the reason: recurrent, hybrid and convolution layers (mamba, mamba2, jamba, bamba, falcon_h1,
  granitemoehybrid, qwen3_next, recurrent_gemma, lfm2, rwkv); chunked attention (llama4); encoder-decoders (t5, bart,
  whisper and similar); attention that transformers implements inline (falcon, bloom, mpt, gptj, codegen, gpt_neo,
  xglm); two attentions in a layer (diffllama); indexed or compressed attention (deepseek_v32); attention that is not
  causal (bert); a bias computed for the scores (doge); `longrope` and `dynamic` rotary embeddings, unless
  `max_model_len` is within the original context, in which they do not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from treechat_engine.api import UnsupportedModelError
from treechat_engine.attention.attention import ProbeContext
from treechat_engine.attention.context import use_context
from treechat_engine.kvcache.slots import LayerShape

_SUPPORTED_LAYERS = ("full_attention", "sliding_attention")
# Their rotary frequencies depend on the longest position of the batch, so a cached key would be wrong later.
_UNSUPPORTED_ROPE = ("longrope", "dynamic")
_WHAT_WORKS = "Decoder-only models with full or sliding-window attention work, such as Llama, Qwen, Mistral and Gemma"


class ModelSpec(NamedTuple):
    """The properties of a model that the engine needs.

    layer_shapes: (num_kv_heads, k_dim, v_dim) per attention layer.
    vocab_size: ids are below it.
    max_len: the model's longest path in tokens; None if it has no limit.
    eos_ids: the model's end tokens.
    min_window: the smallest sliding window of any layer, in tokens; None if all layers see the whole path.
    """

    layer_shapes: list[LayerShape]
    vocab_size: int
    max_len: int | None
    eos_ids: frozenset[int]
    min_window: int | None = None


def check_config(config: Any, max_len: int | None = None) -> None:
    """Raise UnsupportedModelError for a transformers config that the engine cannot run exactly.

    max_len: the engine's longest path in tokens; None: the model's own limit.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError("encoder-decoder models have no single cached path", _WHAT_WORKS)
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ())
    if unsupported := sorted(kinds - set(_SUPPORTED_LAYERS)):
        raise UnsupportedModelError(f"the model has layers of type {', '.join(unsupported)}", _WHAT_WORKS)
    if getattr(text, "attention_chunk_size", None) and getattr(text, "no_rope_layers", None):
        raise UnsupportedModelError("the model has chunked attention", _WHAT_WORKS)
    for rope in _ropes(getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)):
        _check_rope(rope, text, max_len)


def _check_rope(rope: Mapping[str, Any], text: Any, max_len: int | None) -> None:
    """Refuse frequencies that change if the batch has a long position, unless no path can be that long."""
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in _UNSUPPORTED_ROPE:
        return
    fixed_len = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
    fixed_len = fixed_len or getattr(text, "max_position_embeddings", None)
    if max_len is not None and fixed_len is not None and max_len <= fixed_len:
        return
    reason = f"the model's rotary embedding is {kind}, which depends on the longest position in the batch"
    hint = f"Within its original context it is fixed: set max_model_len to at most {fixed_len}" if fixed_len else ""
    raise UnsupportedModelError(reason, hint)


def _ropes(parameters: object) -> Iterator[Mapping[str, Any]]:
    """Yield a config's rope parameters, which some models nest by layer type."""
    if not isinstance(parameters, Mapping):
        return
    yield parameters
    for value in parameters.values():
        yield from _ropes(value)


def inspect_model(model: Any) -> ModelSpec:
    """Run two tokens through the model to record how each layer attends. Its attention must already be the engine's.

    Raises UnsupportedModelError if a layer kept another attention.
    """
    text = model.config.get_text_config(decoder=True)
    probe = ProbeContext()
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with refusing("a forward without transformers' own cache"), use_context(probe), torch.inference_mode():
        model(input_ids=ids, position_ids=torch.arange(2, device=model.device)[None], use_cache=False)
    _check_layers([layer for layer, _, _ in probe.calls], text.num_hidden_layers)
    for layer, kind in enumerate(getattr(text, "layer_types", None) or ()):
        if kind == "sliding_attention" and probe.calls[layer][2].sliding_window is None:
            raise UnsupportedModelError(f"layer {layer} has a sliding window that is only in its mask", _WHAT_WORKS)
    windows = [options.sliding_window for _, _, options in probe.calls if options.sliding_window is not None]
    return ModelSpec(
        layer_shapes=[shape for _, shape, _ in probe.calls],
        vocab_size=text.vocab_size,
        max_len=getattr(text, "max_position_embeddings", None),
        eos_ids=_eos_ids(model),
        min_window=min(windows, default=None),
    )


@contextmanager
def refusing(operation: str) -> Iterator[None]:
    """Refuse a model whose forward raises. Models of transformers raise many kinds of exceptions."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise UnsupportedModelError(f"{operation} fails: {error}", _WHAT_WORKS) from error


def _check_layers(attended: list[int], num_layers: int) -> None:
    """Refuse a model unless each layer attends once, in order, through the engine's attention."""
    if attended == list(range(num_layers)):
        return
    if not attended:
        raise UnsupportedModelError(
            "the model kept another attention: none of its layers calls the engine's", _WHAT_WORKS
        )
    if len(attended) != len(set(attended)):
        raise UnsupportedModelError("the model has layers that attend more than once in a forward", _WHAT_WORKS)
    if len(attended) > num_layers:
        reason = f"the model attends in {len(attended)} layers, its configuration names {num_layers}"
        raise UnsupportedModelError(reason, _WHAT_WORKS)
    reason = f"the model kept another attention: {len(attended)} of {num_layers} layers attend through the engine's"
    raise UnsupportedModelError(reason, _WHAT_WORKS)


def _eos_ids(model: Any) -> frozenset[int]:
    """Return the model's own end tokens: those of its generation config, else of its config."""
    for config in (getattr(model, "generation_config", None), model.config):
        eos = getattr(config, "eos_token_id", None)
        if eos is not None:
            return frozenset(eos if isinstance(eos, list | tuple) else [eos])
    return frozenset()
