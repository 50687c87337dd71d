"""Measure decoded tokens per second: this engine and transformers' `generate`, alternating, with the same weights."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from treechat.bench.workload import Progress, Prompts, Sizes, first_token
from treechat_engine import Engine, SamplingParams


def measure_decoding(
    engine: Engine, path: Path, prompts: Prompts, sizes: Sizes, progress: Progress
) -> list[dict[str, Any]]:
    """Measure each batch size at each context. Both sides alternate; figures are medians of the repeats."""
    stats = engine.stats()
    reference = Reference(path, stats.dtype, stats.device)
    rows = []
    for context_len in sizes.decode_contexts:
        for batch in sizes.decode_batches:
            progress(f"decode: {batch} x {context_len:,} tokens, ours and transformers' generate in turn")
            engine.clear_cache()
            ids = [prompts.draw(context_len) for _ in range(batch)]
            for each in ids:
                first_token(engine, each)
            reference.prefill(ids)
            pairs = [
                (_decode(engine, ids, sizes.decode_len), reference.decode(sizes.decode_len))
                for _ in range(sizes.num_repeats)
            ]
            rows.append(
                {
                    "batch": batch,
                    "context_tokens": context_len,
                    "tokens_per_s": median(ours for ours, _ in pairs),
                    "generate_tokens_per_s": median(theirs for _, theirs in pairs),
                }
            )
    return rows


def _decode(engine: Engine, ids: list[list[int]], num_tokens: int) -> float:
    """Return the tokens per second of the whole batch after the first token of each."""
    done = engine.generate(ids, SamplingParams(max_tokens=num_tokens + 1, ignore_eos=True))
    decode_s = max(one.usage.total_s - one.usage.ttft_s for one in done)
    return sum(one.usage.completion_tokens - 1 for one in done) / decode_s


class Reference:
    """transformers' greedy generate after a prefilled prompt, so only decoding is timed."""

    def __init__(self, path: Path, dtype: str, device: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
        self._model = self._model.to(device).eval()

    def prefill(self, ids: list[list[int]]) -> None:
        self._ids = torch.tensor(ids, device=self._model.device)
        self._cache = DynamicCache(config=self._model.config)
        with torch.inference_mode():
            self._model(self._ids, past_key_values=self._cache, logits_to_keep=1)

    def decode(self, num_tokens: int) -> float:
        """Return the tokens per second of the whole batch after the first token of each."""
        # A negative length, which every version of transformers accepts. The prompt's last token is computed again.
        self._cache.crop(self._ids.shape[1] - 1 - self._cache.get_seq_length())
        times: list[float] = []

        def clock(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            times.append(time.perf_counter())
            return scores

        with torch.inference_mode():
            self._model.generate(
                self._ids,
                attention_mask=torch.ones_like(self._ids),
                past_key_values=self._cache,
                max_new_tokens=num_tokens + 1,
                min_new_tokens=num_tokens + 1,
                do_sample=False,
                logits_processor=[clock],
                pad_token_id=0,
            )
        return len(self._ids) * (len(times) - 1) / (times[-1] - times[0])
