"""Measure the share of prompt tokens that each eviction policy reuses while a person works in trees of conversations.

A trace is made from a seed: days of turns in several conversations that continue, go back and fork, compare siblings,
and return the next day to the open conversation, a bookmark or another conversation. The cache is the engine's, without
a model. `optimal` uses the future: it drops the tokens whose next use is furthest away, which no policy can beat.

    python -m tests.bench.eviction [--days 6] [--seeds 5]
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import statistics
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.eviction import POLICIES, Policy
from treechat_engine.kvcache.slots import SlotPool

SPAN = 1 << 16  # The tokens of node i are i * SPAN, i * SPAN + 1, ...
SYSTEM_LEN = 80
TURNS_A_DAY = 60
MAX_PATH = 8_000


@dataclass
class TraceMessage:
    """A node of the history.

    parent: the node above it; -1 for the root.
    conversation: its number from 0; -1 for the root.
    tokens: the length of its span.
    children: the nodes below it.
    """

    parent: int
    conversation: int
    tokens: int
    children: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class TraceTurn:
    """One request.

    path: the nodes of its prompt.
    reply: the node of its reply.
    protected: the leaf nodes that the app protects meanwhile.
    """

    path: list[int]
    reply: int
    protected: list[int]


class Person:
    """A person working in trees of conversations. `turns` holds the requests."""

    def __init__(self, seed: int, days: int) -> None:
        self.chance = random.Random(seed)
        self.messages = [TraceMessage(-1, -1, SYSTEM_LEN)]
        self.turns: list[TraceTurn] = []
        self.bookmarks: list[int] = []
        self.recent: list[int] = []  # Conversations, the latest last.
        self.last: list[int] = []  # Per conversation, its latest current node.
        self.current = 0
        self._ids: dict[int, array[int]] = {}
        for day in range(days):
            if day:
                self.return_next_day()
            for _ in range(TURNS_A_DAY):
                self.act()

    def return_next_day(self) -> None:
        """Stay at the current node, or go to a bookmark or another conversation."""
        kind = self.chance.random()
        if kind < 0.3 and self.bookmarks:
            self.current = self.chance.choice(self.bookmarks)
        elif kind < 0.5:
            self.switch()

    def act(self) -> None:
        kind, chance = self.chance.random(), self.chance
        if kind < 0.03 or not self.last:
            self.current = 0
            self.say()
        elif kind < 0.55:
            self.say()
        elif kind < 0.70:  # Go back to a reply above, most often a near one, and fork there.
            above = [n for n in self.path(self.current)[1:] if self.is_reply(n)]
            self.current = above[max(0, len(above) - 2 - int(chance.expovariate(1 / 3)))]
            self.say()
        elif kind < 0.80:  # Generate several replies to one message and continue one of them.
            prompt = self.messages[self.current].parent
            replies = [self.reply_to(prompt) for _ in range(chance.randint(1, 4))]
            self.current = chance.choice([self.current, *replies])
            self.say()
        elif kind < 0.90:  # Go to the end of another branch of this conversation, most often a near one.
            self.current = self.pick(self.ends(self.current))
            self.say()
        elif kind < 0.95 and self.bookmarks:
            self.current = chance.choice(self.bookmarks)
            self.say()
        else:
            self.switch()
            self.say()
        if chance.random() < 0.04:
            self.bookmarks = [*self.bookmarks[-9:], self.current]

    def switch(self) -> None:
        self.current = self.last[self.pick(self.recent[::-1])]

    def pick(self, nearest_first: Sequence[int]) -> int:
        """Return a random item; the n-th is half as likely as item n / 2."""
        weights = [1 / (i + 1) for i in range(len(nearest_first))]
        return self.chance.choices(nearest_first, weights)[0]

    def say(self) -> None:
        """Add a message below the current node and a reply, which becomes current."""
        if self.num_tokens(self.current) > MAX_PATH:
            self.current = 0
        self.current = self.reply_to(self.add(self.current, int(self.chance.lognormvariate(4.0, 0.8)) + 8))

    def reply_to(self, prompt: int) -> int:
        reply = self.add(prompt, min(800, int(self.chance.lognormvariate(5.2, 0.6)) + 16))
        self.current = reply
        conversation = self.messages[reply].conversation
        self.last[conversation] = reply
        self.recent = [c for c in self.recent if c != conversation] + [conversation]
        screen = self.ends(reply)[:12]
        self.turns.append(TraceTurn(self.path(prompt), reply, [reply, *self.bookmarks, *screen]))
        return reply

    def add(self, parent: int, tokens: int) -> int:
        conversation = self.messages[parent].conversation
        if conversation < 0:
            conversation = len(self.last)
            self.last.append(0)
        self.messages.append(TraceMessage(parent, conversation, tokens))
        self.messages[parent].children.append(len(self.messages) - 1)
        return len(self.messages) - 1

    def is_reply(self, node: int) -> bool:
        return node > 0 and len(self.path(node)) % 2 == 1

    def path(self, node: int) -> list[int]:
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.messages[node].parent
        return nodes[::-1]

    def num_tokens(self, node: int) -> int:
        return sum(self.messages[n].tokens for n in self.path(node))

    def ends(self, node: int) -> list[int]:
        """Return the leaves of the node's conversation, those that fork nearest to it first."""
        found: list[int] = []
        seen = {0}
        for root in reversed(self.path(node)[1:]):
            stack = [root]
            while stack:
                each = stack.pop()
                if each in seen:
                    continue
                seen.add(each)
                if not self.messages[each].children:
                    found.append(each)
                stack.extend(self.messages[each].children)
        return found

    def ids(self, node: int) -> array[int]:
        """Return the tokens of the path to a node."""
        if node < 0:
            return array("q")
        if node not in self._ids:
            span = range(node * SPAN, node * SPAN + self.messages[node].tokens)
            self._ids[node] = self.ids(self.messages[node].parent) + array("q", span)
        return self._ids[node]


