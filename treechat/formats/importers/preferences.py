"""Rows for preference training: a chosen and a rejected way to go on from the same messages, which become siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from treechat.formats.reading.lenient_fields import dict_of, list_of

Preference = Literal["chosen", "rejected"]

KEYS: dict[Preference, tuple[str, ...]] = {
    "chosen": ("chosen", "chosen_messages", "preferred_output"),
    "rejected": ("rejected", "rejected_messages", "non_preferred_output"),
}
"""Names that the training libraries have for the two."""

MESSAGE_FIELDS = ("prompt", "input", *(key for keys in KEYS.values() for key in keys))
"""Fields of a row with such a pair that become messages."""


class PreferenceRow(NamedTuple):
    """One row of messages. preference: None where the record has only this one."""

    messages: list[Any]
    preference: Preference | None = None


class MessageForm(NamedTuple):
    """How a format writes messages. is_reply: of one that is a message. asks, replies: what stands for a string."""

    is_message: Callable[[Any], bool]
    is_reply: Callable[[Any], bool]
    user_message: Callable[[str], dict[str, Any]]
    assistant_message: Callable[[str], dict[str, Any]]


def has_pair(record: dict[str, Any], form: MessageForm) -> bool:
    return len(preference_rows(record, [], form)) == len(KEYS)


def preference_rows(record: dict[str, Any], shared_messages: list[Any], form: MessageForm) -> list[PreferenceRow]:
    """The rows of a record with a pair; empty where it has none.

    above: what both begin with, where it stands under a name of the format's own.
    """
    prompt = record.get("prompt") or dict_of(record.get("input")).get("messages")
    prompt_messages = [form.user_message(prompt)] if isinstance(prompt, str) else list_of(prompt)
    prompt_messages = shared_messages or prompt_messages
    pairs = []
    for preference in KEYS:
        messages = _messages(record, preference, form)
        # Some repeat in each way what stands above both.
        has_prompt = bool(messages) and not form.is_reply(messages[0])
        if messages and (has_prompt or prompt_messages):
            pairs.append(PreferenceRow(messages if has_prompt else [*prompt_messages, *messages], preference))
    return pairs


def _messages(record: dict[str, Any], preference: Preference, form: MessageForm) -> list[Any]:
    value = next((record[key] for key in KEYS[preference] if record.get(key)), None)
    if isinstance(value, str):
        return [form.assistant_message(value)]
    return [one for one in (value if isinstance(value, list) else [value]) if form.is_message(one)]
