"""The values of the engine's public API. Imports no torch, so an app can use them before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "error"]
Priority = Literal["interactive", "fan-out", "warm"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "fan-out", "warm")


class EngineError(Exception):
    """Base of the engine's errors. `hint` says what would work, or is empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint


class UnsupportedModelError(EngineError):
    """The engine cannot run this architecture exactly. The message gives the reason."""


class PromptTooLongError(EngineError):
    """The request does not fit into an empty cache, or is longer than the model's context."""


class EngineClosedError(EngineError):
    """The engine was closed, or its thread died."""


class RequestFailedError(EngineError):
    """A step of this request raised. Other requests continue."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The configuration of an engine. Raises EngineError for numbers out of range.

    device: a torch device string; None chooses cuda, then cpu.
    dtype: "float32", "bfloat16" or "float16"; None is bfloat16 on CUDA and float32 elsewhere.
    kv_tokens: slots of the device pool, one token each; None takes a share of the free memory.
    host_tokens: slots of the host pool, which stores KV evicted from the device; 0 means none.
    max_batch: most requests in one step.
    prefill_chunk: most prompt tokens in one step.
    eviction: name of the eviction policy ("tree", "lru", "lfu", "fifo").
    num_threads: torch intra-op threads; None keeps torch's choice.
    max_model_len: longest path in tokens; None takes the model's own limit.
    self_check: compare cached tokens with the model's own eager forward at load time.
    forward: "fused" requires the fused forward, "transformers" uses that of transformers. "auto" uses the fused forward
        if a comparison at load time shows that it computes the same, else that of transformers.
    decode_weights: "float16" or "int8" adds a smaller copy of the weights for steps of few tokens on a CPU. It is
        faster, and not exact: the guarantees on tokens hold for "float32" only.
    cuda_graphs: on CUDA, decode by graphs, captured at the first use of each size.
    deterministic: a reply's tokens and log-probabilities are bitwise the same, whatever other requests run. Each
        sequence is computed alone, in chunks that other requests do not change, and the last token of a prompt alone.
        The same prompt, parameters and seed then give the same reply if the prompt's cached KV is the same; `runner.py`
        has the conditions. Batches are no faster, and a prompt takes one more forward.
    """

    device: str | None = None
    dtype: str | None = None
    kv_tokens: int | None = None
    host_tokens: int = 0
    max_batch: int = 8
    prefill_chunk: int = 512
    eviction: str = "tree"
    num_threads: int | None = None
    max_model_len: int | None = None
    self_check: bool = True
    forward: str = "auto"
    decode_weights: str = "float32"
    cuda_graphs: bool = True
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise EngineError(f"{name} is {value}", f"It must be at least {least}")


_LEAST = {"max_batch": 1, "prefill_chunk": 1, "kv_tokens": 1, "host_tokens": 0, "num_threads": 1, "max_model_len": 2}


# Larger numbers would make logits overflow float32.
_MAX_SHIFT = 1e6


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The sampling parameters of one request. Raises ValueError for values out of range.

    max_tokens: most tokens to generate.
    temperature: 0 is greedy, and so is any value under 0.00001.
    top_k: 0 cuts nothing.
    top_p: 1 cuts nothing.
    min_p: a share of the most likely token's probability.
    repetition_penalty: divides positive logits of earlier tokens of prompt and reply, multiplies negative ones.
    presence_penalty: subtracted from the logit of each token of the reply.
    frequency_penalty: subtracted once per occurrence in the reply.
    seed: None draws one; `Finished.seed` reports it.
    stop_token_ids: end the reply and are part of it, like the model's own end tokens.
    ignore_eos: ignore the model's end tokens and `stop_token_ids`.
    top_logprobs: alternatives reported per token, 0 to 20.
    logit_bias: added to the logits of these ids; -inf forbids an id.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    top_logprobs: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = {
            "max_tokens must be at least 1": self.max_tokens >= 1,
            "temperature must be between 0 and 1,000,000": 0 <= self.temperature <= _MAX_SHIFT,
            "top_k must be 0 or more": self.top_k >= 0,
            "top_p must be in (0, 1]": 0 < self.top_p <= 1,
            "min_p must be in [0, 1]": 0 <= self.min_p <= 1,
            "repetition_penalty must be between 0.001 and 1,000": 0.001 <= self.repetition_penalty <= 1000,
            "presence_penalty must be within 1,000,000 of 0": abs(self.presence_penalty) <= _MAX_SHIFT,
            "frequency_penalty must be within 1,000,000 of 0": abs(self.frequency_penalty) <= _MAX_SHIFT,
            "top_logprobs must be between 0 and 20": 0 <= self.top_logprobs <= 20,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(message)
        for token_id, value in self.logit_bias.items():
            if not isinstance(token_id, int):
                raise ValueError(f"logit_bias names token {token_id!r}, which is not an integer")
            if not (abs(value) <= _MAX_SHIFT or value == -math.inf):
                raise ValueError(f"the logit_bias of token {token_id} is {value}: not within 1,000,000 of 0")


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of a request. prompt_tokens = cached + restored + computed.

    prompt_tokens: length of the prompt.
    cached_tokens: its tokens found on the device.
    restored_tokens: its tokens copied from lower tiers.
    computed_tokens: its computed tokens, each counted once: a request that gave its slots back may compute some of them
        again.
    completion_tokens: generated tokens.
    queue_s: seconds from submission to the start.
    ttft_s: seconds from submission to the first token.
    total_s: seconds from submission to the end.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    restored_tokens: int = 0
    computed_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token. `top` holds (id, logprob) pairs, most likely first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream.

    reason: why the reply ended.
    usage: the cost of the request.
    seed: the seed that was used.
    token_ids: the generated tokens.
    error: the text of the error if reason is "error", else None.
    """

    reason: FinishReason
    usage: Usage
    seed: int
    token_ids: tuple[int, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One complete reply, returned by `Engine.generate`.

    token_ids: the generated tokens.
    logprobs: their log-probabilities.
    finish_reason: why the reply ended.
    usage: the cost of the request.
    seed: the seed that was used.
    top: per token, the (id, logprob) pairs of the alternatives.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    usage: Usage
    seed: int
    top: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Residency:
    """Tokens of a path by the place of their KV.

    resident: in device memory.
    host: in a lower tier: host memory or disk.
    cold: nowhere.
    """

    resident: int = 0
    host: int = 0
    cold: int = 0

    @property
    def total(self) -> int:
        return self.resident + self.host + self.cold


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of an engine. Slots are tokens.

    model: its name.
    device: where it runs.
    dtype: its precision.
    slots_total: slots of the device pool.
    slots_free: free slots.
    slots_cached: slots of the tree.
    running: requests that take part in steps.
    waiting: requests in the queue.
    evicted_tokens: tokens removed from the device so far.
    prefill_tokens_per_s: a moving estimate, None before the first prefill.
    decode_tokens_per_s: a moving estimate, None before the first step of decoding.
    forward: "fused" or "transformers".
    forward_reason: why this forward was chosen.
    host_total: slots of the host pool.
    host_cached: tokens in the host pool.
    restored_tokens: tokens copied from lower tiers so far.
    graphs: the number of CUDA graphs for decoding, or why there are none; empty without CUDA or if they are disabled.
    """

    model: str
    device: str
    dtype: str
    slots_total: int
    slots_free: int
    slots_cached: int
    running: int
    waiting: int
    evicted_tokens: int
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    forward: str = "transformers"
    forward_reason: str = ""
    host_total: int = 0
    host_cached: int = 0
    restored_tokens: int = 0
    graphs: str = ""
