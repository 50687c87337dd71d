"""Which requests take part in the next step, and with how many tokens.

A step decodes every running request and computes at most `prefill_chunk` prompt tokens, so that a long prompt never
holds up decoding by more than one chunk. Requests go by (priority, arrival). Warm ones run while nothing else does.
Where slots are short the last in that order gives its slots back after a commit and waits; it resumes by matching the
tree. The first in order can therefore always go on, and no request fails that would fit an empty cache.
"""

from __future__ import annotations

from typing import NamedTuple

from treechat_engine.cache import KVCache
from treechat_engine.request import Request


class Planned(NamedTuple):
    """A request's part in a step: its next `num_tokens` tokens, for which it has slots."""

    request: Request
    num_tokens: int

    @property
    def reaches_end(self) -> bool:
        return self.num_tokens == self.request.num_remaining


class Scheduler:
    """The queue and the running set. The caller holds the engine's lock around every call."""

    def __init__(self, cache: KVCache, max_batch: int, prefill_chunk: int) -> None:
        self.cache = cache
        self.max_batch = max_batch
        self.prefill_chunk = prefill_chunk
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._satisfied: list[Request] = []
        self._num_ended = 0

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def end(self, request: Request) -> None:
        """Commits what the request computed and takes it out. The caller tells whoever listens."""
        if request in self.running:
            self.running.remove(request)
            self._give_back(request)
        else:
            self.waiting.remove(request)
        self._num_ended += 1

    def commit(self, request: Request) -> None:
        """Puts what the request computed so far into the tree."""
        assert request.lease is not None, f"request {request.id} holds no lease"
        self.cache.commit(request.lease, request.ids[: request.num_computed])

    def twins(self, request: Request) -> list[Request]:
        """Waiting requests of the same prompt as `request`, which just reached its end, as far as the batch has room.

        The logits that end the prompt are theirs too, so they start with a token and no forward.
        """
        if request.num_sampled:
            return []
        same = [r for r in self.waiting if not r.is_warm and not r.is_cancelled and r.ids == request.ids]
        return sorted(same, key=_order)[: max(0, self.max_batch - len(self.running))]

    def plan(self) -> list[Planned]:
        """The next step; empty where nothing can run. Admits, and takes slots back, as needed."""
        planned: list[Planned] = []
        only_warm = all(request.is_warm for request in (*self.running, *self.waiting))
        awake = [r for r in sorted(self.running, key=_order) if only_warm or not r.is_warm]
        for request in awake:
            if request.num_remaining == 1:
                self._plan_tokens(request, 1, planned)
        budget = self.prefill_chunk
        for request in awake:
            if budget and request.num_remaining > 1:
                budget -= self._plan_tokens(request, min(budget, request.num_remaining), planned)
        for request in sorted(self.waiting, key=_order):
            if not budget:
                break
            if (only_warm or not request.is_warm) and self._may_start(request):
                self._start(request)
                budget -= self._plan_tokens(request, min(budget, request.num_remaining), planned)
        planned = [item for item in planned if item.request in self.running]
        idle = not (planned or self._satisfied)
        assert not (idle and (self.running or self.waiting)), f"none of {len(self.waiting)} waiting requests can run"
        return planned

    def take_satisfied(self) -> list[Request]:
        """The warm requests that `plan` found to have nothing more to do. The caller ends them."""
        satisfied, self._satisfied = self._satisfied, []
        return satisfied

    def _plan_tokens(self, request: Request, num_tokens: int, planned: list[Planned]) -> int:
        """Plans the tokens if the request still runs and slots can be had. Returns how many were planned."""
        if request not in self.running:
            return 0
        if request.is_warm and not self._may_warm(request, num_tokens):
            self._satisfied.append(request)
            return 0
        if not self._make_room(request, num_tokens):
            return 0
        planned.append(Planned(request, num_tokens))
        return num_tokens

    def _may_warm(self, request: Request, num_tokens: int) -> bool:
        """Warming evicts nothing: whatever is cached was wanted, while this may never be."""
        is_cached = self.cache.peek(request.ids).resident == len(request.ids)
        return not is_cached and num_tokens <= self.cache.num_free

    def _make_room(self, request: Request, num_tokens: int) -> bool:
        """Slots for the request's next tokens, from whoever comes after it. False where it had to give its own back."""
        lease = request.lease
        assert lease is not None, f"request {request.id} holds no lease"
        missing = request.num_computed + num_tokens - len(lease.slots)
        while missing > 0 and not self.cache.grow(lease, missing):
            victim = max(self.running, key=_order)
            self._put_back(victim)
            if victim is request:
                return False
        return True

    def _may_start(self, request: Request) -> bool:
        busy = [r for r in self.running if not r.is_warm or request.is_warm]
        if request.blocked_until > self._num_ended and busy:
            return False
        if any(self._will_compute_prefix(other, request) for other in busy):
            return False
        if len(busy) < self.max_batch:
            return True
        last = max(busy, key=_order)
        if last.rank <= request.rank:
            return False
        self._put_back(last)
        return True

    def _will_compute_prefix(self, other: Request, request: Request) -> bool:
        """Whether `other`, which goes first, is just computing tokens that `request` would have to compute too."""
        if other.num_remaining <= 1 or other.rank > request.rank or other.lease is None:
            return False
        common = request.common_lens.get(other.id)
        if common is None:
            common = request.common_lens[other.id] = _common_len(other.ids, request.ids)
        common = min(common, len(request.ids) - 1)
        return common > other.lease.committed_len and common > self.cache.peek(request.ids).resident

    def _start(self, request: Request) -> None:
        request.lease = self.cache.lease(request.ids)
        request.started(request.lease.cached_len)
        self.waiting.remove(request)
        self.running.append(request)

    def _put_back(self, request: Request) -> None:
        self.running.remove(request)
        self._give_back(request)
        request.blocked_until = self._num_ended + 1
        self.waiting.append(request)

    def _give_back(self, request: Request) -> None:
        assert request.lease is not None, f"request {request.id} holds no lease"
        self.commit(request)
        self.cache.release(request.lease)
        request.lease = None
        request.num_computed = 0


def _order(request: Request) -> tuple[int, int]:
    return request.order


def _common_len(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix, by halving: comparing slices is far faster than a loop over tokens."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
