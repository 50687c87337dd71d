"""Plan the next step: its requests, and the number of tokens of each.

A step decodes every running request and computes at most `prefill_chunk` prompt tokens, so a long prompt delays
decoding by at most one chunk. Requests are ordered by (priority, arrival): a prompt of higher priority is computed
before the rest of one that already runs. Warm requests run only while no other request exists.

If slots are short, the last request in that order commits, frees its slots and waits. It resumes by matching the tree.
The first request can therefore always continue, and no request fails that would fit into an empty cache. A request that
was passed over `patience` times counts as the oldest of the highest priority, so no request starves.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.end_logits import EndLogits
from treechat_engine.request import Request

if TYPE_CHECKING:
    import torch

# Steps without this request before it goes first: some seconds of decoding, most of a minute of long prompts.
PATIENCE = 128
# Slots that a reply takes at once while many are free. One allocation per token takes 0.1 ms of a step of eight, and
# fragments the paths of replies that grow at the same time.
RESERVE = 16


class Planned(NamedTuple):
    """A request's part in a step.

    request: has slots for these tokens.
    num_tokens: its next tokens in this step.
    end_logits: set for a request that starts from its prompt's end logits; it has no tokens to compute.
    """

    request: Request
    num_tokens: int
    end_logits: torch.Tensor | None = None

    @property
    def needs_logits(self) -> bool:
        """Whether a token is sampled after the request's last one."""
        return self.num_tokens == self.request.num_remaining and not self.request.is_warm


