"""Other implementations of attention and decoding, measured like ours. One that cannot run gives its reason instead."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import ContinuousBatchingConfig, GenerationConfig

from tests.bench import gpu_common

# Share of the free memory for the cache of continuous batching.
MEMORY_SHARE = 0.5
# Characters of a reason, which is a cell of a table.
MAX_REASON = 60

# q [B, Hq, T, D], k and v [B, Hkv, S, D]; queries are the last T positions of the keys. Returns [B, Hq, T, D].
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def microseconds(rivals: dict[str, Callable[[], Callable[[], object]]]) -> dict[str, float | str]:
    """Return the microseconds of each, or why it does not run. Each is prepared just before its measurement."""
    found: dict[str, float | str] = {}
    for name, prepare in rivals.items():
        try:
            found[f"{name}_us"] = gpu_common.seconds(prepare()) * 1e6
        except Exception as error:  # noqa: BLE001 - the reason replaces the figure
            found[f"{name}_us"] = reason(error)
    return found


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:MAX_REASON]


@cache
def compiled_flex() -> Callable[..., torch.Tensor]:
    """Return FlexAttention compiled for all lengths at once, since compiling takes seconds."""
    return torch.compile(flex_attention, dynamic=True)


def flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call of compiled FlexAttention; causal if there are several queries."""
    run = compiled_flex()
    num_new, cached = q.shape[2], k.shape[2] - q.shape[2]
    mask = None
    if num_new > 1:

        def sees(_batch: Any, _head: Any, i_q: torch.Tensor, i_k: torch.Tensor) -> torch.Tensor:
            return i_k <= i_q + cached

        mask = create_block_mask(sees, None, None, num_new, k.shape[2], device=q.device)
    return lambda: run(q, k, v, block_mask=mask, enable_gqa=True)


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call of flash-attn over contiguous keys. Raises ImportError if it is not installed."""
    from flash_attn import flash_attn_func

    q, k, v = (each.transpose(1, 2).contiguous() for each in (q, k, v))
    return lambda: flash_attn_func(q, k, v, causal=True).transpose(1, 2)


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call of torch's attention. For several queries, keys are repeated and the mask is made in advance."""
    num_new, kv_len = q.shape[2], k.shape[2]
    if num_new == 1:
        return lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True)
    q = q.contiguous()
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
    mask = torch.ones(num_new, kv_len, dtype=torch.bool, device=q.device).tril(kv_len - num_new)
    return lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, compiles: bool) -> dict[str, float | str]:
    """Return the microseconds of each. compiles: include FlexAttention."""
    rivals = {"sdpa": lambda: sdpa(q, k, v), "flash": lambda: flash(q, k, v)}
    if compiles:
        rivals["flex"] = lambda: flex(q, k, v)
    return microseconds(rivals)


def continuous_rate(model: Any, batch: int, context: int, num_new: int) -> float:
    """Return the tokens per second of transformers' continuous batching after the last reply's first token."""
    generation = GenerationConfig(max_new_tokens=num_new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    vocab_size = model.config.vocab_size
    prompts = [random.choices(range(min(40_000, vocab_size)), k=context) for _ in range(batch)]
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        # It makes tensors in one thread and changes them in another, which inference_mode does not allow.
        done = model.generate_batch(
            prompts,
            generation_config=generation,
            continuous_batching_config=ContinuousBatchingConfig(max_memory_percent=MEMORY_SHARE),
            record_timestamps=True,
        )
    finally:
        model.set_attn_implementation(before)
    if len(done) < batch:
        raise RuntimeError(f"{len(done)} of {batch} replies arrived")
    for each in done.values():
        if each.error:
            raise RuntimeError(each.error)
    times = [each.timestamps for each in done.values()]
    begun, ended = max(each[0] for each in times), max(each[-1] for each in times)
    num_tokens = sum(at > begun for each in times for at in each)
    return num_tokens / (ended - begun)
