"""Decoding by CUDA graphs: the next step is launched before the tokens of this one are read and delivered.

That is possible while the same requests go on greedily. Where one of them ends meanwhile, what the step after it
computed for it is dropped: its slot was the request's own, and nothing committed it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from treechat_engine.api import Token
from treechat_engine.graphs import DecodeGraphs, Step
from treechat_engine.request import Request
from treechat_engine.runner import ModelRunner, Work
from treechat_engine.sampling import sample_requests
from treechat_engine.scheduler import Planned, Scheduler

TakeOver = Callable[[Sequence[Planned], Mapping[Request, Token], float], None]
Fail = Callable[[Sequence[Request], Exception], None]


class GraphDecoder:
    """Runs steps of pure decoding for the worker, on its thread.

    take_over: is given each step's tokens and the seconds it took. fail: is given the requests of a step that raised.
    """

    def __init__(
        self, runner: ModelRunner, scheduler: Scheduler, lock: threading.Condition, take_over: TakeOver, fail: Fail
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._lock = lock
        self._take_over = take_over
        self._fail = fail

    @property
    def state(self) -> str:
        """What `EngineStats.graphs` says."""
        graphs, prompts = self._runner.graphs, self._runner.prompt_graphs
        if graphs is None:
            return ""
        decoding = graphs.problem or f"{graphs.num_captured} for decoding"
        if prompts is None:
            return decoding
        return f"{decoding}, {prompts.problem or f'{prompts.num_captured} for prompts'}"

    @torch.inference_mode()
    def decode(self, planned: Sequence[Planned]) -> bool:
        """Runs the step, and those after it that the same requests can take without planning. False: not by graphs."""
        graphs = self._runner.graphs
        if graphs is None or not all(item.num_tokens == 1 and item.wants_logits for item in planned):
            return False
        started_at = time.monotonic()
        try:
            step = self._runner.launch([_work(item.request, 0) for item in planned])
            if step is None:
                return False
            while step is not None:
                following = self._go_on(graphs, planned, step)
                tokens = self._tokens(planned, step)
                now = time.monotonic()
                self._take_over(planned, tokens, now - started_at)
                started_at, step = now, following
        except Exception as cause:  # noqa: BLE001 - as for any step: its requests carry the error
            self._fail([item.request for item in planned], cause.with_traceback(None))
        return True

    def _tokens(self, planned: Sequence[Planned], step: Step) -> dict[Request, Token]:
        requests = [item.request for item in planned]
        if all(request.sampler is not None and request.sampler.is_argmax for request in requests):
            picked = step.greedy()
            tokens = {request: Token(*each) for request, each in zip(requests, picked, strict=True)}
        else:
            tokens = sample_requests(step.logits, requests)
        for row, request in enumerate(requests):
            if not request.num_sampled:
                with self._lock:
                    self._scheduler.end_logits.put(request.prompt_key, step.logits[row].clone())
        return tokens

    def _go_on(self, graphs: DecodeGraphs, planned: Sequence[Planned], step: Step) -> Step | None:
        """Launches the step after `step`, where all its requests will surely take part and nobody else waits."""
        with self._lock:
            if self._scheduler.waiting or not all(_will_go_on(item.request) for item in planned):
                return None
            batch = [_work(item.request, 1) for item in planned]
        return graphs.go_on(step, batch)


def _will_go_on(request: Request) -> bool:
    """Whether the request has, and has slots for, a step after the one that it is in."""
    sampler, lease = request.sampler, request.lease
    return (
        sampler is not None
        and sampler.is_argmax
        and lease is not None
        and not request.is_finished
        and not request.is_cancelled
        and 0 < request.num_sampled < request.max_tokens - 1
        and len(lease.slots) >= request.num_computed + 2
    )


def _work(request: Request, ahead: int) -> Work:
    """The request's next token, or one of which the id is not known yet."""
    assert request.lease is not None, f"request {request.id} holds no lease"
    ids = (0,) if ahead else request.ids[request.num_computed : request.num_computed + 1]
    return Work(ids, request.num_computed + ahead, request.lease.runs, True)
