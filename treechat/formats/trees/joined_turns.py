"""Chains of messages that are one turn of the assistant: thoughts, calls, results and the answer become one node.

A fork inside a chain gives one node for each way through it. Hidden messages are kept with the node they lead to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from treechat.formats.document import ImportReport
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import Draft
from treechat.tree import Role, Status

MAX_CARRIED = 64
"""Messages of a chain that a fork in it repeats on each side; a longer one is split into two nodes there."""

MAX_REPEATED_BYTES = 16 * 1024 * 1024
"""What all such repetitions of one conversation may take."""

Speaks = Literal["user", "system", "part", "hidden", "nothing"]


class Link(NamedTuple):
    """A message of the source. speaks: `user` and `system` are nodes of their own, a `part` belongs to the assistant's
    turn, nobody sees what is `hidden`, and `nothing` is skipped. ends: the turn is over with this part.
    """

    id: str
    speaks: Speaks
    content: Content
    created_at: float | None = None
    model: str | None = None
    ends: bool = False
    finish_reason: str | None = None
    status: Status = "complete"
    raw: Any = None
    sampling: Mapping[str, Any] | None = None


class _Chain(NamedTuple):
    """What was passed on the way down and belongs to the node that comes next; the last one first."""

    above: _Chain | None
    link: Link
    length: int
    last_part: str | None


class Joining:
    """Adds the nodes of one conversation to a draft. links must not have cycles or missing parents."""

    def __init__(self, draft: Draft, where: str, report: ImportReport, labels: Mapping[str, str] | None = None) -> None:
        self.draft, self.where, self.report, self.labels = draft, where, report, labels or {}
        self.homes: dict[str, str] = {}
        self.made: set[str] = set()
        self.repeatable = MAX_REPEATED_BYTES

    def join(
        self,
        children: Mapping[str | None, Sequence[str]],
        speaks: Callable[[str], Speaks],
        link: Callable[[str], Link],
    ) -> None:
        """children: ids by parent, in order. speaks: what `link` will say, told cheaply. link: called once for each."""
        stack: list[tuple[str, str | None, _Chain | None]] = [(i, None, None) for i in reversed(children[None])]
        while stack:
            node_id, above, chain = stack.pop()
            below = children.get(node_id, ())
            above, chain = self._pass(link(node_id), above, chain)
            if chain is not None:
                ends = chain.link.ends or not below or any(speaks(i) in ("user", "system") for i in below)
                if chain.last_part is not None and ends:
                    above, chain = self._flush(above, chain), None
                elif not below:
                    self.report.drop(self.where, f"nothing follows the hidden message {chain.link.id}")
                elif len(below) > 1:
                    above, chain = self._at_fork(above, chain, len(below))
            stack.extend((i, above, chain) for i in reversed(below))

    def home_of(self, source_id: str | None, parents: Mapping[str, str | None]) -> str | None:
        """The node that a message of the source became part of, or else the next one above it."""
        seen = set()
        while source_id is not None and source_id not in self.homes and source_id not in seen:
            seen.add(source_id)
            source_id = parents.get(source_id)
        return None if source_id is None else self.homes.get(source_id)

    def _pass(self, link: Link, above: str | None, chain: _Chain | None) -> tuple[str | None, _Chain | None]:
        if link.speaks == "nothing":
            return above, chain
        if link.speaks in ("user", "system"):
            if chain is not None and chain.last_part is not None:
                above, chain = self._flush(above, chain), None
            self._add(link.id, above, "user" if link.speaks == "user" else "system", chain, link)
            return link.id, None
        last_part = link.id if link.speaks == "part" else chain.last_part if chain else None
        return above, _Chain(chain, link, chain.length + 1 if chain else 1, last_part)

    def _flush(self, above: str | None, chain: _Chain) -> str:
        """Make the chain a node, once; returns the node's id."""
        assert chain.last_part is not None, "hidden messages alone are no node"
        if chain.last_part not in self.made:
            self._add(chain.last_part, above, "assistant", chain)
        return chain.last_part

    def _at_fork(self, above: str | None, chain: _Chain, num_ways: int) -> tuple[str | None, _Chain | None]:
        """Take the chain along on each way, or end it here where that would be too much."""
        size = sum(len(json.dumps(link.content.parts)) + len(link.content.text) for link in _links(chain))
        self.repeatable -= size * (num_ways - 1)
        if chain.length <= MAX_CARRIED and self.repeatable >= 0:
            return above, chain
        if chain.last_part is None:
            self.report.drop(self.where, f"hidden messages above {num_ways} branches, the last one {chain.link.id}")
            return above, None
        return self._flush(above, chain), None

    def _add(self, node_id: str, above: str | None, role: Role, chain: _Chain | None, own: Link | None = None) -> None:
        content = Content()
        links = [*_links(chain), *([own] if own else [])]
        for link in links:
            if link.speaks == "hidden":
                content.keep("hidden", raw=link.raw)
            else:
                content.extend(link.content)
            self.homes.setdefault(link.id, node_id)
        shown = [link for link in links if link.speaks != "hidden"]
        self.made.add(node_id)
        self.draft.add(
            node_id,
            above,
            role,
            content,
            _first(link.created_at for link in shown),
            model=_first(link.model for link in reversed(shown)),
            sampling=_first(link.sampling for link in reversed(shown)),
            finish_reason=shown[-1].finish_reason,
            status=shown[-1].status,
            label=_first(self.labels.get(link.id) for link in reversed(links)),
        )


def _first(values: Iterable[Any]) -> Any:
    return next(filter(None, values), None)


def _links(chain: _Chain | None) -> list[Link]:
    links = []
    while chain is not None:
        links.append(chain.link)
        chain = chain.above
    return links[::-1]
