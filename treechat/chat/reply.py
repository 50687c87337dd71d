"""One reply while it is generated: from the engine's tokens to text, events and the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from math import nan

from treechat.chat.engine_protocol import EngineEvent
from treechat.chat.events import ChatEvent, ReplyFinished, TextAdded
from treechat.chat.tokens.detokenizer import Detokenizer
from treechat.errors import StoreError
from treechat.store import Store
from treechat.tree import Node, Span, Status, Turn, preview_of
from treechat_engine import EngineError, Finished, Token, Usage

FLUSH_S = 0.2
"""Longest time before a token is in the database. A crash loses at most this much."""

_STATUS: dict[str, Status] = {"stop": "complete", "length": "complete", "cancelled": "stopped", "error": "failed"}


class Reply:
    """Runs in its own task. Passes its events to `emit` and stores its tokens at least every `FLUSH_S`."""

    def __init__(
        self,
        store: Store,
        node: Node,
        turn: Turn,
        span: Span,
        text: str,
        stream: AsyncIterator[EngineEvent],
        cancel: Callable[[], None],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        """Prepare a reply; `start` begins it.

        store: gets the tokens and the end of the reply.
        node: the reply's node; it is stored already.
        turn: the provenance; its counts and times are set at the end.
        span: the ids that the node has already; empty, or those of a continued reply.
        text: the text of these ids.
        stream: the events of the engine's request.
        cancel: ends that request; `stream` then yields its `Finished`.
        decode: returns the text of ids, without special tokens.
        """
        self.node = node
        self.turn = turn
        self._store = store
        self._tokenizer = span.tokenizer
        self._ids = list(span.ids)
        self._logprobs = [nan] * len(span.ids) if span.logprobs is None else list(span.logprobs)
        self._stream = stream
        self._cancel = cancel
        self._decoder = Detokenizer(decode, self._ids)
        # An incomplete character at the end is decoded again once it is complete.
        self.text = text.removesuffix(self._decoder.pending)
        self._timer: asyncio.TimerHandle | None = None
        self._started_s = time.perf_counter()
        self._ttft_s: float | None = None
        self._num_new = 0
        self._error: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def span(self) -> Span:
        """The ids so far, with their log-probabilities."""
        return Span(self._tokenizer, tuple(self._ids), tuple(self._logprobs))

    def start(self, emit: Callable[[ChatEvent], None]) -> None:
        """Begin to read the engine's stream in a task."""
        self._task = asyncio.create_task(self._run(emit), name=f"reply {self.node.id}")

    def stop(self) -> None:
        """Cancel the request; the tokens so far are kept."""
        self._cancel()

    async def wait(self) -> None:
        """Wait until the reply is stored."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self, emit: Callable[[ChatEvent], None]) -> None:
        finished: Finished | None = None
        error: str | None = None
        try:
            async for event in self._stream:
                if isinstance(event, Token):
                    self._take(event, emit)
                else:
                    finished = event
        except EngineError as failure:
            error = str(failure)
        finally:
            emit(self._finish(finished, self._error or error, emit))

    def _take(self, token: Token, emit: Callable[[ChatEvent], None]) -> None:
        if self._ttft_s is None:
            self._ttft_s = time.perf_counter() - self._started_s
        self._ids.append(token.id)
        self._logprobs.append(token.logprob)
        self._num_new += 1
        self._show(self._decoder.add(token.id), emit)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _show(self, piece: str, emit: Callable[[ChatEvent], None]) -> None:
        if piece:
            self.text += piece
            emit(TextAdded(self.node.id, piece))

    def _flush(self) -> None:
        self._timer = None
        try:
            self._store.flush_reply(self.node.id, self.text, self.span)
        except StoreError as failure:
            # For example a full disk: further tokens would be lost too.
            self._error = str(failure)
            self._cancel()

    def _finish(self, finished: Finished | None, error: str | None, emit: Callable[[ChatEvent], None]) -> ReplyFinished:
        if self._timer is not None:
            self._timer.cancel()
        self._show(self._decoder.finish(), emit)
        if finished is not None and finished.error:
            error = finished.error
        reason = finished.reason if finished else ("error" if error else "cancelled")
        usage = finished.usage if finished else Usage(completion_tokens=self._num_new, ttft_s=self._ttft_s or 0.0)
        self.turn = replace(
            self.turn,
            finish_reason=reason,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            restored_tokens=usage.restored_tokens,
            computed_tokens=usage.computed_tokens,
            completion_tokens=usage.completion_tokens,
            queue_s=usage.queue_s,
            ttft_s=usage.ttft_s,
            total_s=usage.total_s or time.perf_counter() - self._started_s,
        )
        status = _STATUS[reason]
        if error is not None:
            status = "failed"
        try:
            self._store.finish_reply(self.node.id, status, self.text, self.span, self.turn)
            self.node = self._store.node(self.node.id)
        except StoreError as failure:
            error = str(failure)
            self.node = replace(self.node, status="failed", preview=preview_of(self.text))
        return ReplyFinished(self.node, self.turn, error)
