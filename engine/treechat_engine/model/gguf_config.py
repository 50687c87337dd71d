"""The configuration of a GGUF file, including values that transformers does not read.

transformers reads a table of keys per architecture. For the other values it takes the defaults of its config class,
which are those of one checkpoint. It thus silently loses the frequencies of Llama 3 and of Phi-3 128k, windows, soft
caps and widths of experts. This module reads them from the file, and refuses a file with more weights than the model.

Tested by round trip: llama, qwen2, qwen3, qwen3_moe, phi3, gemma2, gemma3, starcoder2, stablelm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import transformers

from treechat_engine.api import UnsupportedModelError

if TYPE_CHECKING:
    import gguf

_CONFIG_NAMES = {
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "context_length": "max_position_embeddings",
}
# Its key_length is that of full attention only; transformers handles this architecture completely.
_READ_IN_FULL = ("gemma4",)
_PARTIAL_ROPE = ("phi3", "stablelm", "nemotron")
# Layers of the 27B models: they scale queries by hidden size / heads, which the file does not contain (see llama.cpp).
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
# Llama 3.1 and later, all sizes: low and high frequency factor, original context.
_LLAMA3 = (1.0, 4.0, 8192)
_HINT = "Use the safetensors version of this model"

Read = Callable[[str], Any]


def gguf_config(path: Path) -> Any:
    """Return the transformers config of a .gguf file.

    Raises UnsupportedModelError for frequencies that transformers cannot express.
    """
    reader = _reader(path)
    config = transformers.AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
    architecture = _value(reader, "general.architecture")
    if architecture not in _READ_IN_FULL:
        tensors = {tensor.name: tensor for tensor in reader.tensors if tensor.name.startswith("rope_f")}
        _correct(config, architecture, lambda key: _value(reader, f"{architecture}.{key}"), tensors)
    return config


def _reader(path: Path) -> gguf.GGUFReader:
    # Imported here, because the library may be missing if no GGUF file is used.
    import gguf

    return gguf.GGUFReader(str(path))


def dequantize_options() -> dict[str, Any]:
    """Options of from_pretrained: without them, newer versions keep packed blocks if they have a kernel for them."""
    config_class = getattr(transformers, "GgufConfig", None)
    return {} if config_class is None else {"quantization_config": config_class(dequantize=True)}


def check_all_read(path: Path, model: Any) -> None:
    """Raise UnsupportedModelError if the file holds weights that the loaded model has no place for."""
    distinct = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    num_read = sum(distinct.values())
    weights = [tensor for tensor in _reader(path).tensors if not tensor.name.startswith("rope_f")]
    num_stored = sum(int(tensor.n_elements) for tensor in weights)
    if num_stored > num_read:
        reason = f"{path.name} holds {num_stored - num_read:,} weights that transformers has no place for"
        raise UnsupportedModelError(reason, _HINT)


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _correct(config: Any, architecture: str, read: Read, tensors: Mapping[str, Any]) -> None:
    """Write the file's values to the config. read: a key without its architecture -> value or None."""
    for key, name in _CONFIG_NAMES.items():
        value = read(key)
        if isinstance(value, int | float) and value > 0 and hasattr(config, name):
            setattr(config, name, value)
    if config.num_hidden_layers == _SCALED_BY_WIDTH.get(architecture):
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        return
    rope = rope.get("full_attention", rope)
    if theta := read("rope.freq_base"):
        rope["rope_theta"] = float(theta)
    width = read("rope.dimension_count")
    if width and architecture in _PARTIAL_ROPE:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        rope["partial_rotary_factor"] = config.partial_rotary_factor = width / head_dim
    if rope.get("rope_type", "default") == "default":
        rope.update(_scaling(config, rope, read, tensors))


def _scaling(config: Any, rope: Mapping[str, Any], read: Read, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rope parameters of an extended context; empty if the file has none."""
    original_len = read("rope.scaling.original_context_length")
    if "rope_factors_long.weight" in tensors:
        original_len = config.original_max_position_embeddings = original_len or config.max_position_embeddings
        factors = {
            f"{length}_factor": _floats(tensors[f"rope_factors_{length}.weight"]) for length in ("short", "long")
        }
        attention = read("rope.scaling.attn_factor")
        scaled = {} if attention is None else {"attention_factor": float(attention)}
        return {"rope_type": "longrope", "original_max_position_embeddings": original_len, **factors, **scaled}
    if "rope_freqs.weight" in tensors:
        return _llama3(rope["rope_theta"], np.array(_floats(tensors["rope_freqs.weight"])))
    kind, factor = read("rope.scaling.type"), read("rope.scaling.factor")
    if kind in (None, "none") or not factor or factor == 1.0:
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn":
        original_len = original_len or int(config.max_position_embeddings / factor)
        return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": original_len}
    raise UnsupportedModelError(f"the file scales its rotary embedding by {kind!r}, which is unknown", _HINT)


def _floats(tensor: Any) -> list[float]:
    return [float(value) for value in tensor.data.reshape(-1)]


def _llama3(theta: float, divisors: np.ndarray) -> dict[str, Any]:
    """Return the parameters whose frequency divisors are these, [D / 2]."""
    if np.allclose(divisors, 1.0):
        return {}
    low, high, original_len = _LLAMA3
    factor = float(divisors.max())
    wavelengths = 2 * math.pi * theta ** (np.arange(len(divisors)) / len(divisors))
    smooth = np.clip((original_len / wavelengths - low) / (high - low), 0, 1)
    if not np.allclose(divisors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise UnsupportedModelError("transformers cannot express the file's rotary frequencies", _HINT)
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original_len,
    }
