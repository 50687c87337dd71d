"""How a model's authors recommend to sample from it."""

from __future__ import annotations

import json

from treechat.config import SAMPLING_KEYS, Sampling, is_valid
from treechat.models.files import DEFAULT_MODEL, ModelFiles

# From the model card of SmolLM2-Instruct; a GGUF has no place for it.
_CARDS = {DEFAULT_MODEL: Sampling(temperature=0.2, top_p=0.9)}

# At the card's temperature the default model, in 4 bits, answers five of eight times what the capital of France is with
# a rhyme that never ends; its most likely answer is right.
_GREEDY_FIRST = {DEFAULT_MODEL}


def is_greedy_first(files: ModelFiles) -> bool:
    """Whether a message's first reply should be the most likely one."""
    return files.name in _GREEDY_FIRST


def recommended_sampling(files: ModelFiles) -> Sampling:
    """`temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty` as the model
    card or generation_config.json names them, with values that make sense."""
    if files.name in _CARDS:
        return _CARDS[files.name]
    try:
        config = json.loads((files.path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Sampling()
    if not isinstance(config, dict):
        return Sampling()
    return Sampling.of({key: config[key] for key in SAMPLING_KEYS if is_valid(key, config.get(key))})
