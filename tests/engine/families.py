"""Tiny random models of the transformers families that the engine runs; `refused_families.py` has the others.

`tests/engine/test_families.py` checks each family; `python -m tests.bench.families` prints the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import transformers

VOCAB_SIZE = 128
# The longest path of the checks is longer than the window, so the window hides some keys.
WINDOW = 12

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_WINDOW: dict[str, Any] = {"sliding_window": WINDOW}
_MIXED: dict[str, Any] = _WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_HEAD_DIM: dict[str, Any] = {"head_dim": 16}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}
_PARTIAL_ROPE: dict[str, Any] = {"partial_rotary_factor": 0.5}


class Family(NamedTuple):
    """A family of models.

    prefix: the start of its transformers class names.
    options: values that differ from the common tiny configuration.
    config: name of the configuration's class; empty if it follows from the prefix.
    """

    prefix: str
    options: Mapping[str, Any] = MappingProxyType({})
    config: str = ""


SUPPORTED: dict[str, Family] = {
    "llama": Family("Llama"),
    "llama, rope llama3": Family(
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, rope yarn": Family(
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "mistral": Family("Mistral", _WINDOW),
    "mixtral": Family("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "ministral": Family("Ministral", _MIXED | _HEAD_DIM),
    "ministral3": Family("Ministral3", _HEAD_DIM | {"sliding_window": None}),
    "qwen2": Family("Qwen2"),
    "qwen2, window": Family("Qwen2", _WINDOW | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen2_moe": Family("Qwen2Moe", _EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3": Family("Qwen3", _HEAD_DIM),
    "qwen3_moe": Family("Qwen3Moe", _EXPERTS | _HEAD_DIM),
    "gemma": Family("Gemma", _HEAD_DIM),
    "gemma2": Family("Gemma2", _MIXED | _HEAD_DIM | {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 16}),
    "gemma3": Family("Gemma3", _MIXED | _HEAD_DIM | {"query_pre_attn_scalar": 16}),
    "phi": Family("Phi", _PARTIAL_ROPE),
    "phi3": Family("Phi3", _WINDOW),
    "phimoe": Family("Phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "gpt_oss": Family("GptOss", _MIXED | _HEAD_DIM | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmo": Family("Olmo"),
    "olmo2": Family("Olmo2"),
    "olmo3": Family("Olmo3", _MIXED),
    "olmoe": Family("Olmoe", _EXPERTS),
    "flex_olmo": Family("FlexOlmo", _EXPERTS),
    "cohere": Family("Cohere", {"logit_scale": 0.25, "use_qk_norm": True}),
    "cohere2": Family("Cohere2", _MIXED | {"logit_scale": 0.25}),
    "granite": Family("Granite", {"attention_multiplier": 0.3, "embedding_multiplier": 2.0, "logits_scaling": 4.0}),
    "granitemoe": Family("GraniteMoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoeshared": Family(
        "GraniteMoeShared", {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 24}
    ),
    "starcoder2": Family("Starcoder2", _WINDOW),
    "stablelm": Family("StableLm", _PARTIAL_ROPE | {"use_qkv_bias": True, "qk_layernorm": True}),
    "smollm3": Family("SmolLM3", {"no_rope_layers": [1, 0]}),
    "glm": Family("Glm", _HEAD_DIM | _PARTIAL_ROPE),
    "glm4": Family("Glm4", _HEAD_DIM | _PARTIAL_ROPE),
    "glm4_moe": Family(
        "Glm4Moe",
        _HEAD_DIM
        | _PARTIAL_ROPE
        | {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    "exaone4": Family("Exaone4", _MIXED),
    "ernie4_5": Family("Ernie4_5", _HEAD_DIM),
    "ernie4_5_moe": Family(
        "Ernie4_5_Moe",
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_layer_start_index": 0},
    ),
    "hunyuan_v1_dense": Family("HunYuanDenseV1", _HEAD_DIM),
    "hunyuan_v1_moe": Family("HunYuanMoEV1", _HEAD_DIM | {"num_experts": 4, "moe_topk": 2}),
    "seed_oss": Family("SeedOss", _HEAD_DIM),
    "helium": Family("Helium", {"head_dim": 8}),
    "nemotron": Family("Nemotron", _PARTIAL_ROPE),
    "gpt_neox": Family("GPTNeoX", {"rotary_pct": 0.5}),
    "gpt2": Family("GPT2", {"n_inner": 48}),
    "gpt_bigcode": Family("GPTBigCode", {"n_inner": 48, "multi_query": True}),
    "opt": Family("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "apertus": Family("Apertus"),
    "arcee": Family("Arcee"),
    "biogpt": Family("BioGpt"),
    "bitnet": Family("BitNet"),
    "persimmon": Family("Persimmon"),
    "vaultgemma": Family("VaultGemma", _MIXED | _HEAD_DIM),
    "nanochat": Family("NanoChat"),
    "jetmoe": Family("JetMoe", {"kv_channels": 16, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "afmoe": Family(
        "Afmoe",
        _MIXED | _EXPERTS | _HEAD_DIM | {"num_dense_layers": 1, "num_experts": 4, "num_shared_experts": 1},
    ),
    "cwm": Family("Cwm", _MIXED | _HEAD_DIM | {"bos_token_id": 1}),
    "solar_open": Family(
        "SolarOpen", _HEAD_DIM | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    ),
    "minimax_m2": Family("MiniMaxM2", _HEAD_DIM | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": Family("DeepseekV2", _LATENT | {"topk_method": "greedy", "num_experts_per_tok": 2}),
    "deepseek_v3": Family("DeepseekV3", _LATENT | {"num_experts_per_tok": 2}),
    "dots1": Family(
        "Dots1",
        _MIXED | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1},
    ),
    "gemma3n": Family(
        "Gemma3n",
        _HEAD_DIM
        | _WINDOW
        | {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB_SIZE,
            "laurel_rank": 8,
            "activation_sparsity_pattern": None,
        },
    ),
    "gemma4": Family(
        "Gemma4",
        _HEAD_DIM
        | _WINDOW
        | {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB_SIZE,
            "global_head_dim": 24,
        },
    ),
    "mimo_v2_flash": Family(
        "MiMoV2Flash",
        _MIXED
        | {
            "head_dim": 16,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
        },
    ),
    "exaone_moe": Family("ExaoneMoe", _MIXED | _EXPERTS | _HEAD_DIM),
    "cohere2_moe": Family("Cohere2Moe", _MIXED | _HEAD_DIM | {"num_experts": 4}),
    "gemma3, with images": Family(
        "Gemma3",
        {
            "text_config": _COMMON | _MIXED | _HEAD_DIM,
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
            "image_token_index": VOCAB_SIZE - 1,
            "boi_token_index": VOCAB_SIZE - 2,
            "eoi_token_index": VOCAB_SIZE - 3,
        },
        "Gemma3Config",
    ),
    "minicpm3": Family("MiniCPM3", _LATENT),
    "glm4_moe_lite": Family("Glm4MoeLite", _LATENT | {"num_experts_per_tok": 2, "n_shared_experts": 1}),
    "jais2": Family("Jais2"),
    "hy_v3": Family("HYV3", _HEAD_DIM | _EXPERTS),
    "laguna": Family("Laguna", _EXPERTS),
    "mellum": Family("Mellum", _EXPERTS),
    "aria_text": Family("AriaText"),
    "ctrl": Family("CTRL"),
    "modernbert_decoder": Family(
        "ModernBertDecoder",
        _MIXED | {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "local_attention": WINDOW},
    ),
}


def config_of(family: Family) -> Any:
    """Return the family's tiny configuration."""
    names = (family.config, f"{family.prefix}TextConfig", f"{family.prefix}Config")
    name = next(name for name in names if name and hasattr(transformers, name))
    return getattr(transformers, name)(**(_COMMON | dict(family.options)))


def build(family: Family) -> Any:
    """Return a seeded float32 model of the family. Its weights are large, so greedy text varies."""
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config_of(family), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 or "sinks" in name or "bias" in name:
                parameter.normal_(0, 0.2)
    return model