def reused_share(person: Person, num_slots: int, policy: str | Policy) -> float:
    """Return the share of prompt tokens that the cache had."""
    cache = KVCache(SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu"), policy)
    found = asked = 0
    for turn in person.turns:
        cache.policy.protect([person.ids(node) for node in turn.protected])
        prompt = person.ids(turn.path[-1])
        lease = cache.lease(prompt)
        found += lease.cached_len
        asked += len(prompt)
        for ids in (prompt, person.ids(turn.reply)):
            assert cache.grow(lease, len(ids) - len(lease.slots)), "the pool is too small for one path"
            cache.commit(lease, ids)
        cache.release(lease)
    return found / asked


def optimal_share(person: Person, num_slots: int) -> float:
    """Return the largest share that can be reused: evict the span whose next use is furthest away (Belady)."""
    uses: dict[int, list[int]] = {}
    for now, turn in enumerate(person.turns):
        for node in turn.path:
            uses.setdefault(node, []).append(now)
    cached: dict[int, int] = {}
    found = asked = 0
    for now, turn in enumerate(person.turns):
        whole = True
        for node in turn.path:
            size = person.messages[node].tokens
            found += cached.get(node, 0) if whole else 0
            whole = whole and cached.get(node, 0) == size
            asked += size
        for node in (*turn.path, turn.reply):
            cached[node] = person.messages[node].tokens
        excess = sum(cached.values()) - num_slots

        def next_use(node: int, now: int = now) -> float:
            times = uses.get(node, [])
            i = bisect_right(times, now)
            return times[i] if i < len(times) else math.inf

        for node in sorted(cached, key=lambda n: (next_use(n), n), reverse=True) if excess > 0 else ():
            dropped = min(excess, cached[node])
            cached[node] -= dropped
            excess -= dropped
            if not cached[node]:
                del cached[node]
            if not excess:
                break
    return found / asked


def table(people: Sequence[Person], sizes: Sequence[int]) -> dict[str, list[float]]:
    """Return the mean reused share per policy, one figure per size. `boundless` evicts nothing."""
    shares: dict[str, Callable[[Person, int], float]] = {name: partial(_policy_share, name) for name in POLICIES}
    shares["optimal"] = optimal_share
    shares["boundless"] = lambda person, _: optimal_share(person, sum(m.tokens for m in person.messages))
    return {
        name: [statistics.mean(share(person, size) for person in people) for size in sizes]
        for name, share in shares.items()
    }


def _policy_share(policy: str, person: Person, num_slots: int) -> float:
    return reused_share(person, num_slots, policy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    people = [Person(1_000 + seed, options.days) for seed in range(options.seeds)]
    turns = sum(len(p.turns) for p in people)
    tokens = sum(m.tokens for p in people for m in p.messages) // len(people)
    sizes = (10_000, 14_000, 20_000, 28_000, 40_000, 64_000)
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{options.seeds} people, {options.days} days, {turns} requests; {tokens:,} tokens of history each")
    shares = table(people, sizes)
    heads = "".join(f"{size:>9,}" for size in sizes)
    print(f"\n{'share of prompt tokens reused':32}{heads}")
    for name, row in shares.items():
        print(f"{name:32}" + "".join(f"{share:9.4f}" for share in row))
    print(f"\n{'computed again, of all prompts':32}{heads}")
    for name in (*POLICIES, "optimal"):
        pairs = zip(shares[name], shares["boundless"], strict=True)
        print(f"{name:32}" + "".join(f"{bound - share:9.4f}" for share, bound in pairs))


if __name__ == "__main__":
    main()
