"""The settings of a conversation: system prompt, sampling, seed, model."""

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
    """The settings of one conversation in one window.

    system_prompt: the first message of a new conversation; None adds none.
    max_tokens: the longest reply, in tokens.
    sampling: a parameter that is None takes the recommendation of the model's authors.
    seed: None draws a new one for each reply; it is stored with the reply.
    model: the model that the conversation is written with; None takes any.
    """

    system_prompt: str | None = None
    max_tokens: int = 1024
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    model: str | None = None

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """Take the values of the configuration."""
        return cls(
            system_prompt=config.system_prompt,
            max_tokens=config.max_tokens,
            sampling=config.sampling,
            seed=config.seed,
        )

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """Return these settings with some replaced; `values` has the form of `own_values`."""
        others = {key: value for key, value in values.items() if key not in SAMPLING_KEYS}
        return replace(self, **others, sampling=Sampling.of(values).over(self.sampling))

    def sampling_for(self, model: ChatModel | None) -> Sampling:
        """Return each sampling parameter: the user's, else that of the model's authors, else ours."""
        authors = model.sampling if model else Sampling()
        return self.sampling.over(authors).over(_DEFAULTS)

    def params(self, model: ChatModel, sibling: int = 0, is_first: bool = False) -> SamplingParams:
        """Return the engine's sampling parameters for one reply.

        model: gives the recommended sampling and the stop ids.
        sibling: index among the replies of one request; their seeds are consecutive.
        is_first: the reply is the only one of its message.
        """
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
"""Key of a conversation's own settings in its meta."""


def own_values(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Read a conversation's own settings from its meta; invalid values are ignored."""
    found = meta.get(META_KEY)
    if not isinstance(found, Mapping):
        return {}
    return {key: found[key] for key in (*PRESET_KEYS, "model") if is_valid(key, found.get(key))}


def sampling_record(params: SamplingParams) -> Mapping[str, Any]:
    """Return the sampling parameters that a turn stores."""
    return {name: getattr(params, name) for name in _RECORDED}
