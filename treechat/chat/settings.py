"""How a conversation samples and what it starts with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treechat.config import Config
from treechat_engine import SamplingParams


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one conversation in one window. `seed` None draws a new one for each reply; it is kept with the reply."""

    system_prompt: str | None = None
    max_tokens: int = 1024
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.05
    seed: int | None = None

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """The values of the configuration file, defaults where it is silent."""
        names = ("system_prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed")
        chosen = {name: getattr(config, name) for name in names}
        return cls(**{name: value for name, value in chosen.items() if value is not None})

    def params(self, stop_ids: tuple[int, ...], sibling: int = 0) -> SamplingParams:
        """Sampling of one reply; siblings made together get seeds that follow each other."""
        seed = random.getrandbits(31) if self.seed is None else self.seed + sibling
        return SamplingParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            seed=seed,
            stop_token_ids=stop_ids,
        )


def sampling_record(params: SamplingParams) -> Mapping[str, Any]:
    """What a turn keeps of its sampling parameters."""
    return {
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
    }
