"""The tokens of one message: texts, probabilities, alternatives, and forks inside the message."""

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
"""Number of alternatives requested for one token."""


class MessageToken(NamedTuple):
    """One token of a message.

    id: token id.
    text: the text that it adds; empty inside a character.
    logprob: natural-log probability; None if the token was not sampled.
    """

    id: int
    text: str
    logprob: float | None

    @property
    def probability(self) -> float | None:
        return None if self.logprob is None else math.exp(min(self.logprob, 0.0))


class Alternative(NamedTuple):
    """A token that the model could sample at one position.

    id: token id.
    text: the text that it would add.
    logprob: natural-log probability at this position.
    """

    id: int
    text: str
    logprob: float

    @property
    def probability(self) -> float:
        return math.exp(min(self.logprob, 0.0))


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The alternatives, most likely first, and the usage of the request that found them."""

    choices: tuple[Alternative, ...]
    usage: Usage


def tokens_of(chat: Chat, node_id: str) -> list[MessageToken]:
    """Return the message's tokens in order; their joined texts are its text. A message without tokens is tokenized.

    Raises ModelError while no model is loaded, UsageError while the reply is generated.
    """
    model, span = chat.ready_model(), _span(chat, node_id)
    # NaN marks a token that was not sampled: the first tokens of a fork may come from an edited message.
    logprobs = [value if math.isfinite(value) else None for value in span.logprobs or (math.nan,) * len(span.ids)]
    stream = Detokenizer(model.template.decode)
    texts = [stream.add(token_id) for token_id in span.ids]
    if texts:
        texts[-1] += stream.finish()
    return [
        MessageToken(token_id, text, logprob)
        for token_id, text, logprob in zip(span.ids, _message_texts(texts, chat.text(node_id)), logprobs, strict=True)
    ]


def _message_texts(texts: list[str], whole: str) -> list[str]:
    """Return the texts without those that the template put before or after the message."""
    extra = len("".join(texts)) - len(whole)
    if extra <= 0:
        return texts
    start = "".join(texts).rfind(whole)
    if start < 0:
        return texts
    parts, position = [], 0
    for text in texts:
        parts.append(text[max(start - position, 0) : max(start + len(whole) - position, 0)])
        position += len(text)
    return parts


async def alternatives(chat: Chat, node_id: str, index: int) -> Alternatives:
    """Return the tokens that the model could sample at position `index` of a reply, most likely first.

    Prefills the path up to that position; with its KV cached, this is one token. Adds nothing to the tree.
    Raises GenerationError, ModelError, UsageError.
    """
    model, span = chat.ready_model(), _span(chat, node_id)
    _check(index, span)
    ids = [*chat.path_ids(chat.tree[node_id].parent_id), *span.ids[:index]]
    if not ids:
        raise UsageError("There is no token before this one", "Choose the next one.")
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
    """Return the text that the token adds after `ids`: some tokenizers drop the space before a first word."""
    stream = Detokenizer(chat.ready_model().template.decode, ids)
    return stream.add(token_id) + stream.finish()


def fork_at(
    chat: Chat, node_id: str, index: int, alternative: Alternative | None = None
) -> AsyncGenerator[ChatEvent, None]:
    """Generate a sibling of a reply from its first `index` tokens and one other token.

    Has the events and errors of `Chat.resume`.

    chat: the conversation.
    node_id: the reply.
    index: the number of tokens that the sibling takes over.
    alternative: the token after them; a stop token ends the sibling. None generates directly after the first `index`
        tokens, which may then be all tokens of the reply.
    """
    return chat.stream(lambda events: _fork(chat, events, node_id, index, alternative))


async def _fork(chat: Chat, events: EventQueue, node_id: str, index: int, alternative: Alternative | None) -> None:
    model, span = chat.ready_model(), _span(chat, node_id)
    node = chat.tree[node_id]
    if node.role != "assistant":
        raise UsageError("Only a reply can be forked at a token", "Edit your message instead (e).")
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
        raise UsageError(f"This message has {len(span.ids)} tokens; index {index} is out of range")
