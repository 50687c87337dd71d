"""From logits to the next token. Each request has its own state and seeded generator, so a reply does not depend on
what shared its batch.

The order of the operations is that of transformers: penalties, bias, temperature, top-k, top-p, min-p. Reported
log-probabilities are those of the model's own distribution, before any of these.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch

from treechat_engine.api import SamplingParams, Token


class Sampler:
    """The sampling state of one request: its generator and, where penalties ask for them, counts of its tokens."""

    def __init__(
        self, params: SamplingParams, prompt_ids: Sequence[int], vocab_size: int, device: torch.device
    ) -> None:
        self.params = params
        self.seed = params.seed if params.seed is not None else secrets.randbits(31)
        self._generator: torch.Generator | None = None
        self._seen: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None
        self._bias: tuple[torch.Tensor, torch.Tensor] | None = None
        if params.temperature > 0:
            self._generator = torch.Generator().manual_seed(self.seed)
        if params.repetition_penalty != 1:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(prompt_ids, device=device)] = True
        if params.presence_penalty or params.frequency_penalty:
            self._counts = torch.zeros(vocab_size, device=device)
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=device)
            self._bias = ids, torch.tensor(list(params.logit_bias.values()), dtype=torch.float32, device=device)

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the next token is simply the most likely one."""
        return self._generator is None and self._seen is None and self._counts is None and self._bias is None

    def choose(self, logits: torch.Tensor) -> int:
        """The next token of float32 logits [vocabulary]. Advances the generator by one draw."""
        logits = self._adjust(logits)
        if self._generator is None:
            return int(logits.argmax())
        return self._draw(logits / self.params.temperature, self._generator)

    def record(self, token_id: int) -> None:
        """Counts a token that was chosen."""
        if self._seen is not None:
            self._seen[token_id] = True
        if self._counts is not None:
            self._counts[token_id] += 1

    def _adjust(self, logits: torch.Tensor) -> torch.Tensor:
        params = self.params
        if self._seen is not None:
            penalty = params.repetition_penalty
            penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(self._seen, penalised, logits)
        if self._counts is not None:
            logits = logits - self._counts * params.frequency_penalty - (self._counts > 0) * params.presence_penalty
        if self._bias is not None:
            ids, values = self._bias
            logits = logits.index_add(0, ids, values)
        return logits

    def _draw(self, scaled: torch.Tensor, generator: torch.Generator) -> int:
        params = self.params
        ids: torch.Tensor | None = None
        if 0 < params.top_k < scaled.shape[0]:
            scaled, ids = scaled.topk(params.top_k)
        elif params.top_p < 1:
            scaled, ids = scaled.sort(descending=True)
        probs = scaled.softmax(dim=0)
        if params.top_p < 1:
            # A token stays while the mass before it is under top_p, so that the first always stays.
            probs = probs.masked_fill(probs.cumsum(0) - probs >= params.top_p, 0)
        if params.min_p > 0:
            probs = probs.masked_fill(probs < params.min_p * probs.max(), 0)
        # Inverse transform in float64: one draw per token on the CPU, whatever the device of the logits.
        mass = probs.double().cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64).to(mass.device) * mass[-1]
        # right=True skips tokens of no mass; the clamp keeps a draw that rounds up to the whole mass on a real token.
        last = torch.searchsorted(mass, mass[-1:])
        chosen = torch.minimum(torch.searchsorted(mass, draw, right=True), last)
        return int(chosen if ids is None else ids[chosen])


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Token]:
    """One token per row of logits [rows, vocabulary], recorded in its sampler."""
    logits = logits.float()
    if all(sampler.is_plain_greedy for sampler in samplers):
        chosen = logits.argmax(dim=-1)
    else:
        ids = [sampler.choose(row) for row, sampler in zip(logits, samplers, strict=True)]
        chosen = torch.tensor(ids, device=logits.device)
    log_sum = logits.logsumexp(dim=-1)
    logprobs = (logits.gather(1, chosen[:, None]).squeeze(1) - log_sum).tolist()
    tokens = []
    for i, (token_id, logprob, sampler) in enumerate(zip(chosen.tolist(), logprobs, samplers, strict=True)):
        sampler.record(token_id)
        top: tuple[tuple[int, float], ...] = ()
        if sampler.params.top_logprobs:
            values, top_ids = (logits[i] - log_sum[i]).topk(min(sampler.params.top_logprobs, logits.shape[1]))
            top = tuple(zip(top_ids.tolist(), values.tolist(), strict=True))
        tokens.append(Token(token_id, logprob, top))
    return tokens
