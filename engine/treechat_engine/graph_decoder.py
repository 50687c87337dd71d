"""Decode by CUDA graphs: launch the next step before the tokens of this one are read and delivered.

This is possible while the same requests continue and the graph chooses their tokens. If a request ends meanwhile, its
result in the next step is dropped: its slot was private and nothing committed it. If the graph could not settle a row,
the whole next step is dropped, and launched again with the token that the host chose.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from treechat_engine.api import Token
from treechat_engine.attention.context import Work
from treechat_engine.graphs.decoding import DecodeGraphs, Step
from treechat_engine.graphs.sampling import SamplingMode, is_drawable
from treechat_engine.request import Request
from treechat_engine.request_sampling import sample_requests
from treechat_engine.runner import ModelRunner
from treechat_engine.sampling.sampler import Sampler
from treechat_engine.scheduler import Planned, Scheduler

AcceptResults = Callable[[Sequence[Planned], Mapping[Request, Token], float], None]
Fail = Callable[[Sequence[Request], Exception], None]


class GraphDecoder:
    """Run steps of pure decoding for the worker, on its thread.

    runner: launches the steps.
    scheduler: used under `lock`.
    accept_results: receives each step's tokens and its duration in seconds.
    fail: receives the requests of a step that raised.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        lock: threading.Condition,
        accept_results: AcceptResults,
        fail: Fail,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._lock = lock
        self._accept_results = accept_results
        self._fail = fail

    @property
    def summary(self) -> str:
        """The text of `EngineStats.graphs`."""
        graphs, prompts = self._runner.graphs, self._runner.prompt_graphs
        if graphs is None:
            return ""
        decoding = graphs.problem or f"{graphs.num_captured} for decoding"
        if graphs.sampling_problem:
            decoding += f" (sampling outside of them: {graphs.sampling_problem})"
        if prompts is None:
            return decoding
        return f"{decoding}, {prompts.problem or f'{prompts.num_captured} for prompts'}"

    @torch.inference_mode()
    def decode(self, planned: Sequence[Planned]) -> bool:
        """Run the step, and further steps of the same requests that need no planning. False: graphs cannot run it."""
        graphs = self._runner.graphs
        if (
            graphs is None
            or self._runner.deterministic
            or not all(item.num_tokens == 1 and item.needs_logits for item in planned)
        ):
            return False
        started_at = time.monotonic()
        try:
            samplers = _samplers(planned)
            step = self._runner.launch([_work(item.request, 0) for item in planned], samplers)
            if step is None:
                return False
            while step is not None:
                following = None if samplers is None else self._launch_next(graphs, planned, samplers, step)
                tokens, is_settled = self._tokens(planned, samplers, step)
                following = following if is_settled else None
                now = time.monotonic()
                self._accept_results(planned, tokens, now - started_at)
                started_at, step = now, following
        except Exception as cause:  # noqa: BLE001 - as for any step: its requests carry the error
            self._fail([item.request for item in planned], cause.with_traceback(None))
        return True

    def _tokens(
        self, planned: Sequence[Planned], samplers: Sequence[Sampler] | None, step: Step
    ) -> tuple[dict[Request, Token], bool]:
        """Return the next token of each request, and whether the graph chose all of them."""
        requests = [item.request for item in planned]
        rows: list[int] = list(range(len(requests)))
        tokens: dict[Request, Token] = {}
        if samplers is not None and step.key.mode == SamplingMode.of(samplers):
            rows = []
            for row, picked in enumerate(step.tokens()):
                if picked is None:
                    rows.append(row)
                    continue
                tokens[requests[row]] = Token(*picked)
                samplers[row].record(picked[0])
                if not samplers[row].cut.greedy:
                    samplers[row].draw()
        if rows:
            logits = step.logits if len(rows) == len(requests) else step.logits[rows]
            tokens |= sample_requests(logits, [requests[row] for row in rows])
        for row, request in enumerate(requests):
            if not request.num_sampled:
                with self._lock:
                    self._scheduler.end_logits.put(request.prompt_key, step.logits[row].clone())
        return tokens, not rows

    def _launch_next(
        self, graphs: DecodeGraphs, planned: Sequence[Planned], samplers: Sequence[Sampler], step: Step
    ) -> Step | None:
        """Launch the step after `step`, if all its requests will continue and no other request waits."""
        if step.key.mode != SamplingMode.of(samplers):
            return None
        with self._lock:
            if self._scheduler.waiting or not all(_will_continue(item.request) for item in planned):
                return None
            batch = [_work(item.request, 1) for item in planned]
        return graphs.launch_next(step, batch, samplers)


def _samplers(planned: Sequence[Planned]) -> list[Sampler] | None:
    """Return the samplers of the requests; None if the graph cannot sample for one of them."""
    samplers = [item.request.sampler for item in planned]
    known = [sampler for sampler in samplers if sampler is not None and is_drawable(sampler)]
    return known if len(known) == len(samplers) else None


def _will_continue(request: Request) -> bool:
    """Return whether the request has another step after the present one, and slots for it."""
    lease = request.lease
    return (
        lease is not None
        and not request.is_finished
        and not request.is_cancelled
        and 0 < request.num_sampled < request.max_tokens - 1
        and len(lease.slots) >= request.num_computed + 2
    )


def _work(request: Request, offset: int) -> Work:
    """Return the work for the request's next token; with offset 1, for the one after it, whose id is unknown."""
    assert request.lease is not None, f"request {request.id} holds no lease"
    ids = (0,) if offset else request.ids[request.num_computed : request.num_computed + 1]
    return Work(ids, request.num_computed + offset, request.lease.extents, True)
