"""The tokens of one message: their text and probabilities, what else could have stood there, and forks inside it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple

from treechat.chat.event_queue import EventQueue
from treechat.chat.events import ChatEvent
from treechat.chat.session import Chat
from treechat.chat.tokens.detokenizer import Detokenizer
from treechat.errors import GenerationError, UsageError
from treechat.tree import Span
from treechat_engine import EngineError, Finished, SamplingParams, Token, Usage

NUM_ALTERNATIVES = 10
"""Alternatives asked for at one place."""


class MessageToken(NamedTuple):
    """One token of a message. `text` is what it adds, empty inside a character; `logprob` None: nobody sampled it."""

    id: int
    text: str
    logprob: float | None

    @property
    def probability(self) -> float | None:
        return None if self.logprob is None else math.exp(min(self.logprob, 0.0))


class Alternative(NamedTuple):
    """A token that could stand at some place, with the model's log-probability for it there."""

    id: int
    text: str
    logprob: float

    @property
    def probability(self) -> float:
        return math.exp(min(self.logprob, 0.0))


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Most likely first, and what finding them cost."""

    choices: tuple[Alternative, ...]
    usage: Usage


def tokens_of(chat: Chat, node_id: str) -> list[MessageToken]:
    """The message's tokens in order; their texts joined are its text. Made from the text where it has no tokens yet.

    Raises ModelError while no model is loaded, UsageError while the reply is being written.
    """
    model, span = chat.ready_model(), _span(chat, node_id)
    # A reply that begins with an edited message's tokens has NaN for those: nobody sampled them.
    logprobs = [value if math.isfinite(value) else None for value in span.logprobs or (math.nan,) * len(span.ids)]
    stream = Detokenizer(model.template.decode)
    texts = [stream.add(token_id) for token_id in span.ids]
    if texts:
        texts[-1] += stream.finish()
    return [
        MessageToken(token_id, text, logprob)
        for token_id, text, logprob in zip(span.ids, _own(texts, chat.text(node_id)), logprobs, strict=True)
    ]


def _own(texts: list[str], whole: str) -> list[str]:
    """The texts without what a template put before or behind the message's own."""
    extra = len("".join(texts)) - len(whole)
    if extra <= 0:
        return texts
    start = "".join(texts).rfind(whole)
    if start < 0:
        return texts
    kept, position = [], 0
    for text in texts:
        kept.append(text[max(start - position, 0) : max(start + len(whole) - position, 0)])
        position += len(text)
    return kept


async def alternatives(chat: Chat, node_id: str, index: int) -> Alternatives:
    """What the model would put at token `index` of a reply, most likely first.

    The path up to there is prefilled: one token where its KV is still there. Nothing is added to the tree.
    Raises GenerationError, ModelError, UsageError.
    """
    model, span = chat.ready_model(), _span(chat, node_id)
    _check(index, span)
    ids = [*chat.path_ids(chat.tree[node_id].parent_id), *span.ids[:index]]
    if not ids:
        raise UsageError("Nothing stands before this token", "Go on to the next one.")
    params = SamplingParams(max_tokens=1, top_logprobs=NUM_ALTERNATIVES, ignore_eos=True)
    top: tuple[tuple[int, float], ...] = ()
    usage = Usage()
    try:
        stream = model.engine.stream(ids, params)
        async for event in stream:
            if isinstance(event, Token):
                top = event.top or ((event.id, event.logprob),)
            elif isinstance(event, Finished):
                usage = event.usage
                if event.error:
                    raise GenerationError(event.error)
    except EngineError as error:
        raise GenerationError(error.message, error.hint) from error
    return Alternatives(tuple(Alternative(i, _text_after(chat, ids, i), logprob) for i, logprob in top), usage)


def _text_after(chat: Chat, ids: list[int], token_id: int) -> str:
    """What the token adds to the text before it: some tokenizers drop the space of a first word."""
    stream = Detokenizer(chat.ready_model().template.decode, ids)
    return stream.add(token_id) + stream.finish()


def fork_at(
    chat: Chat, node_id: str, index: int, alternative: Alternative | None = None
) -> AsyncGenerator[ChatEvent, None]:
    """A sibling of a reply that has its first `index` tokens, then `alternative`, and goes on from there.

    alternative: None goes on right behind the first `index` tokens, which may then be all of them. One that ends a
    reply ends it. Events and errors as of `Chat.resume`.
    """
    return chat.stream(lambda events: _fork(chat, events, node_id, index, alternative))


async def _fork(chat: Chat, events: EventQueue, node_id: str, index: int, alternative: Alternative | None) -> None:
    model, span = chat.ready_model(), _span(chat, node_id)
    node = chat.tree[node_id]
    if node.role != "assistant":
        raise UsageError("Only a reply can be forked at a token", "Edit a message of yours instead (e).")
    _check(index, span, may_be_end=alternative is None)
    ids, logprobs = span.ids[:index], (span.logprobs or (math.nan,) * index)[:index]
    if alternative is not None:
        ids, logprobs = (*ids, alternative.id), (*logprobs, alternative.logprob)
    text = "".join(token.text for token in tokens_of(chat, node_id)[:index])
    text += alternative.text if alternative is not None else ""
    is_end = alternative is not None and alternative.id in model.stop_ids
    begun = Span(model.fingerprint, ids, logprobs)
    await chat.begin_into(events, node.parent_id, begun, text, is_end)


def _span(chat: Chat, node_id: str) -> Span:
    if node_id in chat.replies:
        raise UsageError("This reply is still being written", "Stop it first (esc).")
    return chat.span(node_id)


def _check(index: int, span: Span, may_be_end: bool = False) -> None:
    if not 0 <= index < len(span.ids) + may_be_end:
        raise UsageError(f"This message has {len(span.ids)} tokens, none at {index}")
