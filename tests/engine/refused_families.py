"""Families that the engine refuses, each with a pattern of the error's reason."""

from __future__ import annotations

from tests.engine.families import Family

_LAYERS_OF = r"layers of type {}"
_KEPT = "kept another attention"
REFUSED: dict[str, tuple[Family, str]] = {
    "llama, rope dynamic": (
        Family("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}),
        "dynamic, which depends on the longest position",
    ),
    "phi3, longrope": (
        Family(
            "Phi3",
            {
                "original_max_position_embeddings": 64,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 10000.0,
                    "short_factor": [1.0] * 4,
                    "long_factor": [4.0] * 4,
                    "original_max_position_embeddings": 64,
                },
            },
        ),
        "longrope, which depends on the longest position",
    ),
    "llama4": (Family("Llama4", {"head_dim": 16}), _LAYERS_OF.format("chunked_attention")),
    "mamba": (Family("Mamba"), _LAYERS_OF.format("linear_attention")),
    "mamba2": (
        Family("Mamba2", {"num_heads": 4, "head_dim": 16, "n_groups": 1}),
        _LAYERS_OF.format("linear_attention"),
    ),
    "jamba": (Family("Jamba", {"attn_layer_period": 2, "attn_layer_offset": 1}), _LAYERS_OF.format("linear_attention")),
    "bamba": (Family("Bamba", {"mamba_n_heads": 8, "mamba_d_head": 8}), _LAYERS_OF.format("linear_attention")),
    "falcon_h1": (Family("FalconH1"), _LAYERS_OF.format("hybrid")),
    "granitemoehybrid": (
        Family("GraniteMoeHybrid", {"mamba_n_heads": 8, "mamba_d_head": 8, "layer_types": ["mamba", "attention"]}),
        _LAYERS_OF.format("linear_attention"),
    ),
    "qwen3_next": (Family("Qwen3Next", {"head_dim": 16}), _LAYERS_OF.format("linear_attention")),
    "recurrent_gemma": (Family("RecurrentGemma"), _LAYERS_OF.format("linear_attention")),
    "lfm2": (Family("Lfm2", {"layer_types": ["conv", "full_attention"]}), _LAYERS_OF.format("conv")),
    "rwkv": (Family("Rwkv"), _KEPT),
    "falcon": (Family("Falcon"), _KEPT),
    "bloom": (Family("Bloom"), _KEPT),
    "mpt": (Family("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}), _KEPT),
    "gptj": (Family("GPTJ", {"rotary_dim": 8}), _KEPT),
    "codegen": (Family("CodeGen", {"rotary_dim": 8}), _KEPT),
    "gpt_neo": (Family("GPTNeo", {"attention_types": [[["global", "local"], 1]]}), _KEPT),
    "xglm": (Family("XGLM"), _KEPT),
    "bert": (Family("Bert"), "not causal"),
    "deepseek_v32": (Family("DeepseekV32"), _LAYERS_OF.format("indexed_attention")),
    "kimi_linear": (Family("KimiLinear"), _LAYERS_OF.format("linear_attention")),
    "bart, decoder only": (Family("Bart"), "attends in 12 layers, its configuration names 2"),
    "diffllama": (Family("DiffLlama"), "attend more than once"),
    "doge": (Family("Doge"), "a mask or bias of its own"),
}
# Only the configurations of these are checked, since transformers has no causal language model of them.
REFUSED_CONFIGS = ["T5", "Bart", "MBart", "Pegasus", "Whisper", "MT5", "UMT5"]
# Refused up to transformers 5.23. From 5.24 on their attention is found, and they must be exact.
EXACT_IN_SOME = ("gptj", "codegen")
