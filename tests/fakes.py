"""A chat model without a model: a byte tokenizer with real Jinja templates, and an engine that replies by script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from typing import NoReturn

from jinja2 import Template as JinjaTemplate
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.template import Template
from treechat_engine import EngineStats, Finished, PromptTooLongError, Residency, SamplingParams, Token, Usage

_TURN = "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURNS_ONLY = f"{{% for message in messages %}}{_TURN}{{% endfor %}}{_PROMPT}"
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    f"<|im_start|>system\nBe kind<|im_end|>\n{{% endif %}}{_TURN}{{% endfor %}}{_PROMPT}"
)
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    f"{{% else %}}{{{{ message['content'] }}}}{{% endif %}}<|im_end|>\n{{% endfor %}}{_PROMPT}"
)
NO_SYSTEM = (
    "<bos>{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    f"{_TURN}{{% endfor %}}{_PROMPT}"
)
TEMPLATES = {"chatml": CHATML, "thinking": THINKING, "no_system": NO_SYSTEM}
SPECIALS = {"<|im_start|>": 256, "<|im_end|>": 257, "<bos>": 258}
START_ID, END_ID, BOS_ID = SPECIALS.values()


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


@cache
def _compiled(chat_template: str) -> JinjaTemplate:
    """The template as transformers compiles it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(chat_template)