class Scheduler:
    """The queue and the running requests. The caller holds the engine's lock during every call.

    cache: where requests take their slots.
    max_batch: most running requests.
    prefill_chunk: most prompt tokens in a step.
    patience: steps without a request before it goes first.
    deterministic: see EngineConfig.
    current_request: the request that `plan` was processing, for a caller that catches its exception.
    """

    def __init__(
        self,
        cache: KVCache,
        max_batch: int,
        prefill_chunk: int,
        patience: int = PATIENCE,
        deterministic: bool = False,
    ) -> None:
        self.cache = cache
        self.max_batch = max_batch
        self.prefill_chunk = prefill_chunk
        self.patience = patience
        self.deterministic = deterministic
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.end_logits = EndLogits()
        self.current_request: Request | None = None
        self._finished_warm: list[Request] = []
        self._num_ended = 0

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def end(self, request: Request) -> None:
        """Commit the request's tokens, remove it and free its slots, even if the commit raises.

        The caller sends the last event.
        """
        self._num_ended += 1
        if request in self.running:
            self.running.remove(request)
            self._give_back(request)
        else:
            self.waiting.remove(request)

    def commit(self, request: Request) -> None:
        """Put the request's computed tokens into the tree."""
        assert request.lease is not None, f"request {request.id} holds no lease"
        self.cache.commit(request.lease, request.ids[: request.num_computed])

    def plan(self) -> list[Planned]:
        """Return the next step; empty if nothing can run. Starts requests and takes slots back as needed."""
        self.current_request = None
        self._finished_warm.clear()
        planned: list[Planned] = []
        only_warm = all(request.is_warm for request in (*self.running, *self.waiting))
        awake = [r for r in sorted(self.running, key=_order) if only_warm or not r.is_warm]
        for request in awake:
            if request.num_remaining == 1:
                self._plan_tokens(request, 1, planned)
        candidates = [r for r in awake if r.num_remaining > 1]
        if self.waiting:
            candidates += [r for r in self.waiting if only_warm or not r.is_warm]
            candidates.sort(key=_order)
        self._plan_prompts(candidates, planned)
        self.current_request = None
        planned = [item for item in planned if item.request.lease is not None]
        self._count_passed(planned)
        idle = not (planned or self._finished_warm)
        assert not (idle and (self.running or self.waiting)), f"none of {len(self.waiting)} waiting requests can run"
        return planned

    def take_finished_warm(self) -> list[Request]:
        """Return the warm requests that `plan` found complete. The caller ends them."""
        finished, self._finished_warm = self._finished_warm, []
        return finished

    def _plan_prompts(self, candidates: Sequence[Request], planned: list[Planned]) -> None:
        """Assign the step's budget of prompt tokens to the candidates in their order."""
        budget = self.prefill_chunk
        for request in candidates:
            self.current_request = request
            if request.lease is None:
                if not self._has_place(request):
                    continue
                if (logits := self._resident_logits(request)) is not None:
                    self._start(request, whole=True)
                    planned.append(Planned(request, 0, logits))
                    continue
                if not budget or any(self._will_compute_prefix(other, request) for other in self.running):
                    continue
                self._start(request)
            if budget:
                budget -= self._plan_tokens(request, self._chunk(request, budget), planned)

    def _chunk(self, request: Request, budget: int) -> int:
        """Return how many of its next tokens the request computes.

        Deterministic: a whole chunk or nothing, so that no other request moves its borders; and the last token alone,
        as if the rest were cached.
        """
        if not self.deterministic:
            return min(budget, request.num_remaining)
        chunk = max(1, min(self.prefill_chunk, request.num_remaining - 1))
        return chunk if chunk <= budget else 0

    def _plan_tokens(self, request: Request, num_tokens: int, planned: list[Planned]) -> int:
        """Plan the tokens if the request still runs and slots are available. Returns the number planned."""
        self.current_request = request
        if request.lease is None or not num_tokens:
            return 0
        if request.is_warm and not self._may_warm(request, num_tokens):
            self._finished_warm.append(request)
            return 0
        if not self._make_room(request, num_tokens):
            return 0
        planned.append(Planned(request, num_tokens))
        return num_tokens

    def _count_passed(self, planned: Sequence[Planned]) -> None:
        """While requests wait, count the steps without each request."""
        if not self.waiting and len(planned) == len(self.running):
            return
        served = {item.request for item in planned}
        for request in (*self.running, *self.waiting):
            if request not in served and not request.is_warm:
                request.num_passed += 1
                if request.num_passed >= self.patience:
                    request.rank = 0

    def _may_warm(self, request: Request, num_tokens: int) -> bool:
        """Return whether there are tokens to compute, and slots for them that are free or hold KV of a lower rank."""
        lease = request.lease
        assert lease is not None, f"request {request.id} holds no lease"
        if self.cache.peek(request.ids).resident == len(request.ids):
            return False
        missing = request.num_computed + num_tokens - len(lease.slots)
        return missing <= 0 or self.cache.grow(lease, missing)

    def _make_room(self, request: Request, num_tokens: int) -> bool:
        """Allocate slots for the request's next tokens, if needed from requests after it.

        Returns False if the request had to free its own slots.
        """
        lease = request.lease
        assert lease is not None, f"request {request.id} holds no lease"
        missing = request.num_computed + num_tokens - len(lease.slots)
        if missing == 1 and self.cache.num_free > 2 * RESERVE * self.max_batch:
            missing = RESERVE
        while missing > 0 and not self.cache.grow(lease, missing):
            victim = max(self.running, key=_order)
            self._put_back(victim, blocked=True)
            if victim is request:
                return False
        return True

    def _resident_logits(self, request: Request) -> torch.Tensor | None:
        """Return the logits at the end of the request's prompt, if they are stored and all its KV is resident."""
        if request.is_warm or request.num_sampled or request.prompt_key not in self.end_logits:
            return None
        if self.cache.peek(request.ids).resident < len(request.ids):
            return None
        return self.end_logits.get(request.prompt_key)

    def _has_place(self, request: Request) -> bool:
        """Return whether the batch has a place for the request, or a request of lower priority to replace."""
        busy = self._busy(request)
        if request.blocked_until > self._num_ended and busy:
            return False
        return len(busy) < self.max_batch or max(busy, key=_order).rank > request.rank

    def _busy(self, request: Request) -> list[Request]:
        """Return the requests that share the batch with this one. Warm ones pause while others run."""
        return [r for r in self.running if not r.is_warm or request.is_warm]

    def _will_compute_prefix(self, other: Request, request: Request) -> bool:
        """Return whether `other` is computing something that `request` needs too: prompt tokens, or the logits at its
        end.

        `other` must not be of lower priority.
        """
        if other.rank > request.rank or (other.is_warm and not request.is_warm):
            return False
        if other.id > request.id and request.num_passed >= self.patience:
            return False
        is_same = other.prompt_key == request.prompt_key and not other.num_sampled and not request.num_sampled
        if is_same and not other.is_warm:
            return True
        if other.num_remaining <= 1:
            return False
        common = min(self._common_len(other, request), len(request.ids) - 1)
        return common > other.num_computed and common > self.cache.peek(request.ids).resident

    def _common_len(self, other: Request, request: Request) -> int:
        common = request.common_lens.get(other.id)
        if common is None:
            common = request.common_lens[other.id] = _common_len(other.ids, request.ids)
        return common

    def _start(self, request: Request, whole: bool = False) -> None:
        """Give the request a place and a lease on its cached prefix: at most len - 1 tokens, or the whole prompt.

        Running requests of lower priority that compute the same prefix leave it to this one.
        """
        busy = self._busy(request)
        if len(busy) >= self.max_batch:
            self._put_back(max(busy, key=_order))
        ids = request.ids + array("q", [0]) if whole else request.ids
        request.lease = lease = self.cache.lease(ids, is_warm=request.is_warm)
        request.start(lease.cached_len, lease.restored_len)
        self.waiting.remove(request)
        self.running.append(request)
        for other in [r for r in self.running if r.rank > request.rank and r.num_remaining > 1]:
            if self._common_len(other, request) > other.num_computed:
                self._put_back(other)

    def _put_back(self, request: Request, blocked: bool = False) -> None:
        """Take the request's slots; its computed tokens stay in the tree. blocked: until another request has ended."""
        self.running.remove(request)
        self.waiting.append(request)
        if blocked:
            request.blocked_until = self._num_ended + 1
        self._give_back(request)

    def _give_back(self, request: Request) -> None:
        lease = request.lease
        assert lease is not None, f"request {request.id} holds no lease"
        try:
            self.commit(request)
        finally:
            request.lease = None
            request.num_computed = 0
            self.cache.release(lease)


def _order(request: Request) -> tuple[int, int]:
    return request.order


def _common_len(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix, by bisection: comparing slices is far faster than a loop over
    tokens.
    """
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
