"""Rows for preference training: a chosen and a rejected continuation of the same messages, which become siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from treechat.formats.reading.lenient_fields import dict_of, list_of

Preference = Literal["chosen", "rejected"]

KEYS: dict[Preference, tuple[str, ...]] = {
    "chosen": ("chosen", "chosen_messages", "preferred_output"),
    "rejected": ("rejected", "rejected_messages", "non_preferred_output"),
}
"""The names of the two continuations in the training libraries."""

MESSAGE_FIELDS = ("prompt", "input", *(key for keys in KEYS.values() for key in keys))
"""Fields of such a row that become messages."""


class PreferenceRow(NamedTuple):
    """One row of messages.

    messages: the whole row, in the format's own form.
    preference: None if the record has no pair.
    """

    messages: list[Any]
    preference: Preference | None = None


class MessageForm(NamedTuple):
    """The form of a message in a format.

    is_message: returns whether a value is a message.
    is_reply: returns whether a message is the assistant's or a tool's.
    user_message: makes a user message from a string.
    assistant_message: makes an assistant message from a string.
    """

    is_message: Callable[[Any], bool]
    is_reply: Callable[[Any], bool]
    user_message: Callable[[str], dict[str, Any]]
    assistant_message: Callable[[str], dict[str, Any]]


def has_pair(record: dict[str, Any], form: MessageForm) -> bool:
    """Return whether the record has both a chosen and a rejected row."""
    return len(preference_rows(record, [], form)) == len(KEYS)


def preference_rows(record: dict[str, Any], shared_messages: list[Any], form: MessageForm) -> list[PreferenceRow]:
    """Return the chosen and the rejected row of a record, or none if it has no pair.

    record: the record.
    shared_messages: the beginning of both rows under the format's own field; empty if it is in `prompt` or `input`.
    form: the form of messages in this format.
    """
    prompt = record.get("prompt") or dict_of(record.get("input")).get("messages")
    prompt_messages = [form.user_message(prompt)] if isinstance(prompt, str) else list_of(prompt)
    prompt_messages = shared_messages or prompt_messages
    pairs = []
    for preference in KEYS:
        messages = _messages(record, preference, form)
        # Some data sets repeat the prompt in both continuations.
        has_prompt = bool(messages) and not form.is_reply(messages[0])
        if messages and (has_prompt or prompt_messages):
            pairs.append(PreferenceRow(messages if has_prompt else [*prompt_messages, *messages], preference))
    return pairs


def _messages(record: dict[str, Any], preference: Preference, form: MessageForm) -> list[Any]:
    value = next((record[key] for key in KEYS[preference] if record.get(key)), None)
    if isinstance(value, str):
        return [form.assistant_message(value)]
    return [one for one in (value if isinstance(value, list) else [value]) if form.is_message(one)]