class ByteTokenizer:
    """One id per UTF-8 byte, and one per special token. Two with the same template have the same fingerprint."""

    def __init__(self, chat_template: str | None = CHATML, adds_bos: bool = False) -> None:
        self.chat_template = chat_template
        self.all_special_ids = list(SPECIALS.values())
        self._adds_bos = adds_bos

    def __repr__(self) -> str:
        return "ByteTokenizer()"

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False) -> list[int]:
        ids = [BOS_ID] if add_special_tokens and self._adds_bos else []
        while text:
            starts = {text.find(special): special for special in SPECIALS if not split_special_tokens}
            start = min((start for start in starts if start >= 0), default=len(text))
            ids.extend(text[:start].encode("utf-8", "replace"))
            if start < len(text):
                ids.append(SPECIALS[starts[start]])
                start += len(starts[start])
            text = text[start:]
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        specials = {} if skip_special_tokens else {token_id: text.encode() for text, token_id in SPECIALS.items()}
        parts = [bytes([i]) if i < 256 else specials.get(i, b"") for i in token_ids]
        return b"".join(parts).decode("utf-8", "replace")

    def apply_chat_template(
        self, conversation: Sequence[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert self.chat_template is not None and not tokenize
        return _compiled(self.chat_template).render(messages=conversation, add_generation_prompt=add_generation_prompt)


def _num_common(path: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens that both begin with."""
    end = min(len(path), len(other))
    if tuple(path[:end]) == tuple(other[:end]):
        return end
    return next(i for i in range(end) if path[i] != other[i])


class Group:
    """Siblings, each with an event that ends it."""

    def __init__(
        self, engine: ScriptedEngine, ids: Sequence[int], params: Sequence[SamplingParams], priority: str
    ) -> None:
        self._stops = [asyncio.Event() for _ in params]
        self.streams = [engine.stream(ids, one, priority, stop) for one, stop in zip(params, self._stops, strict=True)]

    def cancel(self, index: int) -> None:
        self._stops[index].set()


class ScriptedEngine:
    """Replies by script, a byte per token and then the stop token, and remembers which prefixes it computed.

    replies: the texts in turn, the last one for all further requests; or a function of the number of the request.
    num_slots: what `stats` reports as the size of the cache; nothing is ever evicted.
    max_len: prompts of more tokens are refused. None: of any length.
    caches_stop: whether the stop token has KV at once, and not before the next turn as in the real engine.
    """

    def __init__(
        self,
        replies: list[str] | Callable[[int], str],
        *,
        num_slots: int = 100_000,
        max_len: int | None = None,
        caches_stop: bool = False,
    ) -> None:
        self.replies = replies
        self.num_slots = num_slots
        self.max_len = max_len
        self.caches_stop = caches_stop
        self.logprob: Callable[[int], float] = lambda token_id: -0.5
        """Of a token. As alternatives each place has "x" and "y"."""
        self.pause_at: int | None = None
        """A reply pauses after this number of bytes until `gate` is set or the reply is stopped."""
        self.gate = asyncio.Event()
        self.error: str | None = None
        """Replies end as failed for this reason."""
        self.num_requests = 0
        self.prompts: list[tuple[int, ...]] = []
        self.cached: list[tuple[int, ...]] = []
        """The paths whose KV is there."""
        self.warmed: list[tuple[int, ...]] = []
        self.num_cancelled_warms = 0
        self.protected: list[tuple[int, ...]] = []
        self.is_closed = False

    def _num_cached(self, ids: Sequence[int]) -> int:
        return max((_num_common(path, ids) for path in self.cached), default=0)

    def _next_reply(self) -> str:
        number = self.num_requests
        self.num_requests += 1
        if callable(self.replies):
            return self.replies(number)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def _pause(self, stop: asyncio.Event | None) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.gate, stop) if event is not None]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def stream(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        priority: str = "interactive",
        stop: asyncio.Event | None = None,
    ) -> AsyncIterator[Token | Finished]:
        prompt = tuple(ids)
        self.prompts.append(prompt)
        num_cached = min(self._num_cached(prompt), len(prompt) - 1)
        generated: list[int] = []
        try:
            for token_id in [*self._next_reply().encode(), END_ID][: params.max_tokens]:
                if self.pause_at == len(generated):
                    await self._pause(stop)
                if stop is not None and stop.is_set():
                    break
                await asyncio.sleep(0)
                generated.append(token_id)
                logprob = self.logprob(token_id)
                top = ((token_id, logprob), (ord("x"), -2.5), (ord("y"), -4.0)) if params.top_logprobs else ()
                yield Token(token_id, logprob, top)
        finally:
            self.cached.append((*prompt, *(generated if self.caches_stop else generated[:-1])))
        num = len(generated)
        usage = Usage(len(prompt), num_cached, 0, len(prompt) - num_cached, num, 0.0, 0.08, 0.08 + num / 24)
        is_stopped = stop is not None and stop.is_set()
        reason = "cancelled" if is_stopped else "stop" if generated[-1:] == [END_ID] else "length"
        yield Finished("error" if self.error else reason, usage, params.seed or 0, tuple(generated), self.error)

    def fan_out(self, ids: Sequence[int], params: Sequence[SamplingParams], priority: str = "fan-out") -> Group:
        if self.max_len is not None and len(ids) > self.max_len:
            raise PromptTooLongError("too long")
        return Group(self, ids, params, priority)

    def residency(self, ids: Sequence[int]) -> Residency:
        num_cached = self._num_cached(ids)
        return Residency(num_cached, 0, len(ids) - num_cached)

    def residencies(self, paths: Sequence[Sequence[int]]) -> list[Residency]:
        return [self.residency(ids) for ids in paths]

    def residencies_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Residency]:
        paths: list[list[int]] = []
        for span, parent in zip(spans, parents, strict=True):
            paths.append([*(paths[parent] if parent >= 0 else ()), *span])
        return [self.residency(ids) for ids in paths]

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        self.protected = [tuple(ids) for ids in paths]

    def free(self, ids: Sequence[int], start: int = 0) -> int:
        """As the engine does: tokens that another path shares stay. Returns the number of freed slots."""
        path = tuple(ids)
        before = sum(map(len, self.cached))
        rest = [each for each in self.cached if each[: start + 1] != path[: start + 1] or each[: len(path)] != path]
        others = [each for each in rest if each != path[: len(each)]]
        num_shared = max((_num_common(each, path) for each in others), default=0)
        self.cached = [*others, path[: max(start, num_shared)]]
        return max(before - sum(map(len, self.cached)), 0)

    def warm(self, ids: Sequence[int]) -> ScriptedEngine:
        """Returns itself as the handle whose `cancel` ends the warming."""
        self.warmed.append(tuple(ids))
        self.cached.append(tuple(ids))
        return self

    def cancel(self) -> None:
        self.num_cancelled_warms += 1

    def stats(self) -> EngineStats:
        used = min(sum(map(len, self.cached)), self.num_slots)
        return EngineStats(
            "scripted", "cpu", "float32", self.num_slots, self.num_slots - used, used, 0, 0, 0, 480.0, 24.0
        )

    def close(self) -> None:
        self.is_closed = True


def scripted_model(
    replies: Callable[[int], str] | str, name: str = "scripted-135m", tokenizer: ByteTokenizer | None = None
) -> ChatModel:
    """A model for the screens.

    replies: `replies(0)`, `replies(1)`, ..., or always the same text.
    tokenizer: None for one whose template adds nothing to the turns.
    """
    engine = ScriptedEngine(replies if callable(replies) else [replies], caches_stop=True)
    engine.logprob = lambda token_id: -0.1
    return ChatModel(name, engine, Template(tokenizer or ByteTokenizer(TURNS_ONLY)))
