"""Models with real models' shapes and random weights, built on the device."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from tests.bench import gpu_common

# Shapes as in the models' configurations. Those with targets come first, since time may run out for the last.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "0.5B": (
        "Qwen2",
        {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
         "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    ),
    "8B": (
        "Llama",
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
    ),
    "4B": (
        "Qwen3",
        {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True},
    ),
    "135M": (
        "Llama",
        {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    ),
}  # fmt: skip


def build(shape: tuple[str, dict[str, Any]]) -> Any:
    """Return a seeded bfloat16 model on the device."""
    family, options = shape
    common = {"max_position_embeddings": 131072, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(**(options | common))
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(gpu_common.DEVICE):
            return getattr(transformers, f"{family}ForCausalLM")(config).eval()
    finally:
        torch.set_default_dtype(before)


def kv_bytes_per_token(config: Any) -> int:
    """Return the bytes of one token's keys and values in all layers, in bfloat16."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * config.num_key_value_heads * dim * 2 * 2)


def weight_bytes(model: Any) -> int:
    """Return the bytes of weights that a decoding step reads.

    They exclude the embedding, of which a step reads one row, unless the embedding is also the head.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    if not model.config.tie_word_embeddings:
        total -= model.get_input_embeddings().weight.numel()
    return 2 * total
