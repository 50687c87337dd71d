"""Which models the engine can run exactly: the refusals, each with its reason, and the check at load time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from treechat_engine.api import EngineError, UnsupportedModelError
from treechat_engine.attention import ATTENTION_NAME, ProbeContext
from treechat_engine.cache import KVCache
from treechat_engine.context import use
from treechat_engine.runner import ModelRunner, Work
from treechat_engine.slots import LayerShape

_SUPPORTED_LAYERS = ("full_attention", "sliding_attention")
# Rotary frequencies of these depend on the longest position of the batch, so a cached key would be wrong later.
_UNSUPPORTED_ROPE = ("longrope", "dynamic")
_WHAT_WORKS = "Decoder-only models with full or sliding-window attention work, such as Llama, Qwen, Mistral and Gemma"
_CHECK_LEN = 32
# Largest difference of a logit, as a share of the largest logit.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class ModelSpec(NamedTuple):
    """What the engine needs to know of a model. layer_shapes: (num_kv_heads, k_dim, v_dim) per attention layer."""

    layer_shapes: list[LayerShape]
    vocab_size: int
    max_len: int | None
    eos_ids: frozenset[int]


def check_config(config: Any) -> None:
    """Raises UnsupportedModelError for a transformers config that the engine cannot run exactly."""
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError("encoder-decoder models have no single cached path", _WHAT_WORKS)
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ())
    if unsupported := sorted(kinds - set(_SUPPORTED_LAYERS)):
        raise UnsupportedModelError(f"the model has layers of type {', '.join(unsupported)}", _WHAT_WORKS)
    if getattr(text, "attention_chunk_size", None) and getattr(text, "no_rope_layers", None):
        raise UnsupportedModelError("the model has chunked attention", _WHAT_WORKS)
    for rope_type in _rope_types(getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)):
        if rope_type in _UNSUPPORTED_ROPE:
            reason = f"the model's rotary embedding is {rope_type}, which depends on the longest position in the batch"
            raise UnsupportedModelError(reason, "A variant without extended context usually has a fixed one")


def _rope_types(parameters: object) -> Iterator[str]:
    """Every rope type named in a config's rope parameters, which some models nest by layer type."""
    if not isinstance(parameters, Mapping):
        return
    for key, value in parameters.items():
        if key in ("rope_type", "type") and isinstance(value, str):
            yield value
        else:
            yield from _rope_types(value)


def inspect_model(model: Any) -> ModelSpec:
    """Runs two tokens through the model to see how each layer attends. Its attention must be ours by now.

    Raises UnsupportedModelError where a layer kept another attention.
    """
    text = model.config.get_text_config(decoder=True)
    probe = ProbeContext()
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with use(probe), torch.inference_mode():
        model(input_ids=ids, position_ids=torch.arange(2, device=model.device)[None], use_cache=False)
    layers = [layer for layer, _, _ in probe.calls]
    if layers != list(range(text.num_hidden_layers)):
        reason = f"{len(set(layers))} of {text.num_hidden_layers} layers attend through the engine's attention"
        raise UnsupportedModelError(reason, _WHAT_WORKS)
    for layer, kind in enumerate(getattr(text, "layer_types", None) or ()):
        if kind == "sliding_attention" and probe.calls[layer][2].sliding_window is None:
            raise UnsupportedModelError(f"layer {layer} has a sliding window that only its mask knows", _WHAT_WORKS)
    return ModelSpec(
        layer_shapes=[shape for _, shape, _ in probe.calls],
        vocab_size=text.vocab_size,
        max_len=getattr(text, "max_position_embeddings", None),
        eos_ids=_eos_ids(model),
    )


def _eos_ids(model: Any) -> frozenset[int]:
    """The model's own end tokens: those of its generation config, else of its config."""
    for config in (getattr(model, "generation_config", None), model.config):
        eos = getattr(config, "eos_token_id", None)
        if eos is not None:
            return frozenset(eos if isinstance(eos, list | tuple) else [eos])
    return frozenset()


def self_check(model: Any, runner: ModelRunner, cache: KVCache, spec: ModelSpec) -> float:
    """Compares 32 tokens computed in pieces over the cache with the model's own eager forward.

    Returns the largest difference of a logit. Raises UnsupportedModelError where it is too large.
    """
    num_tokens = min(_CHECK_LEN, cache.num_slots, spec.max_len or _CHECK_LEN)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(spec.vocab_size, (num_tokens,), generator=generator).tolist()
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            expected = (
                model(input_ids=torch.tensor([ids], device=runner.device), use_cache=False).logits[0, -2:].float()
            )
    finally:
        model.set_attn_implementation(ATTENTION_NAME)
    lease = cache.lease(ids)
    if not cache.grow(lease, num_tokens):
        raise EngineError(f"{num_tokens} slots are needed to check the model, {cache.num_free} are free")
    rows = []
    for start, stop in ((0, num_tokens // 2), (num_tokens // 2, num_tokens - 1), (num_tokens - 1, num_tokens)):
        rows.append(runner.step([Work(ids[start:stop], start, lease.runs, True)]))
    cache.release(lease)
    difference = float((torch.cat(rows[1:]).float() - expected).abs().max())
    tolerance = _TOLERANCES.get(rows[0].dtype, 1e-1) * max(1.0, float(expected.abs().max()))
    if not difference <= tolerance:
        reason = f"cached and plain forwards differ by {difference:.2g} in a logit, more than {tolerance:.2g}"
        raise UnsupportedModelError(reason, "The model does more with its past than attend to it")
    return difference
