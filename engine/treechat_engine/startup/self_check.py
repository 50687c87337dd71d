"""The check at load time: cached tokens against the model's own eager forward, on this machine."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from treechat_engine.api import EngineError, UnsupportedModelError
from treechat_engine.attention.attention import ATTENTION_NAME
from treechat_engine.attention.context import Work
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.model.support import ModelSpec, refusing
from treechat_engine.runner import ModelRunner

_CHECK_LEN = 32
# The check is longer than the model's smallest window if the forward needs at most this many multiplications, about a
# second. Eager attention keeps all scores, so a second limit is needed.
_CHECK_BUDGETS = {"cpu": 10**10, "cuda": 10**13}
_MAX_CHECK_LEN = 2048
# Largest difference of a logit, as a share of the largest logit.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def self_check(model: Any, runner: ModelRunner, cache: KVCache, spec: ModelSpec) -> float:
    """Compare tokens computed in parts over the cache with the model's own eager forward.

    Uses 32 tokens, or more than the smallest window if that is quick. Returns the largest difference of a logit. Raises
    UnsupportedModelError if it is too large.

    model: the transformers model.
    runner: computes the parts.
    cache: gives their slots.
    spec: the model's properties.
    """
    num_tokens = _check_len(model, runner.device, cache.num_slots, spec)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(spec.vocab_size, (num_tokens,), generator=generator).tolist()
    expected = _eager_logits(model, torch.tensor([ids], device=runner.device))
    lease = cache.lease(ids)
    if not cache.grow(lease, num_tokens):
        raise EngineError(f"{num_tokens} slots are needed to check the model, {cache.num_free} are free")
    rows = []
    for start, stop in ((0, num_tokens // 2), (num_tokens // 2, num_tokens - 1), (num_tokens - 1, num_tokens)):
        rows.append(runner.step([Work(ids[start:stop], start, lease.extents, True)]))
    cache.release(lease)
    difference = float((torch.cat(rows[1:]).float() - expected).abs().max())
    tolerance = _TOLERANCES.get(rows[0].dtype, 1e-1) * max(1.0, float(expected.abs().max()))
    if not difference <= tolerance:
        reason = f"cached and eager forwards differ by {difference:.2g} in a logit, more than {tolerance:.2g}"
        raise UnsupportedModelError(reason, "The model uses earlier tokens by more than attention")
    return difference


def _eager_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the float32 logits after the last two of ids [1, n], by the model's own eager attention."""
    keep = {"logits_to_keep": 2} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    model.set_attn_implementation("eager")
    try:
        with refusing("the model's own forward"), torch.inference_mode():
            logits: torch.Tensor = model(input_ids=ids, use_cache=False, **keep).logits
    finally:
        model.set_attn_implementation(ATTENTION_NAME)
    return logits[0, -2:].float()


def _check_len(model: Any, device: torch.device, num_slots: int, spec: ModelSpec) -> int:
    """Return how many tokens to check: more than the smallest window, if model, cache and time allow it."""
    most = min(num_slots, spec.max_len or num_slots)
    wanted = max(_CHECK_LEN, (spec.min_window or 0) + _CHECK_LEN // 2)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    is_quick = wanted * num_parameters <= _CHECK_BUDGETS.get(device.type, _CHECK_BUDGETS["cpu"])
    return min(most, wanted if is_quick and wanted <= min(most, _MAX_CHECK_LEN) else _CHECK_LEN)
