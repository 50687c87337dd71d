"""The public Engine: checks requests, passes them to the engine's thread, and returns events to the caller's loop.

Figures on the default model, float32, commit 9e0b8e7103, AMD EPYC with 2 cores, 2 threads:

- Against `generate` with 1,500 tokens of context, same tokens in all rounds, medians (`python -m tests.bench.swarm
  --rounds 5 --tokens 32`): decoding is 1.40 times as fast, five siblings make 3.7 times the tokens of one, a fork is 45
  times as fast as the prefill, and a jump back as fast as a fork.
- Five agents on one prompt of 6,000 tokens, with 20 and 200 tokens of their own, hold 7,095 slots instead of 31,095.
  They write 3.7 times the tokens per second of five that share nothing, 7.3 times if the prompt is warm (`python -m
  tests.bench.agents`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from treechat_engine.api import (
    Completion,
    EngineClosedError,
    EngineConfig,
    EngineStats,
    Priority,
    PromptTooLongError,
    Residency,
    SamplingParams,
)
from treechat_engine.attention.attention import ATTENTION_NAME, register
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.disk import fingerprint
from treechat_engine.kvcache.radix_node import Ints, as_ints
from treechat_engine.kvcache.saved_kv import SavedKV, load_kv, save_kv
from treechat_engine.kvcache.slots import SlotPool, slot_bytes
from treechat_engine.model.decoder import FusedDecoder
from treechat_engine.model.loading import choose_dtype, load_model
from treechat_engine.model.module_kernels import Replacements
from treechat_engine.model.support import check_config, inspect_model
from treechat_engine.request import Request, RequestHandle, Sink
from treechat_engine.runner import ModelRunner
from treechat_engine.sampling.sampler import Sampler
from treechat_engine.scheduler import Scheduler
from treechat_engine.startup.decoder_choice import choose_forward
from treechat_engine.startup.device_tuning import tune_device
from treechat_engine.startup.memory import affordable_slots, explain_out_of_memory
from treechat_engine.startup.restore_cost import CostModel, always_restore
from treechat_engine.startup.self_check import self_check
from treechat_engine.streams import EventStream, FanOut, Mailbox
from treechat_engine.worker import Worker


class Engine:
    """Generate from token ids, with the KV of every path in a radix cache. Methods may be called from any thread.

    The engine replaces the model's attention until `close`. Use it as a context manager, or close it.
    """

    def __init__(self, model: Any, config: EngineConfig | None = None, *, poison: bool = False) -> None:
        """Make an engine for a model. Raises UnsupportedModelError if the model cannot be run exactly.

        model: a transformers causal language model, already built.
        config: None: the defaults.
        poison: for tests: free slots hold NaN, and the cache is checked after every step.
        """
        self.config = config or EngineConfig()
        register()
        check_config(model.config, self.config.max_model_len)
        device = torch.device(self.config.device or model.device)
        dtype = choose_dtype(self.config.dtype, device) if self.config.dtype else model.dtype
        self.model = model.to(device=device, dtype=dtype).eval()
        self._old_attention = model.config._attn_implementation
        self._num_requests = 0
        self._replacement: FusedDecoder | Replacements | None = None
        model.set_attn_implementation(ATTENTION_NAME)
        try:
            self.worker = self._make_worker(dtype, device, poison)
        except BaseException:
            self._give_back()
            raise
        self.worker.start()

    def _make_worker(self, dtype: torch.dtype, device: torch.device, poison: bool) -> Worker:
        """Make cache, runner and scheduler for the model, and check the model."""
        config, model = self.config, self.model
        self.spec = spec = inspect_model(model)
        num_slots = config.kv_tokens or affordable_slots(spec.layer_shapes, dtype, device)
        with explain_out_of_memory(f"the KV of {num_slots:,} tokens", "Set a smaller kv_tokens"):
            pool = SlotPool(num_slots, spec.layer_shapes, dtype, device, poison=poison)
        costs = CostModel(slot_bytes(spec.layer_shapes, dtype))
        self._model_key = fingerprint(model, dtype)
        should_restore = always_restore if config.deterministic else costs.should_restore
        with explain_out_of_memory(f"a host tier of {config.host_tokens:,} tokens", "Set smaller host_tokens"):
            self.cache = KVCache(pool, config.eviction, self._model_key, config.host_tokens, should_restore)
        runner = ModelRunner(model, pool)
        if config.self_check:
            self_check(model, runner, self.cache, spec)
        self._forward = choose_forward(model, runner, self.cache, config)
        self._replacement = self._forward.fused or Replacements(model)
        if not config.deterministic:  # Measured tiles may differ at the next start.
            tune_device(runner, spec.layer_shapes)
        if config.host_tokens:
            costs.fit(runner, self.cache)
        self.max_model_len = min((n for n in (config.max_model_len, spec.max_len) if n), default=num_slots)
        if config.cuda_graphs and device.type == "cuda":
            runner.use_graphs(config.max_batch, min(self.max_model_len, num_slots))
        runner.deterministic = config.deterministic
        scheduler = Scheduler(self.cache, config.max_batch, config.prefill_chunk, deterministic=config.deterministic)
        worker = Worker(runner, scheduler, config.num_threads or torch.get_num_threads(), checks_cache=poison)
        worker.prefill_rate.listener = costs.observe_compute
        return worker

    @classmethod
    def load(
        cls, source: str | Path, config: EngineConfig | None = None, progress: Callable[[str], None] | None = None
    ) -> Engine:
        """Make an engine for a model that is loaded here.

        source: a directory, a .gguf file or a hub id.
        config: None: the defaults.
        progress: receives one sentence per stage.
        """
        config = config or EngineConfig()
        engine = cls(load_model(source, config, progress), replace(config, device=None, dtype=None))
        if progress is not None:
            progress("Ready")
        return engine

    def submit(
        self, ids: Sequence[int], params: SamplingParams | None = None, priority: Priority = "interactive"
    ) -> RequestHandle:
        """Start a request. The returned handle iterates over its events.

        Raises PromptTooLongError, EngineClosedError, and ValueError for invalid token ids.

        ids: the prompt.
        params: None: the defaults.
        priority: "interactive", "fan-out" or "warm".
        """
        handle = RequestHandle(self._cancel)
        self._start([(handle, ids, params or SamplingParams(), handle.put)], priority)
        return handle

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Completion]:
        """Return the completion of each prompt. Blocks. `params`: one for all prompts, or one per prompt."""
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(prompts)
        handles: list[RequestHandle] = []
        try:
            handles.extend(self.submit(ids, each) for ids, each in zip(prompts, params, strict=True))
            return [handle.result() for handle in handles]
        finally:
            for handle in handles:
                handle.cancel()

    def stream(
        self, ids: Sequence[int], params: SamplingParams | None = None, priority: Priority = "interactive"
    ) -> EventStream:
        """Return an async generator of Tokens, then Finished. The request starts now, in a running event loop.

        Closing it cancels the request, even if it was never read. The computed tokens stay cached.

        ids: the prompt.
        params: None: the defaults.
        priority: as for `submit`, and it raises the same errors.
        """
        return self.fan_out(ids, [params or SamplingParams()], priority).streams[0]

    def fan_out(self, ids: Sequence[int], params: Sequence[SamplingParams], priority: Priority = "fan-out") -> FanOut:
        """Start several replies to the same prompt, which is prefilled once. Call it in a running event loop.

        ids: the prompt.
        params: one per reply.
        priority: as for `submit`, and it raises the same errors.
        """
        handles = [RequestHandle(self._cancel) for _ in params]
        boxes = [Mailbox() for _ in params]
        submissions = [(handle, ids, each, box.put) for handle, each, box in zip(handles, params, boxes, strict=True)]
        self._start(submissions, priority)
        return FanOut(handles, [EventStream(handle, box) for handle, box in zip(handles, boxes, strict=True)])

    def warm(self, ids: Sequence[int]) -> RequestHandle:
        """Compute the KV of `ids` ahead of need, while nothing else runs.

        It uses free slots, and slots that the eviction policy ranks lower.
        """
        handle = RequestHandle(self._cancel)
        self._start([(handle, ids, None, handle.put)], "warm")
        return handle

    def residency(self, ids: Sequence[int]) -> Residency:
        """Return where the KV of `ids` is. Changes nothing; never waits for a step."""
        with self.worker.lock:
            return self.cache.peek(ids)

    def residencies(self, paths: Sequence[Sequence[int]]) -> list[Residency]:
        with self.worker.lock:
            return [self.cache.peek(ids) for ids in paths]

    def residencies_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Residency]:
        """`residency` of many paths that share prefixes: path i is path parents[i] followed by spans[i].

        parents[i] is less than i, or -1 for none. Each span is looked up once. Spans in `array('q')` need no
        conversion.
        """
        with self.worker.lock:
            return self.cache.peek_along(spans, parents)

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """Set the paths to evict last, the current one first. A bias; only the policy "tree" uses it."""
        paths = [as_ints(ids) for ids in paths]
        with self.worker.lock:
            self.cache.protect(paths)

    def stats(self) -> EngineStats:
        worker = self.worker
        replaced = self._replacement.summary if isinstance(self._replacement, Replacements) else ""
        with worker.lock:
            return EngineStats(
                model=self.model.config.name_or_path or type(self.model).__name__,
                device=str(self.model.device),
                dtype=str(self.model.dtype).removeprefix("torch."),
                slots_total=self.cache.num_slots,
                slots_free=self.cache.num_free,
                slots_cached=self.cache.num_cached,
                running=len(worker.scheduler.running),
                waiting=len(worker.scheduler.waiting),
                evicted_tokens=self.cache.evicted_tokens,
                prefill_tokens_per_s=worker.prefill_rate.value,
                decode_tokens_per_s=worker.decode_rate.value,
                host_total=self.config.host_tokens,
                host_cached=self.cache.num_on_host,
                restored_tokens=self.cache.restored_tokens,
                forward=self._forward.name,
                forward_reason=self._forward.reason + replaced,
                graphs=worker.graph_summary,
            )

    def free(self, ids: Sequence[int], start: int = 0) -> int:
        """Drop the cached tokens of `ids` after the first `start`: see `KVCache.free`."""
        with self.worker.lock:
            return self.cache.free(ids, start)

    def clear_cache(self) -> None:
        """Drop all cached KV that no running request holds."""
        with self.worker.lock:
            self.cache.clear()

    def save_kv(self, directory: str | Path, budget_bytes: int | None = None) -> SavedKV:
        """Write the warmest prefixes to `directory` for the next engine of this model. Raises OSError.

        budget_bytes: the size limit; None: no limit.
        """
        return save_kv(self.cache, self.worker.lock, Path(directory), self._model_key, budget_bytes)

    def load_kv(self, directory: str | Path) -> SavedKV:
        """Find the files of `save_kv` for this model. Rows are read when they are needed.

        Files that are foreign, stale or damaged are skipped with a note.
        """
        return load_kv(self.cache, self.worker.lock, Path(directory), self._model_key)

    def close(self) -> None:
        """Cancel all requests, stop the thread, and restore the model's weights and attention. Idempotent."""
        self.worker.close()
        self._give_back()

    def _give_back(self) -> None:
        if self._replacement is not None:
            self._replacement.give_back()
        if self.model.config._attn_implementation == ATTENTION_NAME:
            self.model.set_attn_implementation(self._old_attention)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(
        self,
        submissions: Sequence[tuple[RequestHandle, Sequence[int], SamplingParams | None, Sink]],
        priority: Priority,
    ) -> None:
        """Check all requests before any starts, and queue all before the engine's thread plans."""
        with self.worker.lock:
            if self.worker.is_closed:
                raise EngineClosedError("the engine is closed")
            requests = [self._new_request(ids, params, priority, sink) for _, ids, params, sink in submissions]
            for (handle, *_), request in zip(submissions, requests, strict=True):
                handle.request = request
                self.worker.submit(request)

    def _new_request(
        self, ids: Sequence[int], params: SamplingParams | None, priority: Priority, sink: Sink
    ) -> Request:
        """Return a checked request. params None: a warm one."""
        prompt_ids = _token_ids(ids)
        room = self._check_prompt(prompt_ids, is_warm=params is None)
        sampler = None
        if params is not None:
            sampler = Sampler(params, prompt_ids, self.spec.vocab_size)
        params = params or SamplingParams()
        stop_ids = frozenset() if params.ignore_eos else self.spec.eos_ids | frozenset(params.stop_token_ids)
        self._num_requests += 1
        return Request(
            self._num_requests, prompt_ids, params, priority, min(params.max_tokens, room), stop_ids, sampler, sink
        )

    def _check_prompt(self, ids: Ints, is_warm: bool) -> int:
        """Return how many tokens can follow the prompt. The last sampled token needs no slot."""
        if not ids:
            raise ValueError("a prompt needs at least one token")
        values = np.frombuffer(ids, dtype=np.int64)
        if values.min() < 0 or values.max() >= self.spec.vocab_size:
            raise ValueError(f"a token id is outside 0..{self.spec.vocab_size - 1}")
        room = min(self.max_model_len - len(ids), self.cache.num_slots - len(ids) + 1)
        if room < (0 if is_warm else 1):
            limit = min(self.max_model_len - 1, self.cache.num_slots)
            reason = f"the prompt has {len(ids)} tokens, the engine takes at most {limit}"
            raise PromptTooLongError(reason, "Shorten it, or raise kv_tokens if the model's context allows")
        return room

    def _cancel(self, handle: RequestHandle) -> None:
        if handle.request is not None and not handle.request.is_finished:
            handle.request.is_cancelled = True
            self.worker.wake()


def _token_ids(ids: Sequence[int]) -> Ints:
    """Return a copy, to which the request will append. Raises ValueError for ids that are not integers."""
    try:
        return array("q", ids)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"token ids are integers: {error}") from error
