"""How a conversation samples and what it starts with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from treechat.chat.model.chat_model import ChatModel
from treechat.config import PRESET_KEYS, SAMPLING_KEYS, Config, Sampling, is_valid
from treechat_engine import SamplingParams

# Used if neither the user nor the model's authors set a parameter.
_DEFAULTS = Sampling(temperature=0.7, top_p=0.95, top_k=0, min_p=0.05, repetition_penalty=1.0)

_RECORDED = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one conversation in one window.

    Of the sampling parameters None takes what the model's authors recommend. `seed` None draws a new one for each
    reply; it is kept with the reply. `model` is what the conversation is to be written with, None any.
    """

    system_prompt: str | None = None
    max_tokens: int = 1024
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    model: str | None = None

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """The values of the configuration file, defaults where it is silent."""
        return cls(
            system_prompt=config.system_prompt,
            max_tokens=config.max_tokens,
            sampling=config.sampling,
            seed=config.seed,
        )

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """These settings with some changed; `values` as `own_values` gives them."""
        others = {key: value for key, value in values.items() if key not in SAMPLING_KEYS}
        return replace(self, **others, sampling=Sampling.of(values).over(self.sampling))

    def sampling_for(self, model: ChatModel | None) -> Sampling:
        """What is in force of the sampling parameters: the user's, else the authors', else ours."""
        authors = model.sampling if model else Sampling()
        return self.sampling.over(authors).over(_DEFAULTS)

    def params(self, model: ChatModel, sibling: int = 0, is_first: bool = False) -> SamplingParams:
        """Sampling of one reply; siblings made together get seeds that follow each other. is_first: the only one that
        its message has."""
        seed = random.getrandbits(31) if self.seed is None else self.seed + sibling
        sampling = self.sampling_for(model)
        if is_first and model.greedy_first and self.sampling.temperature is None:
            sampling = replace(sampling, temperature=0.0)
        return SamplingParams(
            max_tokens=self.max_tokens,
            seed=seed,
            stop_token_ids=model.stop_ids,
            **sampling.chosen(),
        )


META_KEY = "settings"
"""Where a conversation's own settings are in its meta."""


def own_values(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a conversation has of its own, from its meta; a value that no one could have set is left out."""
    found = meta.get(META_KEY)
    if not isinstance(found, Mapping):
        return {}
    return {key: found[key] for key in (*PRESET_KEYS, "model") if is_valid(key, found.get(key))}


def sampling_record(params: SamplingParams) -> Mapping[str, Any]:
    """What a turn keeps of its sampling parameters."""
    return {name: getattr(params, name) for name in _RECORDED}
