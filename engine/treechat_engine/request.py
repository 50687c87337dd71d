"""One request: its tokens, its progress, and the delivery of its events."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from treechat_engine.api import (
    PRIORITIES,
    Completion,
    Finished,
    FinishReason,
    Priority,
    RequestFailedError,
    SamplingParams,
    Token,
    Usage,
)
from treechat_engine.kvcache.end_logits import prompt_key
from treechat_engine.kvcache.radix_node import Ints

if TYPE_CHECKING:
    from treechat_engine.kvcache.cache import Lease
    from treechat_engine.sampling.sampler import Sampler

logger = logging.getLogger(__name__)
Event = Token | Finished
# Receives events on the engine's thread. Returns False if no listener is left.
Sink = Callable[[Event], bool]


class Request:
    """A request on the engine's thread. Other threads write only `is_cancelled`.

    request_id: its number, in order of arrival.
    prompt_ids: becomes `ids`: the prompt, then the sampled tokens.
    params: how it samples.
    priority: becomes `rank`, lowest first.
    max_tokens: most tokens to generate, limited by the model and the cache.
    stop_ids: tokens that end the reply.
    sampler: None for a warm request, which computes its prompt and samples nothing.
    sink: receives its events.
    num_computed: leading tokens of ids whose KV is in the lease's slots.
    num_passed: steps without this request.
    """

    def __init__(
        self,
        request_id: int,
        prompt_ids: Ints,
        params: SamplingParams,
        priority: Priority,
        max_tokens: int,
        stop_ids: frozenset[int],
        sampler: Sampler | None,
        sink: Sink,
    ) -> None:
        self.id = request_id
        self.ids = prompt_ids
        self.prompt_len = len(prompt_ids)
        self.prompt_key = prompt_key(prompt_ids)
        self.params = params
        self.rank = PRIORITIES.index(priority)
        self.max_tokens = max_tokens
        self.stop_ids = stop_ids
        self.sampler = sampler
        self.lease: Lease | None = None
        self.num_computed = 0
        self.is_cancelled = False
        self.is_finished = False
        # A request that gave back its slots waits until this many others have ended (see Scheduler).
        self.blocked_until = 0
        self.num_passed = 0
        self.common_lens: dict[int, int] = {}
        self.sink = sink
        self._cached_tokens: int | None = None
        self._restored_tokens = 0
        self._computed_tokens = 0
        self._submitted_at = time.monotonic()
        self._started_at: float | None = None
        self._first_token_at: float | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Lower goes first: by priority, then by arrival."""
        return self.rank, self.id

    @property
    def is_warm(self) -> bool:
        return self.sampler is None

    @property
    def num_remaining(self) -> int:
        """Tokens still to compute before the next one can be sampled; 1 while decoding."""
        return len(self.ids) - self.num_computed

    @property
    def num_sampled(self) -> int:
        return len(self.ids) - self.prompt_len

    def start(self, cached_len: int, restored_len: int = 0) -> None:
        """Record that the request has a lease.

        cached_len: leading tokens found in the cache.
        restored_len: how many of them, at the end, were in a lower tier.
        """
        self.num_computed = cached_len
        if self._cached_tokens is None:
            self._cached_tokens = cached_len
            self._restored_tokens = restored_len
            self._computed_tokens = cached_len
            self._started_at = time.monotonic()

    def add_computed(self, num_tokens: int) -> None:
        self.num_computed += num_tokens
        self._computed_tokens = max(self._computed_tokens, min(self.num_computed, self.prompt_len))

    def deliver(self, token: Token) -> None:
        """Append a sampled token and send it to the listener."""
        if self._first_token_at is None:
            self._first_token_at = time.monotonic()
        self.ids.append(token.id)
        self._emit(token)

    def stop_reason(self) -> FinishReason | None:
        """Return why the request ends after its last token, or None."""
        if self.num_sampled and self.ids[-1] in self.stop_ids:
            return "stop"
        return "length" if self.num_sampled >= self.max_tokens else None

    def finish(self, reason: FinishReason, error: str | None = None) -> None:
        assert not self.is_finished, f"request {self.id} finished twice"
        self.is_finished = True
        seed = self.sampler.seed if self.sampler is not None else 0
        self._emit(Finished(reason, self.usage(), seed, tuple(self.ids[self.prompt_len :]), error))

    def usage(self) -> Usage:
        now = time.monotonic()
        cached = self._cached_tokens or 0
        return Usage(
            prompt_tokens=self.prompt_len,
            cached_tokens=cached - self._restored_tokens,
            restored_tokens=self._restored_tokens,
            computed_tokens=max(0, self._computed_tokens - cached),
            completion_tokens=self.num_sampled,
            queue_s=(self._started_at or now) - self._submitted_at,
            ttft_s=(self._first_token_at or now) - self._submitted_at,
            total_s=now - self._submitted_at,
        )

    def _emit(self, event: Event) -> None:
        try:
            is_heard = self.sink(event)
        except Exception:
            # An exception in the listener ends its own request, and must not end others.
            logger.exception("the listener of request %d failed", self.id)
            is_heard = False
        if not is_heard:
            self.is_cancelled = True


class RequestHandle:
    """The result of `Engine.submit`: iterate its events, cancel it, or wait for its end. Usable from any thread."""

    def __init__(self, cancel: Callable[[RequestHandle], None]) -> None:
        self.request: Request | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancel = cancel

    def cancel(self) -> None:
        """End the request before its next step. Its computed tokens stay cached. Idempotent."""
        self._cancel(self)

    def __iter__(self) -> Iterator[Event]:
        """Iterate over the events up to `Finished`. Blocks for each."""
        while True:
            event = self._events.get()
            yield event
            if isinstance(event, Finished):
                return

    def result(self) -> Completion:
        """Wait for the completion. Raises RequestFailedError if a step failed."""
        tokens: list[Token] = []
        for event in self:
            if isinstance(event, Token):
                tokens.append(event)
            elif event.reason == "error":
                raise RequestFailedError(event.error or "a step failed")
            else:
                finished = event
        return Completion(
            token_ids=finished.token_ids,
            logprobs=tuple(token.logprob for token in tokens),
            finish_reason=finished.reason,
            usage=finished.usage,
            seed=finished.seed,
            top=tuple(token.top for token in tokens),
        )

    def put(self, event: Event) -> bool:
        """Add an event: the sink of a request with this handle."""
        self._events.put(event)
        return True
