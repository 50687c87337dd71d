"""From messages to spans: what each turn adds to its path, in token ids, made once and never again.

A turn's text is what the chat template adds for it: the rendering with the turn, less the rendering without it. After
the first exchange the difference is taken on a two-message stand-in for the history, since a span must not depend on
how a template would rewrite the past, and since rendering 400 turns to find the last one would be waste.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from jinja2.exceptions import TemplateError

from treechat.chat.tokens.special_tokens import UserSpecials
from treechat.errors import ModelError
from treechat.tree import THOUGHT_TAGS, Role

_MARK = "treechat-mark"
_TEMPLATE_HINT = "Mend chat_template.jinja beside the model's weights, or take another model"


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any
    all_special_ids: Sequence[int]

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(
        self, conversation: Sequence[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a template sees it."""

    role: Role
    text: str


_STAND_IN = (Message("user", "a"), Message("assistant", _MARK))
# What a template that is wrong may raise beside errors of Jinja's own.
_TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError)


class Template:
    """A tokenizer with its chat template, or without one: then text goes on from text (`is_text`).

    `fingerprint` names the tokenizer and template; spans of different fingerprints are never mixed on a path.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.is_text = not tokenizer.chat_template

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of a hash over the tokenizer's definition and the template's text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        definition = backend.to_str() if backend is not None else repr(self.tokenizer)
        digest = hashlib.sha256(definition.encode())
        digest.update(str(self.tokenizer.chat_template or "").encode())
        return digest.hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in it recognised, none added."""
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The special token that the template puts behind a reply; some models do not name it as their end."""
        ids = self.encode(self._closing)
        return (ids[0],) if ids and ids[0] in self.tokenizer.all_special_ids else ()

    @cached_property
    def opens_with_thoughts(self) -> bool:
        """Whether the prompt of a reply ends with the tag that begins thoughts, so that replies lack it."""
        return not self.is_text and self._generation_prompt.rstrip().endswith(tuple(THOUGHT_TAGS))

    def span_ids(self, ancestors: Sequence[Message], message: Message, parent_ids: Sequence[int]) -> list[int]:
        """Token ids that `message` adds below `ancestors`.

        ancestors: the messages of its path, root first; at most the leading ones and the last are looked at.
        parent_ids: span of the last ancestor, empty at a root: a reply that was cut off is closed first.
        Special tokens in what was written are text there, but without a template, where all is the user's own.
        Raises ModelError where the template cannot take the message.
        """
        if self.is_text:
            return self._continuation_ids(ancestors, message)
        try:
            return self._turn_ids(ancestors, message, parent_ids)
        except TemplateError as error:
            raise ModelError(f"the model's chat template cannot take this message: {error}", _TEMPLATE_HINT) from error

    def check(self) -> None:
        """Raises ModelError where the template cannot render one exchange."""
        try:
            self.stop_ids  # noqa: B018 - rendered once, and kept
        except TemplateError as error:
            raise ModelError(f"the model's chat template fails: {error}", _TEMPLATE_HINT) from error

    def _turn_ids(self, ancestors: Sequence[Message], message: Message, parent_ids: Sequence[int]) -> list[int]:
        typed = UserSpecials(self._specials, [each.text for each in (*ancestors, message)])
        if typed:
            ancestors = [Message(each.role, typed.hide(each.text)) for each in ancestors]
            message = Message(message.role, typed.hide(message.text))
        if message.role == "assistant":
            prompted = bool(ancestors) and ancestors[-1].role == "user"
            opening = "" if prompted else self._close(ancestors, parent_ids) + self._generation_prompt
            return [*self.encode(opening), *self._encode_typed(message.text, typed), *self.stop_ids]
        if all(ancestor.role == "system" for ancestor in ancestors):
            return self._encode_typed(self._first_turn(ancestors, message), typed)
        return self._encode_typed(self._close(ancestors, parent_ids) + self._later_turn(message), typed)

    def _encode_typed(self, rendered: str, typed: UserSpecials) -> list[int]:
        """Token ids of a rendering in which the special tokens that somebody typed are text."""
        if not typed:
            return self.encode(rendered)
        ids: list[int] = []
        for text, is_typed in typed.parts(rendered):
            ids += self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=is_typed)
        return ids

    @cached_property
    def _specials(self) -> re.Pattern[str]:
        """Matches any special token, the longest first."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        ids = {*self.tokenizer.all_special_ids, *(token_id for token_id, token in added.items() if token.special)}
        texts = (self.tokenizer.decode([token_id], skip_special_tokens=False) for token_id in ids)
        known = sorted({text for text in texts if text}, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, known))})" if known else "(?!)()")

    def _continuation_ids(self, ancestors: Sequence[Message], message: Message) -> list[int]:
        if ancestors or not message.text:
            return self.encode(message.text)
        bare = self.encode(message.text)
        ids = self.tokenizer.encode(message.text, add_special_tokens=True)
        # A begin token is part of the path; an end token that some tokenizers add too is not, since the text goes on.
        for start in range(len(ids) - len(bare) + 1):
            if ids[start : start + len(bare)] == bare:
                return ids[: start + len(bare)]
        return bare

    def _render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        conversation = [{"role": m.role, "content": m.text} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
        except _TEMPLATE_FAULTS as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    def _first_turn(self, ancestors: Sequence[Message], message: Message) -> str:
        """A system prompt, or the first message below system prompts."""
        if message.role == "system":
            return self._system_text([*ancestors, message]) if not ancestors else self._later_turn(message)
        before = self._system_text(ancestors) if ancestors else ""
        try:
            whole = self._render([*ancestors, message], prompt=True)
        except TemplateError:
            if not ancestors:
                raise
            # The template knows no system role: what it says goes in front of the first message.
            instructions = "\n\n".join(m.text for m in ancestors)
            return self._render([Message("user", f"{instructions}\n\n{message.text}")], prompt=True)
        return whole.removeprefix(before)

    def _system_text(self, systems: Sequence[Message]) -> str:
        """Text of system prompts alone, or empty where the template shows them only together with a first message."""
        try:
            alone = self._render(systems)
            whole = self._render([*systems, Message("user", _MARK)], prompt=True)
        except TemplateError:
            return ""
        return alone if whole.startswith(alone) else ""

    def _later_turn(self, message: Message) -> str:
        try:
            before = self._stand_in_text
            after = self._render([*_STAND_IN, message], prompt=message.role == "user")
        except TemplateError:
            if message.role == "user":
                raise
            return self._later_turn(Message("user", message.text))
        if after.startswith(before):
            return after[len(before) :]
        # The template changed its past (it dropped a reply's thoughts, say): cut behind the reply's own text instead.
        return after.partition(_MARK + self._closing)[2] or after

    @cached_property
    def _stand_in_text(self) -> str:
        return self._render(_STAND_IN)

    @cached_property
    def _closing(self) -> str:
        """What the template puts behind a reply's text, its end token included."""
        if self.is_text:
            return ""
        _, found, closing = self._stand_in_text.rpartition(_MARK)
        return closing if found else ""

    @cached_property
    def _generation_prompt(self) -> str:
        history = [Message("user", "a")]
        return self._render(history, prompt=True).removeprefix(self._render(history))

    def _close(self, ancestors: Sequence[Message], parent_ids: Sequence[int]) -> str:
        """The template's closing text that is still owed to the last ancestor."""
        if not ancestors or ancestors[-1].role == "system":
            return ""
        if ancestors[-1].role == "user" and not parent_ids:
            return ""
        if parent_ids and parent_ids[-1] in self.stop_ids:
            return self._closing.removeprefix(self.tokenizer.decode([parent_ids[-1]], skip_special_tokens=False))
        return self._closing
