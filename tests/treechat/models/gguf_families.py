"""Tiny models of other families as GGUF files with the names and rules of llama.cpp, for round-trip tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
import transformers

from tests.treechat.models.conftest import write_tokenizer

VOCAB_SIZE = 263
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LONG_FACTORS = [1.0, 2.0, 3.0]


class Family(NamedTuple):
    """A model and the metadata of its file besides the common keys.

    prefix: of transformers' class names. architecture: llama.cpp's name. metadata: without the architecture.
    norm_offset: what llama.cpp adds to the weights of norms.
    """

    prefix: str
    architecture: str
    options: Mapping[str, Any] = MappingProxyType({})
    metadata: Mapping[str, Any] = MappingProxyType({})
    norm_offset: float = 0.0


FAMILIES: dict[str, Family] = {
    "llama 3": Family("Llama", "llama", {"rope_parameters": _LLAMA3, "head_dim": 8}),
    "llama, linear": Family(
        "Llama",
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, "head_dim": 8},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "qwen2": Family("Qwen2", "qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2, yarn": Family(
        "Qwen2",
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
    ),
    "qwen3": Family("Qwen3", "qwen3", {"head_dim": 16}),
    "qwen3_moe": Family(
        "Qwen3Moe",
        "qwen3moe",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
        },
    ),
    "phi3": Family("Phi3", "phi3", {"sliding_window": 12}),
    "phi3, longrope": Family(
        "Phi3",
        "phi3",
        {
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0] * 3,
                "long_factor": _LONG_FACTORS,
                "original_max_position_embeddings": 64,
            },
        },
        {"rope.dimension_count": 6, "rope.scaling.original_context_length": 64},
    ),
    "gemma2": Family(
        "Gemma2",
        "gemma2",
        {"head_dim": 16, "sliding_window": 12, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 256},
        norm_offset=1.0,
    ),
    "gemma3": Family(
        "Gemma3",
        "gemma3",
        {
            "head_dim": 16,
            "sliding_window": 12,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
        norm_offset=1.0,
    ),
    "starcoder2": Family(
        "Starcoder2",
        "starcoder2",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}, "sliding_window": None},
    ),
    "stablelm": Family("StableLm", "stablelm", {"layer_norm_eps": 1e-5}, {"rope.dimension_count": 2}),
}


def build(family: Family) -> Any:
    """A seeded float32 model of the family, with random norm weights."""
    name = family.prefix + ("TextConfig" if hasattr(transformers, family.prefix + "TextConfig") else "Config")
    config = getattr(transformers, name)(**(_COMMON | dict(family.options)))
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model


def write(path: Path, family: Family, model: Any) -> Path:
    """The model as a float32 GGUF with a byte-level tokenizer."""
    writer = gguf.GGUFWriter(str(path), family.architecture)
    config = model.config
    assert write_tokenizer(writer) == VOCAB_SIZE
    values = {key: getattr(config, name, None) for key, name in _KEYS.items()}
    values["attention.layer_norm_epsilon"] = getattr(config, "norm_epsilon", getattr(config, "layer_norm_eps", None))
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    values |= {"rope.freq_base": rope["rope_theta"], "rope.dimension_count": getattr(config, "head_dim", None)}
    for key, value in (values | dict(family.metadata)).items():
        if value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
            add(f"{family.architecture}.{key}", value)
    for name, tensor in _tensors(family, model):
        writer.add_tensor(name, np.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(family: Family, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a model as llama.cpp's convert_hf_to_gguf.py writes them."""
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    tied = model.config.tie_word_embeddings
    for ours, tensor in model.state_dict().items():
        if ours == "lm_head.weight" and tied:
            continue
        if ours.endswith("experts.gate_up_proj"):
            block = f"blk.{ours.split('.')[2]}"
            gate, up = tensor.chunk(2, dim=1)
            yield from ((f"{block}.ffn_gate_exps.weight", gate), (f"{block}.ffn_up_exps.weight", up))
            continue
        stem, dot, suffix = ours.rpartition(".")
        if suffix not in ("weight", "bias"):
            stem, dot, suffix = ours, ".", "weight"
        theirs = names.get_name(stem)
        assert theirs is not None, f"llama.cpp has no name for {ours}"
        if "norm" in ours and suffix == "weight":
            tensor = tensor + family.norm_offset
        if family.architecture == "llama" and (".attn_q" in theirs or ".attn_k" in theirs):
            tensor = _interleaved(tensor, model.config.head_dim)
        yield theirs + dot + suffix, tensor
    rope = model.config.rope_parameters
    if rope.get("rope_type") == "llama3":
        plain = rope["rope_theta"] ** -(torch.arange(0, model.config.head_dim, 2) / model.config.head_dim)
        yield "rope_freqs.weight", plain / model.model.rotary_emb.inv_freq
    if rope.get("rope_type") == "longrope":
        yield "rope_factors_long.weight", torch.tensor(rope["long_factor"])
        yield "rope_factors_short.weight", torch.tensor(rope["short_factor"])


def _interleaved(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Interleave the two rotated halves, as llama.cpp does for this architecture."""
    return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
