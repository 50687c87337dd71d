"""How a conversation samples and what it starts with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from treechat.chat.model.chat_model import ChatModel
from treechat.config import PRESET_KEYS, Config, is_valid
from treechat_engine import SamplingParams

# Where neither the user nor the model's authors say anything.
_DEFAULTS: Mapping[str, float] = {
    "temperature": 0.7,
    "top_p": 0.95,
    "top_k": 0,
    "min_p": 0.05,
    "repetition_penalty": 1.0,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one conversation in one window.

    Of the sampling parameters None takes what the model's authors recommend. `seed` None draws a new one for each
    reply; it is kept with the reply. `model` is what the conversation is to be written with, None any.
    """

    system_prompt: str | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    model: str | None = None

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """The values of the configuration file, defaults where it is silent."""
        return cls(
            system_prompt=config.system_prompt,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
            seed=config.seed,
        )

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """These settings with some changed; `values` as `own_values` gives them."""
        return replace(self, **values)

    def sampling_for(self, model: ChatModel | None) -> dict[str, float]:
        """What is in force of the sampling parameters: the user's, else the authors', else ours."""
        chosen = {name: getattr(self, name) for name in _DEFAULTS}
        authors = model.sampling if model else {}
        return {**_DEFAULTS, **authors, **{k: v for k, v in chosen.items() if v is not None}}

    def params(self, model: ChatModel, sibling: int = 0, is_first: bool = False) -> SamplingParams:
        """Sampling of one reply; siblings made together get seeds that follow each other. is_first: the only one that
        its message has."""
        seed = random.getrandbits(31) if self.seed is None else self.seed + sibling
        values = self.sampling_for(model)
        if is_first and model.greedy_first and self.temperature is None:
            values["temperature"] = 0.0
        return SamplingParams(
            max_tokens=self.max_tokens,
            temperature=values["temperature"],
            top_k=int(values["top_k"]),
            top_p=values["top_p"],
            min_p=values["min_p"],
            repetition_penalty=values["repetition_penalty"],
            seed=seed,
            stop_token_ids=model.stop_ids,
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
    return {
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
    }
