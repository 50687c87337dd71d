"""What the chat layer asks of an engine: the one in this process, and later a server or another process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from treechat.errors import GenerationError
from treechat_engine import EngineError, EngineStats, Finished, Priority, Residency, SamplingParams, Token

EngineEvent = Token | Finished


@contextmanager
def engine_request() -> Iterator[None]:
    """What an engine says of a request that it does not start is raised as GenerationError."""
    try:
        yield
    except EngineError as error:
        raise GenerationError(error.message, error.hint) from error
    except ValueError as error:
        hint = "Its tokenizer may be that of another model: take another model"
        raise GenerationError(f"The model cannot take these tokens: {error}", hint) from error


class Group(Protocol):
    """N siblings of one prefix, a stream each, in the order of their sampling parameters."""

    @property
    def streams(self) -> Sequence[AsyncIterator[EngineEvent]]: ...

    def cancel(self, index: int) -> None:
        """End one sibling; its stream still yields `Finished`."""


class WarmHandle(Protocol):
    """A prefill running ahead of need."""

    def cancel(self) -> None:
        """Stop at the next chunk border; what was computed stays cached."""


class ChatEngine(Protocol):
    """Token ids in, token ids out. Closing a stream cancels its request; what was computed stays cached."""

    def stream(
        self, ids: Sequence[int], params: SamplingParams, priority: Priority = "interactive"
    ) -> AsyncIterator[EngineEvent]: ...

    def fan_out(self, ids: Sequence[int], params: Sequence[SamplingParams], priority: Priority = "fan-out") -> Group:
        """One reply per params. Raises EngineError at once where the prompt can never fit."""

    def residency(self, ids: Sequence[int]) -> Residency:
        """Where the KV of a path is. Changes nothing, and never waits for a step."""

    def residencies(self, paths: Sequence[Sequence[int]]) -> list[Residency]:
        """`residency` of several paths in one call."""

    def residencies_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Residency]:
        """`residency` of paths that share their beginnings: path i is path parents[i] (an earlier one, or -1 for none)
        followed by spans[i]."""

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """The paths whose KV should go last, the current one first. A hint."""

    def warm(self, ids: Sequence[int]) -> WarmHandle: ...

    def free(self, ids: Sequence[int], start: int = 0) -> int:
        """Drop what is cached of `ids` behind its first `start` tokens, except for what other paths share; tokens that
        left the device."""

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
