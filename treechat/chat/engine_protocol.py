"""The protocol between the chat layer and an engine, in this process or another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from treechat.errors import GenerationError
from treechat_engine import EngineError, EngineStats, Finished, Priority, Residency, SamplingParams, Token

EngineEvent = Token | Finished


@contextmanager
def engine_request() -> Iterator[None]:
    """Raise the errors of a request that the engine refuses as GenerationError."""
    try:
        yield
    except EngineError as error:
        raise GenerationError(error.message, error.hint) from error
    except ValueError as error:
        hint = "Its tokenizer may belong to another model; choose another model"
        raise GenerationError(f"The model cannot take these tokens: {error}", hint) from error


class Group(Protocol):
    """N replies to one prompt, with one stream each, in the order of their sampling parameters."""

    @property
    def streams(self) -> Sequence[AsyncIterator[EngineEvent]]: ...

    def cancel(self, index: int) -> None:
        """End one reply; its stream still yields `Finished`."""


class WarmHandle(Protocol):
    """A prefill that runs ahead of need."""

    def cancel(self) -> None:
        """Stop at the end of the current chunk; computed KV stays cached."""


class ChatEngine(Protocol):
    """Token ids in, token ids out. Closing a stream cancels its request; computed KV stays cached."""

    def stream(
        self, ids: Sequence[int], params: SamplingParams, priority: Priority = "interactive"
    ) -> AsyncIterator[EngineEvent]: ...

    def fan_out(self, ids: Sequence[int], params: Sequence[SamplingParams], priority: Priority = "fan-out") -> Group:
        """Request one reply per item of `params`. Raises EngineError if the prompt can never fit."""

    def residency(self, ids: Sequence[int]) -> Residency:
        """Return where the KV of a path is. Changes nothing, and never waits for a step."""

    def residencies(self, paths: Sequence[Sequence[int]]) -> list[Residency]:
        """Return `residency` of several paths."""

    def residencies_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Residency]:
        """Return `residency` of paths that share prefixes.

        Path i is path parents[i] followed by spans[i]; parents[i] < i, or -1 for no parent.
        """

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """Set the paths whose KV is evicted last, the current path first. A hint."""

    def warm(self, ids: Sequence[int]) -> WarmHandle: ...

    def free(self, ids: Sequence[int], start: int = 0) -> int:
        """Drop the cached KV of ids[start:], except for prefixes that other paths share.

        Returns the number of tokens that left the device.
        """

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
