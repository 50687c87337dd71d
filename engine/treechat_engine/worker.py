"""The engine's thread: plan, run, sample, deliver, again. The lock is held around the tree, never during a forward."""

from __future__ import annotations

import threading
import time

import torch

from treechat_engine.api import Token
from treechat_engine.request import Request
from treechat_engine.runner import ModelRunner, Work
from treechat_engine.sampling import Sampler, sample
from treechat_engine.scheduler import Planned, Scheduler

# A shorter prefill says little of how fast a long one goes.
_MIN_RATED_PREFILL = 32


class Rate:
    """A moving estimate of tokens per second, None before the first."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, num_tokens: int, seconds: float) -> None:
        latest = num_tokens / max(seconds, 1e-9)
        self.value = latest if self.value is None else 0.8 * self.value + 0.2 * latest


class Worker:
    """Owns the scheduler and the runner. Other threads take `lock` to read or to change the queue, then `wake`.

    checks: whether the cache's invariants are asserted after every step (for tests: it costs the size of the pool).
    """

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, num_threads: int, checks: bool = False) -> None:
        self.lock = threading.Condition()
        self.scheduler = scheduler
        self.prefill_rate = Rate()
        self.decode_rate = Rate()
        self.is_closed = False
        self._runner = runner
        self._num_threads = num_threads
        self._checks = checks
        self._thread = threading.Thread(target=self._run, name="treechat-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queues the request. The caller has checked `is_closed` under the lock that it holds."""
        self.scheduler.add(request)
        self.lock.notify_all()

    def wake(self) -> None:
        """Has the thread look at its queue again, after a cancel."""
        with self.lock:
            self.lock.notify_all()

    def close(self) -> None:
        """Ends every request as cancelled, after the step that is running. Blocks until the thread is gone."""
        with self.lock:
            self.is_closed = True
            self.lock.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._num_threads)
        error: str | None = "the engine's thread died"
        try:
            while planned := self._next_step():
                try:
                    self._step(planned)
                except Exception as cause:  # noqa: BLE001 - a forward may raise anything; its requests carry the error
                    self._fail([item.request for item in planned], cause)
            error = None
        finally:
            with self.lock:
                self.is_closed = True
                for request in self._all_requests():
                    if error is None:
                        self.scheduler.end(request)
                    request.finish("error" if error else "cancelled", error)

    def _next_step(self) -> list[Planned]:
        """Waits for something to do. Empty when the engine was closed."""
        with self.lock:
            while not self.is_closed:
                self._end_cancelled()
                try:
                    planned = self.scheduler.plan()
                except AssertionError as cause:
                    self._fail(self._all_requests(), cause)
                    continue
                if planned:
                    return planned
                if not self._end_satisfied():
                    self.lock.wait()
        return []

    def _end_cancelled(self) -> None:
        for request in self._all_requests():
            if request.is_cancelled:
                self.scheduler.end(request)
                request.finish("cancelled")

    def _end_satisfied(self) -> bool:
        satisfied = self.scheduler.take_satisfied()
        for request in satisfied:
            self.scheduler.end(request)
            request.finish("length")
        return bool(satisfied)

    def _all_requests(self) -> list[Request]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def _fail(self, requests: list[Request], cause: Exception) -> None:
        """Ends the requests with the error. What they computed before it stays cached; their slots come back."""
        with self.lock:
            for request in requests:
                if not request.is_finished:
                    self.scheduler.end(request)
                    request.finish("error", f"{type(cause).__name__}: {cause}")

    def _step(self, planned: list[Planned]) -> None:
        started_at = time.monotonic()
        try:
            tokens = self._compute(planned)
        except torch.OutOfMemoryError:
            # Slots are allocated up front, so what ran out is the forward's own memory: a smaller step needs less.
            torch.cuda.empty_cache()
            planned = [Planned(item.request, (item.num_tokens + 1) // 2) for item in planned]
            tokens = self._compute(planned)
        self._measure(planned, time.monotonic() - started_at)
        with self.lock:
            for item in planned:
                self._advance(item, tokens.pop(item.request, None))
            for twin, token in tokens.items():
                twin.shared_prefill()
                self._deliver(twin, token)
            if self._checks:
                self.scheduler.cache.check()

    def _compute(self, planned: list[Planned]) -> dict[Request, Token]:
        """One forward, and a token for each request that reached its end, and for its twins that wait."""
        batch: list[Work] = []
        sampling: list[tuple[Request, Sampler]] = []
        for item in planned:
            request, start = item.request, item.request.num_computed
            assert request.lease is not None, f"request {request.id} holds no lease"
            wants_logits = item.reaches_end and request.sampler is not None
            ids = request.ids[start : start + item.num_tokens]
            batch.append(Work(ids, start, request.lease.runs, wants_logits))
            if wants_logits and request.sampler is not None:
                sampling.append((request, request.sampler))
        logits = self._runner.step(batch)
        if not sampling:
            return {}
        rows = list(range(len(sampling)))
        with self.lock:
            for row, (request, _) in enumerate(tuple(sampling)):
                for twin in self.scheduler.twins(request):
                    if twin.sampler is not None and (twin, twin.sampler) not in sampling:
                        sampling.append((twin, twin.sampler))
                        rows.append(row)
        with torch.inference_mode():
            logits = logits if len(rows) == logits.shape[0] else logits[rows]
            tokens = sample(logits, [sampler for _, sampler in sampling])
        return dict(zip((request for request, _ in sampling), tokens, strict=True))

    def _advance(self, item: Planned, token: Token | None) -> None:
        request = item.request
        is_prefill = request.num_sampled == 0 or item.num_tokens > 1
        request.computed(item.num_tokens)
        if is_prefill:
            self.scheduler.commit(request)
        if token is not None:
            self._deliver(request, token)
        elif request.is_warm and request.num_remaining == 0:
            self.scheduler.end(request)
            request.finish("length")

    def _deliver(self, request: Request, token: Token) -> None:
        request.deliver(token)
        if (reason := request.stop_reason()) is not None:
            self.scheduler.end(request)
            request.finish(reason)

    def _measure(self, planned: list[Planned], seconds: float) -> None:
        num_tokens = sum(item.num_tokens for item in planned)
        if all(item.num_tokens == 1 for item in planned):
            self.decode_rate.add(num_tokens, seconds)
        elif num_tokens >= _MIN_RATED_PREFILL or self.prefill_rate.value is None:
            self.prefill_rate.add(num_tokens, seconds)
