"""Convert messages to spans: the token ids that each turn adds to its path. A span is made once.

The text of a turn is the rendering of the chat template with the turn, less the rendering without it. After the first
exchange, a stand-in of two messages replaces the history in both renderings. So a span does not depend on templates
that rewrite earlier turns, and the cost of a turn does not grow with the history.
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
_TEMPLATE_HINT = "Correct chat_template.jinja in the model's directory, or choose another model"


class Tokenizer(Protocol):
    """The methods of a transformers tokenizer that are used here."""

    chat_template: Any
    all_special_ids: Sequence[int]

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(
        self, conversation: Sequence[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the form that a template reads."""

    role: Role
    text: str


_STAND_IN = (Message("user", "a"), Message("assistant", _MARK))
# Errors that a faulty template may raise besides those of Jinja.
_TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError)


class Template:
    """A tokenizer with its chat template. Without a template, text continues text (`is_text`).

    `fingerprint` identifies the tokenizer and the template; a path never mixes spans of different fingerprints.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.is_text = not tokenizer.chat_template

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: a hash of the tokenizer's definition and the template's text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        definition = backend.to_str() if backend is not None else repr(self.tokenizer)
        digest = hashlib.sha256(definition.encode())
        digest.update(str(self.tokenizer.chat_template or "").encode())
        return digest.hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`. Special tokens in it are recognised; none are added."""
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The special token that the template adds after a reply. Some models do not list it among their end tokens."""
        ids = self.encode(self._closing)
        return (ids[0],) if ids and ids[0] in self.tokenizer.all_special_ids else ()

    @cached_property
    def opens_with_thoughts(self) -> bool:
        """Whether the prompt of a reply ends with the tag that opens thoughts. The reply then lacks that tag."""
        return not self.is_text and self._generation_prompt.rstrip().endswith(tuple(THOUGHT_TAGS))

    def span_ids(self, ancestors: Sequence[Message], message: Message, parent_ids: Sequence[int]) -> list[int]:
        """Return the token ids that `message` adds below `ancestors`.

        Special tokens in texts are encoded as text. Without a template they are recognised, since the whole text is the
        user's. Raises ModelError if the template cannot render the message.

        ancestors: the messages above, root first; only the leading ones and the last are read.
        message: the message.
        parent_ids: span of the last ancestor, empty at a root. A reply that was cut off is closed first.
        """
        if self.is_text:
            return self._continuation_ids(ancestors, message)
        try:
            return self._turn_ids(ancestors, message, parent_ids)
        except TemplateError as error:
            raise ModelError(f"the model's chat template cannot take this message: {error}", _TEMPLATE_HINT) from error

    def check(self) -> None:
        """Raise ModelError if the template cannot render one exchange."""
        try:
            self.stop_ids  # noqa: B018 - rendered once, and kept
        except TemplateError as error:
            raise ModelError(f"the model's chat template fails: {error}", _TEMPLATE_HINT) from error

    def _turn_ids(self, ancestors: Sequence[Message], message: Message, parent_ids: Sequence[int]) -> list[int]:
        specials = UserSpecials(self._specials, [each.text for each in (*ancestors, message)])
        if specials:
            ancestors = [Message(each.role, specials.hide(each.text)) for each in ancestors]
            message = Message(message.role, specials.hide(message.text))
        if message.role == "assistant":
            prompted = bool(ancestors) and ancestors[-1].role == "user"
            opening = "" if prompted else self._close(ancestors, parent_ids) + self._generation_prompt
            return [*self.encode(opening), *self._encode_rendering(message.text, specials), *self.stop_ids]
        if all(ancestor.role == "system" for ancestor in ancestors):
            return self._encode_rendering(self._first_turn(ancestors, message), specials)
        return self._encode_rendering(self._close(ancestors, parent_ids) + self._later_turn(message), specials)

    def _encode_rendering(self, rendered: str, specials: UserSpecials) -> list[int]:
        """Return the token ids of a rendering; special tokens of the user are encoded as text."""
        if not specials:
            return self.encode(rendered)
        ids: list[int] = []
        for text, is_special in specials.parts(rendered):
            ids += self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=is_special)
        return ids

    @cached_property
    def _specials(self) -> re.Pattern[str]:
        """Pattern of any special token, the longest first."""
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
        # A begin token is part of the path. An end token, which some tokenizers add, is not: the text continues.
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
        """Return the text of a system prompt, or of the first message below system prompts."""
        if message.role == "system":
            return self._system_text([*ancestors, message]) if not ancestors else self._later_turn(message)
        before = self._system_text(ancestors) if ancestors else ""
        try:
            whole = self._render([*ancestors, message], prompt=True)
        except TemplateError:
            if not ancestors:
                raise
            # The template has no system role: put the system prompt before the first message.
            instructions = "\n\n".join(m.text for m in ancestors)
            return self._render([Message("user", f"{instructions}\n\n{message.text}")], prompt=True)
        return whole.removeprefix(before)

    def _system_text(self, systems: Sequence[Message]) -> str:
        """Return the text of system prompts alone; empty if the template renders them only with a first message."""
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
        # The template rewrote the history, for example without thoughts: cut after the reply's text instead.
        return after.partition(_MARK + self._closing)[2] or after

    @cached_property
    def _stand_in_text(self) -> str:
        return self._render(_STAND_IN)

    @cached_property
    def _closing(self) -> str:
        """The text that the template adds after a reply, with its end token."""
        if self.is_text:
            return ""
        _, found, closing = self._stand_in_text.rpartition(_MARK)
        return closing if found else ""

    @cached_property
    def _generation_prompt(self) -> str:
        history = [Message("user", "a")]
        return self._render(history, prompt=True).removeprefix(self._render(history))

    def _close(self, ancestors: Sequence[Message], parent_ids: Sequence[int]) -> str:
        """Return the closing text that the last ancestor still lacks."""
        if not ancestors or ancestors[-1].role == "system":
            return ""
        if ancestors[-1].role == "user" and not parent_ids:
            return ""
        if parent_ids and parent_ids[-1] in self.stop_ids:
            return self._closing.removeprefix(self.tokenizer.decode([parent_ids[-1]], skip_special_tokens=False))
        return self._closing
