"""Choose the forward: the fused one if a comparison on this machine shows that it computes the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from treechat_engine.api import EngineConfig, EngineError
from treechat_engine.attention.context import Work
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.model.decoder import FusedDecoder
from treechat_engine.model.decoder_parts import NotStandardError, read_parts
from treechat_engine.runner import ModelRunner

# The ends of the parts of a prompt on which the forwards are compared: a chunk, a longer one over the cache, a single
# token. Each is a forward of both kinds at every start, so there are only three.
_CUTS = (0, 5, 31, 32)
# Largest difference of a float32 logit, as a share of the largest logit, which counts as at least 10: 1e-4 for small
# logits. The default model's logits reach 29; transformers' float32 forward differs by 2e-4 from its float64 one, ours
# by 1e-4 from the first. Another kind of gelu or a wrong eps differs a hundred times more.
_SHARE = 1e-5
# In 16 bits the largest of millions of rounding errors is no good measure: the norm of the difference is compared, as a
# share of the norm of the logits. If a forward omits an operation, this share is near 1.
_NORM_SHARES = {torch.float16: 2e-2, torch.bfloat16: 8e-2}
_LEAST_SCALE = 10.0


class ForwardChoice(NamedTuple):
    """The forward that runs, and why it was chosen."""

    fused: FusedDecoder | None
    reason: str

    @property
    def name(self) -> str:
        return "transformers" if self.fused is None else "fused"


def choose_forward(model: Any, runner: ModelRunner, cache: KVCache, config: EngineConfig) -> ForwardChoice:
    """Give the runner the fused forward if config.forward asks for it and the model allows it.

    Raises EngineError if config.forward is "fused" and the model does not allow it, or if a value is unknown.

    model: the transformers model.
    runner: runs both forwards.
    cache: gives slots for the comparison.
    config: the engine's configuration.
    """
    if config.forward not in ("auto", "fused", "transformers"):
        raise EngineError(f"forward {config.forward!r} is unknown", "Choose auto, fused or transformers")
    if config.decode_weights not in ("float32", "float16", "int8"):
        raise EngineError(f"decode_weights {config.decode_weights!r} is unknown", "Choose float32, float16 or int8")
    if config.forward == "transformers":
        return ForwardChoice(None, "the configuration requires it")
    choice = _try_fused(model, runner, cache, config)
    if choice.fused is None and config.forward == "fused":
        raise EngineError(f"the fused forward does not run this model: {choice.reason}", "Choose forward='auto'")
    return choice


def _try_fused(model: Any, runner: ModelRunner, cache: KVCache, config: EngineConfig) -> ForwardChoice:
    ids = _sample_ids(runner.vocab_size, min(_CUTS[-1], cache.num_slots))
    expected = _logits(runner, cache, ids)
    try:
        exact = FusedDecoder(read_parts(model))
    except NotStandardError as error:
        return ForwardChoice(None, str(error))
    runner.fused = exact
    got = _logits(runner, cache, ids)
    difference = float((got - expected).abs().max())
    problem = _problem(got.float(), expected.float(), _NORM_SHARES.get(expected.dtype))
    if problem is not None:
        runner.fused = None
        exact.give_back()
        return ForwardChoice(None, problem)
    if config.decode_weights != "float32" and runner.device.type == "cpu":
        exact.add_small(config.decode_weights)
    return ForwardChoice(exact, f"it computes the same: logits differ by at most {difference:.2g}")


def _problem(got: torch.Tensor, expected: torch.Tensor, norm_share: float | None) -> str | None:
    """Return how the logits differ too much; None if they do not. norm_share None: compare the largest difference."""
    difference = got - expected
    if norm_share is None:
        most, limit = float(difference.abs().max()), _SHARE * max(_LEAST_SCALE, float(expected.abs().max()))
        return None if most <= limit else f"the fused forward differs by {most:.2g} in a logit, more than {limit:.2g}"
    share = float(difference.norm() / expected.norm())
    return (
        None if share <= norm_share else f"the fused forward's logits differ by {share:.1%}, more than {norm_share:.0%}"
    )


def _sample_ids(vocab_size: int, num_tokens: int) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(vocab_size, (num_tokens,), generator=generator).tolist()


def _logits(runner: ModelRunner, cache: KVCache, ids: list[int]) -> torch.Tensor:
    """Return the logits after each part of ids. The parts are computed over the cache one after another."""
    lease = cache.lease(ids)
    if not cache.grow(lease, len(ids)):
        raise EngineError(f"{len(ids)} slots are needed to check the model, {cache.num_free} are free")
    try:
        stops = sorted({min(cut, len(ids)) for cut in _CUTS} - {0})
        return torch.cat(
            [
                runner.step([Work(ids[start:stop], start, lease.extents, True)])
                for start, stop in zip([0, *stops[:-1]], stops, strict=True)
            ]
        )
    finally:
        cache.release(lease)
