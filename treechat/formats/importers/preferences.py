"""Rows for preference training: a chosen and a rejected way to go on from the same messages, which become siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from treechat.formats.reading.lenient_fields import dict_of

Preference = Literal["chosen", "rejected"]

KEYS: dict[Preference, tuple[str, ...]] = {
    "chosen": ("chosen", "chosen_messages", "preferred_output"),
    "rejected": ("rejected", "rejected_messages", "non_preferred_output"),
}
"""Names that the training libraries have for the two."""

TAKEN = ("prompt", "input", *(key for keys in KEYS.values() for key in keys))
"""Fields of a row with such a pair that become messages."""


class Way(NamedTuple):
    """One row of messages. preference: None where the record has only this one."""

    messages: list[Any]
    preference: Preference | None = None


class Shape(NamedTuple):
    """How a format writes messages. is_reply: of one that is a message. asks, replies: what stands for a string."""

    is_message: Callable[[Any], bool]
    is_reply: Callable[[Any], bool]
    asks: Callable[[str], dict[str, Any]]
    replies: Callable[[str], dict[str, Any]]


def has_pair(record: dict[str, Any], shape: Shape) -> bool:
    return len(ways_of(record, [], shape)) == len(KEYS)


def ways_of(record: dict[str, Any], above: list[Any], shape: Shape) -> list[Way]:
    """The rows of a record with a pair; empty where it has none.

    above: what both begin with, where it stands under a name of the format's own.
    """
    prompt = record.get("prompt") or dict_of(record.get("input")).get("messages")
    shared = above or ([shape.asks(prompt)] if isinstance(prompt, str) else prompt if isinstance(prompt, list) else [])
    ways = []
    for preference in KEYS:
        messages = _messages(record, preference, shape)
        # Some repeat in each way what stands above both.
        is_whole = bool(messages) and not shape.is_reply(messages[0])
        if messages and (is_whole or shared):
            ways.append(Way(messages if is_whole else [*shared, *messages], preference))
    return ways


def _messages(record: dict[str, Any], preference: Preference, shape: Shape) -> list[Any]:
    value = next((record[key] for key in KEYS[preference] if record.get(key)), None)
    if isinstance(value, str):
        return [shape.replies(value)]
    return [one for one in (value if isinstance(value, list) else [value]) if shape.is_message(one)]
