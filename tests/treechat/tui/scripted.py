"""A ChatModel without a model: a byte tokenizer with a ChatML template, and an engine that replies by script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.template import Template
from treechat_engine import EngineStats, Finished, Residency, SamplingParams, Token, Usage

SPECIAL = ("<|im_start|>", "<|im_end|>")
SLOTS = 100_000


class ByteTokenizer:
    """One id per UTF-8 byte, 256 and 257 for the two special tokens."""

    chat_template = "chatml"
    all_special_ids = (256, 257)

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False) -> list[int]:
        if split_special_tokens:
            return list(text.encode("utf-8", "replace"))
        ids: list[int] = []
        for index, part in enumerate(text.replace(SPECIAL[1], SPECIAL[0] + "\0").split(SPECIAL[0])):
            if index:
                ids.append(257 if part.startswith("\0") else 256)
            ids.extend(part.removeprefix("\0").encode("utf-8", "replace"))
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        parts = [
            bytes([i]) if i < 256 else b"" if skip_special_tokens else SPECIAL[i - 256].encode() for i in token_ids
        ]
        return b"".join(parts).decode("utf-8", "replace")

    def apply_chat_template(self, conversation, *, tokenize: bool, add_generation_prompt: bool) -> str:
        turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in conversation]
        return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class Group:
    """Siblings, each with an event that ends it."""

    def __init__(self, engine: ScriptedEngine, ids: Sequence[int], params: Sequence[SamplingParams]) -> None:
        self._stops = [asyncio.Event() for _ in params]
        self.streams = [engine.stream(ids, one, "fan-out", stop) for one, stop in zip(params, self._stops, strict=True)]

    def cancel(self, index: int) -> None:
        self._stops[index].set()


class ScriptedEngine:
    """`reply` gives the text for the n-th request. `gate`: a reply pauses after `pause_at` bytes until it is set.

    `logprob` gives that of a token; as alternatives each place has "x" and "y".
    """

    def __init__(self, reply: Callable[[int], str]) -> None:
        self.reply = reply
        self.num_requests = 0
        self.pause_at: int | None = None
        self.gate = asyncio.Event()
        self.cached: list[tuple[int, ...]] = []
        self.warmed: list[tuple[int, ...]] = []
        self.cancelled_warms = 0
        self.is_closed = False
        self.protected: list[tuple[int, ...]] = []
        self.logprob: Callable[[int], float] = lambda token_id: -0.1

    def _hit(self, ids: Sequence[int]) -> int:
        best = 0
        for path in self.cached:
            end = min(len(path), len(ids))
            if path[:end] == tuple(ids[:end]):
                best = max(best, end)
            else:
                best = max(best, next(i for i in range(end) if path[i] != ids[i]))
        return best

    async def stream(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        priority: str = "interactive",
        stop: asyncio.Event | None = None,
    ) -> AsyncIterator[Token | Finished]:
        prompt = tuple(ids)
        hit = min(self._hit(prompt), len(prompt) - 1)
        text = self.reply(self.num_requests)
        self.num_requests += 1
        made: list[int] = []
        try:
            for token_id in [*text.encode(), 257][: params.max_tokens]:
                if self.pause_at == len(made):
                    waits = [asyncio.ensure_future(e.wait()) for e in (self.gate, stop) if e is not None]
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    for wait in waits:
                        wait.cancel()
                if stop is not None and stop.is_set():
                    break
                await asyncio.sleep(0)
                made.append(token_id)
                logprob = self.logprob(token_id)
                top = ((token_id, logprob), (ord("x"), -2.5), (ord("y"), -4.0)) if params.top_logprobs else ()
                yield Token(token_id, logprob, top)
        finally:
            self.cached.append((*prompt, *made))
        stopped = stop is not None and stop.is_set()
        reason = "cancelled" if stopped else "stop" if made and made[-1] == 257 else "length"
        usage = Usage(len(prompt), hit, 0, len(prompt) - hit, len(made), 0.0, 0.08, 0.08 + len(made) / 24)
        yield Finished(reason, usage, params.seed or 0, tuple(made))

    def fan_out(self, ids: Sequence[int], params: Sequence[SamplingParams], priority: str = "fan-out") -> Group:
        return Group(self, ids, params)

    def residency(self, ids: Sequence[int]) -> Residency:
        hit = self._hit(ids)
        return Residency(hit, 0, len(ids) - hit)

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
        """As the engine: what another path shares stays."""
        path = tuple(ids)
        before = sum(map(len, self.cached))
        rest = [each for each in self.cached if each[: start + 1] != path[: start + 1] or each[: len(path)] != path]
        others = [each for each in rest if each != path[: len(each)]]
        shared = max((_common(each, path) for each in others), default=0)
        self.cached = [*others, path[: max(start, shared)]]
        return max(before - sum(map(len, self.cached)), 0)

    def warm(self, ids: Sequence[int]) -> ScriptedEngine:
        self.warmed.append(tuple(ids))
        self.cached.append(tuple(ids))
        return self

    def cancel(self) -> None:
        self.cancelled_warms += 1

    def stats(self) -> EngineStats:
        used = min(sum(map(len, self.cached)), SLOTS)
        return EngineStats("scripted", "cpu", "float32", SLOTS, SLOTS - used, used, 0, 0, 0, 480.0, 24.0)

    def close(self) -> None:
        self.is_closed = True


def scripted_model(reply: Callable[[int], str] | str, name: str = "scripted-135m") -> ChatModel:
    """A model whose replies are `reply(0)`, `reply(1)`, …, or always the same text."""
    engine = ScriptedEngine(reply if callable(reply) else lambda _: reply)
    return ChatModel(name, engine, Template(ByteTokenizer()))
