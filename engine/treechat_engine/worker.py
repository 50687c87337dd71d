"""The engine's thread: plan, run, sample, deliver, repeat. It holds the lock for the tree, never during a forward.

Around the forward a greedy step of 8 takes 0.9 ms of wall time with two threads, 1.1 ms with one (`python -m
tests.bench.bookkeeping --threads 2`: AMD EPYC, 2 cores, 49,152 logits). Two fifths are log-probabilities. Cuts add 0.5
to 2 ms.

An exception fails only its own requests, with the error's text: in a forward those of its step, elsewhere one request.
If memory runs out, on device or host, the step runs once more with half of the prompt tokens, or with half of the
requests if all decode.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from treechat_engine.api import FinishReason, Token
from treechat_engine.attention.context import Work
from treechat_engine.graph_decoder import GraphDecoder
from treechat_engine.request import Request
from treechat_engine.request_sampling import sample_requests
from treechat_engine.runner import ModelRunner
from treechat_engine.scheduler import Planned, Scheduler
from treechat_engine.startup.memory import is_out_of_memory, keep_freed_memory
from treechat_engine.streams import batched_wakeups

logger = logging.getLogger(__name__)

_NO_TOKEN_ERROR = (
    "the model's logits are not numbers, or all its tokens are forbidden. "
    'A model trained in higher precision may run with dtype = "float32"'
)
# A shorter prefill is a poor measure of the rate of a long one.
_MIN_RATED_PREFILL = 32


class Rate:
    """A moving estimate of tokens per second; None before the first. `listener` is called with each new value."""

    def __init__(self) -> None:
        self.value: float | None = None
        self.listener: Callable[[float], None] | None = None

    def add(self, num_tokens: int, seconds: float) -> None:
        latest = num_tokens / max(seconds, 1e-9)
        self.value = latest if self.value is None else 0.8 * self.value + 0.2 * latest
        if self.listener is not None:
            self.listener(self.value)


class Worker:
    """The owner of scheduler and runner. Other threads hold `lock` to read or change the queue, then call `wake`.

    runner: runs the steps.
    scheduler: plans them.
    num_threads: torch intra-op threads of this thread.
    checks_cache: assert the cache's invariants after every step, for tests: it takes time proportional to the pool.
    """

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, num_threads: int, checks_cache: bool = False) -> None:
        self.lock = threading.Condition()
        self.scheduler = scheduler
        self.prefill_rate = Rate()
        self.decode_rate = Rate()
        self.is_closed = False
        self.runner = runner
        self._num_threads = num_threads
        self.checks_cache = checks_cache
        self._decoder = GraphDecoder(runner, scheduler, self.lock, self._accept_results, self._fail)
        self._thread = threading.Thread(target=self._run, name="treechat-engine", daemon=True)

    @property
    def graph_summary(self) -> str:
        """The number of CUDA graphs for decoding, or why there are none; empty if none are configured."""
        return self._decoder.summary

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue the request. The caller holds the lock and has checked `is_closed`."""
        self.scheduler.add(request)
        self.lock.notify_all()

    def wake(self) -> None:
        """Make the thread check its queue again, after a cancel."""
        with self.lock:
            self.lock.notify_all()

    def close(self) -> None:
        """End every request as cancelled, after the running step. Blocks until the thread has ended."""
        with self.lock:
            self.is_closed = True
            self.lock.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        error: str | None = "the engine's thread died"
        try:
            torch.set_num_threads(self._num_threads)
            keep_freed_memory()
            while planned := self._next_step():
                starting = [item for item in planned if item.end_logits is not None]
                if starting:
                    self._begin(starting)
                if len(starting) < len(planned):
                    self._step([item for item in planned if item.end_logits is None])
            error = None
        finally:
            with self.lock:
                self.is_closed = True
                for request in self._all_requests():
                    if error is None:
                        self._take_out(request)
                    request.finish("error" if error else "cancelled", error)

    def _next_step(self) -> list[Planned]:
        """Wait for work, and return the next step. Empty if the engine was closed."""
        with self.lock:
            while not self.is_closed:
                self._end_cancelled()
                try:
                    planned = self.scheduler.plan()
                except Exception as cause:  # noqa: BLE001 - any error ends the current request and no other
                    current_request = self.scheduler.current_request
                    self._fail(self._all_requests() if current_request is None else [current_request], cause)
                    continue
                has_ended = self._end_finished_warm()
                if planned:
                    return planned
                if not has_ended:
                    self.lock.wait()
        return []

    def _end_cancelled(self) -> None:
        for request in self._all_requests():
            if request.is_cancelled:
                self._end(request, "cancelled")

    def _end_finished_warm(self) -> bool:
        finished = self.scheduler.take_finished_warm()
        for request in finished:
            self._end(request, "length")
        return bool(finished)

    def _all_requests(self) -> list[Request]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def _end(self, request: Request, reason: FinishReason, error: str | None = None) -> None:
        self._take_out(request)
        request.finish(reason, error)

    def _take_out(self, request: Request) -> None:
        """End the request in the scheduler. If its commit raises, only its uncommitted KV is lost."""
        try:
            self.scheduler.end(request)
        except Exception:
            # The slots are free, and the reply is complete.
            logger.exception("the tokens of request %d could not be cached", request.id)

    def _fail(self, requests: Sequence[Request], cause: Exception) -> None:
        """End the requests with the error. Their earlier tokens stay cached; their slots are freed."""
        with self.lock:
            for request in requests:
                if not request.is_finished:
                    self._end(request, "error", f"{type(cause).__name__}: {cause}")

    def _begin(self, planned: Sequence[Planned]) -> None:
        """Sample a first token for requests whose prompt's end logits are known."""
        rows = [(item.request, item.end_logits) for item in planned if item.end_logits is not None]
        try:
            with torch.inference_mode():
                logits = torch.stack([logits for _, logits in rows])
                tokens = sample_requests(logits, [request for request, _ in rows], self.runner.deterministic)
        except Exception as cause:  # noqa: BLE001 - as for a step
            self._fail([request for request, _ in rows], cause)
            return
        with batched_wakeups(), self.lock:
            for item in planned:
                self._advance(item, tokens[item.request])

    def _step(self, planned: Sequence[Planned]) -> None:
        """Run one step of the model. If memory runs out, retry with about half of it; the rest stays planned."""
        started_at = time.monotonic()
        if self._decoder.decode(planned):
            return
        tokens, cause = self._try(planned)
        if cause is not None and is_out_of_memory(cause):
            # Slots are allocated at the start, so the forward's own memory ran out: a smaller step needs less.
            self._free_memory()
            planned = _halve(planned)
            tokens, cause = self._try(planned)
        if cause is not None:
            self._fail([item.request for item in planned], cause)
            return
        self._accept_results(planned, tokens, time.monotonic() - started_at)

    def _accept_results(self, planned: Sequence[Planned], tokens: Mapping[Request, Token], seconds: float) -> None:
        """Apply the results of a step, except for requests that ended meanwhile."""
        self._measure(planned, seconds)
        with batched_wakeups(), self.lock:
            for item in planned:
                if not item.request.is_finished:
                    self._advance(item, tokens.get(item.request))
            if self.checks_cache:
                self.scheduler.cache.check()

    def _try(self, planned: Sequence[Planned]) -> tuple[dict[Request, Token], Exception | None]:
        """Return the step's tokens, or its exception without the frames that hold its tensors."""
        try:
            return self._compute(planned), None
        except Exception as cause:  # noqa: BLE001 - a forward may raise anything; its requests carry the error
            return {}, cause.with_traceback(None)

    def _free_memory(self) -> None:
        with self.lock:
            self.scheduler.end_logits.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _compute(self, planned: Sequence[Planned]) -> dict[Request, Token]:
        """Run one forward, and sample a token for each request that reached its end."""
        batch: list[Work] = []
        sampling: list[Request] = []
        for item in planned:
            request, start = item.request, item.request.num_computed
            assert request.lease is not None, f"request {request.id} holds no lease"
            ids = request.ids[start : start + item.num_tokens]
            batch.append(Work(ids, start, request.lease.extents, item.needs_logits))
            if item.needs_logits:
                sampling.append(request)
        logits = self.runner.step(batch)
        if not sampling:
            return {}
        with torch.inference_mode():
            tokens = sample_requests(logits, sampling, self.runner.deterministic)
            for row, request in enumerate(sampling):
                if not request.num_sampled:
                    with self.lock:
                        self.scheduler.end_logits.put(request.prompt_key, logits[row])
        return tokens

    def _advance(self, item: Planned, token: Token | None) -> None:
        """Apply the step's result to one request. An error ends this request only."""
        request = item.request
        is_prefill = item.num_tokens and (request.num_sampled == 0 or item.num_tokens > 1)
        request.add_computed(item.num_tokens)
        try:
            if is_prefill:
                self.scheduler.commit(request)
        except Exception as cause:  # noqa: BLE001 - a commit that fails is its request's failure
            self._fail([request], cause)
            return
        if token is not None:
            self._deliver(request, token)
        elif request.is_warm and request.num_remaining == 0:
            self._end(request, "length")

    def _deliver(self, request: Request, token: Token) -> None:
        if not math.isfinite(token.logprob):
            self._end(request, "error", _NO_TOKEN_ERROR)
            # The KV may be the cause, so drop it before another request reuses it.
            self.scheduler.end_logits.drop(request.prompt_key)
            self.scheduler.cache.free_broken(request.ids)
            return
        request.deliver(token)
        if (reason := request.stop_reason()) is not None:
            self._end(request, reason)

    def _measure(self, planned: Sequence[Planned], seconds: float) -> None:
        num_tokens = sum(item.num_tokens for item in planned)
        if all(item.num_tokens == 1 for item in planned):
            self.decode_rate.add(num_tokens, seconds)
        elif num_tokens >= _MIN_RATED_PREFILL or self.prefill_rate.value is None:
            self.prefill_rate.add(num_tokens, seconds)


def _halve(planned: Sequence[Planned]) -> list[Planned]:
    """Return about half of a step: half of each prompt's tokens, or half of the requests if all only decode."""
    if all(item.num_tokens == 1 for item in planned):
        return list(planned[: (len(planned) + 1) // 2])
    return [item._replace(num_tokens=(item.num_tokens + 1) // 2) for item in planned]
