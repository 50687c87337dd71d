"""A byte tokenizer with real Jinja templates, and an engine that replies by script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.template import Template
from treechat.store import Store
from treechat_engine import EngineStats, Finished, PromptTooLongError, Residency, SamplingParams, Token, Usage

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nBe kind<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "<bos>{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<bos>")


class ByteTokenizer:
    """One id per UTF-8 byte, and one per special token."""

    def __init__(self, chat_template: str | None = CHATML, adds_bos: bool = False) -> None:
        self.chat_template = chat_template
        self.all_special_ids = [256 + i for i in range(len(SPECIAL))]
        self._adds_bos = adds_bos

    def __repr__(self) -> str:
        return "ByteTokenizer()"

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False) -> list[int]:
        ids = [258] if add_special_tokens and self._adds_bos else []
        while text:
            special = next((s for s in SPECIAL if text.startswith(s)), None)
            if special and not split_special_tokens:
                ids.append(256 + SPECIAL.index(special))
                text = text[len(special) :]
            else:
                ids.extend(text[0].encode())
                text = text[1:]
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        data = b""
        for token_id in token_ids:
            if token_id < 256:
                data += bytes([token_id])
            elif not skip_special_tokens:
                data += SPECIAL[token_id - 256].encode()
        return data.decode("utf-8", errors="replace")

    def apply_chat_template(self, conversation, *, tokenize: bool, add_generation_prompt: bool) -> str:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

        def raise_exception(message: str):
            from jinja2.exceptions import TemplateError

            raise TemplateError(message)

        environment.globals["raise_exception"] = raise_exception
        template = environment.from_string(self.chat_template)
        return template.render(messages=conversation, add_generation_prompt=add_generation_prompt)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass
class ScriptedEngine:
    """Replies with `replies` in turn, a byte per token, then the stop token; remembers the longest common prefixes."""

    replies: list[str] = field(default_factory=lambda: ["Hello."])
    seen: list[tuple[int, ...]] = field(default_factory=list)
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    error: str | None = None
    max_len: int = 10_000
    protected: list[tuple[int, ...]] = field(default_factory=list)

    def _cached(self, ids: Sequence[int]) -> int:
        best = 0
        for seen in self.seen:
            common = next(
                (i for i, (a, b) in enumerate(zip(seen, ids, strict=False)) if a != b), min(len(seen), len(ids))
            )
            best = max(best, common)
        return best

    async def stream(
        self, ids, params: SamplingParams, priority="interactive", stopped: asyncio.Event | None = None
    ) -> AsyncIterator[Token | Finished]:
        prompt = tuple(ids)
        self.prompts.append(prompt)
        cached = min(self._cached(prompt), len(prompt) - 1)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        made: list[int] = []
        reason = "stop"
        try:
            for token_id in [*reply.encode(), 257][: params.max_tokens]:
                await asyncio.sleep(0)
                if self.gate is not None and len(made) == 3:
                    await (stopped or self.gate).wait()
                if stopped is not None and stopped.is_set():
                    reason = "cancelled"
                    break
                made.append(token_id)
                yield Token(token_id, -0.5)
            if reason == "stop" and made[-1] != 257:
                reason = "length"
        finally:
            self.seen.append((*prompt, *made[:-1]))
        usage = Usage(len(prompt), cached, 0, len(prompt) - cached, len(made), 0.0, 0.1, 0.2)
        yield Finished("error" if self.error else reason, usage, params.seed or 0, tuple(made), self.error)

    def fan_out(self, ids, params, priority="fan-out"):
        if len(ids) > self.max_len:
            raise PromptTooLongError("too long")
        stops = [asyncio.Event() for _ in params]

        class Group:
            streams = tuple(self.stream(ids, one, priority, stop) for one, stop in zip(params, stops, strict=True))

            def cancel(self, index: int) -> None:
                stops[index].set()

        return Group()

    def residency(self, ids) -> Residency:
        cached = self._cached(tuple(ids))
        return Residency(cached, 0, len(ids) - cached)

    def residencies(self, paths):
        return [self.residency(ids) for ids in paths]

    def residencies_along(self, spans, parents):
        paths: list[list[int]] = []
        for span, parent in zip(spans, parents, strict=True):
            paths.append([*(paths[parent] if parent >= 0 else ()), *span])
        return [self.residency(ids) for ids in paths]

    def protect(self, paths):
        self.protected = [tuple(ids) for ids in paths]

    def free(self, ids: Sequence[int], start: int = 0) -> int:
        """As the engine: what another path shares stays."""
        path = tuple(ids)
        before = sum(map(len, self.seen))
        rest = [each for each in self.seen if each[: start + 1] != path[: start + 1] or each[: len(path)] != path]
        others = [each for each in rest if each != path[: len(each)]]
        shared = max((_common(each, path) for each in others), default=0)
        self.seen = [*others, path[: max(start, shared)]]
        return max(before - sum(map(len, self.seen)), 0)

    def warm(self, ids):
        self.seen.append(tuple(ids))

        class Handle:
            def cancel(self) -> None:
                pass

        return Handle()

    def stats(self) -> EngineStats:
        return EngineStats("scripted", "cpu", "float32", 1000, 1000, 0, 0, 0, 0, 100.0, 10.0)

    def close(self) -> None:
        pass


@pytest.fixture
def store():
    with Store.open(None) as opened:
        yield opened


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def model(engine: ScriptedEngine) -> ChatModel:
    return ChatModel("scripted", engine, Template(ByteTokenizer()))


@pytest.fixture
def tokenizer_with():
    return ByteTokenizer


@pytest.fixture
def templates():
    return {"chatml": CHATML, "thinking": THINKING, "no_system": NO_SYSTEM}
