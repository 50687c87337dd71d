"""The sampling parameters that a model's authors recommend."""

from __future__ import annotations

import json

from treechat.config import SAMPLING_KEYS, Sampling, is_valid
from treechat.models.files import DEFAULT_MODEL, ModelFiles

# From the model card of SmolLM2-Instruct; a GGUF has no field for these.
_CARDS = {DEFAULT_MODEL: Sampling(temperature=0.2, top_p=0.9)}

# At the temperature of the card, the default model in 4 bits answers "What is the capital of France?" five times of
# eight with an endless rhyme. Its most likely answer is right.
_GREEDY_FIRST = {DEFAULT_MODEL}


def is_greedy_first(files: ModelFiles) -> bool:
    """Whether the first reply to a message should be the most likely one."""
    return files.name in _GREEDY_FIRST


def recommended_sampling(files: ModelFiles) -> Sampling:
    """The parameters of the model card or generation_config.json, without invalid values."""
    if files.name in _CARDS:
        return _CARDS[files.name]
    try:
        config = json.loads((files.path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Sampling()
    if not isinstance(config, dict):
        return Sampling()
    return Sampling.of({key: config[key] for key in SAMPLING_KEYS if is_valid(key, config.get(key))})
