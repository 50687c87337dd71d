"""Import SillyTavern's chats. A file is one branch whose replies have swipes (siblings without children).

A message's id is a hash of its path, so files that share a prefix merge into one tree, in one import or in several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.importer import Importer
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import END_OF_TIME, dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import Draft, derived_id
from treechat.tree import Role

_DATE_AT_TIME = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2}) ?@(\d{1,2})h ?(\d{1,2})m ?(\d{1,2})s(?: ?(\d{1,3})ms)?")
_ENGLISH_DATE = re.compile(r"([A-Z][a-z]{2,8}) (\d{1,2}), (\d{4}) (\d{1,2}):(\d{2}) ?([ap])m", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NO_NAMES = ("", "unused")


class _Alternative(NamedTuple):
    """One alternative of a message.

    text: its text.
    sent_at: its time, in any format that `time_of` reads.
    extra: its further fields.
    """

    text: str
    sent_at: Any
    extra: dict[str, Any]


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    if not isinstance(value, dict):
        return False
    is_header = "chat_metadata" in value or {"user_name", "character_name"} <= set(value)
    return is_header or (isinstance(value.get("mes"), str) and "is_user" in value)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    header: dict[str, Any] = {}
    draft: Draft | None = None
    parent_id: str | None = None
    known_ids: set[str] = set()
    for place, value in read_records(file, report):
        record = dict_of(value)
        if not isinstance(record.get("mes"), str):
            if draft is None and recognises(record):
                header = record
            else:
                report.fail(place, "it is not a message")
            continue
        if draft is None:
            draft = _draft(header, record)
        if draft.is_full:
            report.fail(place, "the chat is too long; the rest is left out")
            break
        parent_id = _add_message(draft, parent_id, record, known_ids)
    if draft is None:
        report.drop(file.name, "it has no messages")
    else:
        draft.current = parent_id
        yield draft.document(report, file.name)


def _draft(header: dict[str, Any], first: dict[str, Any]) -> Draft:
    """Return a draft. Chats with the same character often begin with the same words, so the id includes the time."""
    name = first_text(header, "character_name")
    name = text_of(first.get("name")) if name in _NO_NAMES else name
    start_time = id_of(first.get("send_date")) or text_of(first.get("mes"))
    user = first_text(header, "user_name")
    meta = {"character": name, "user": "" if user in _NO_NAMES else user, "chat_metadata": header.get("chat_metadata")}
    created_at = time_of(header.get("create_date")) or time_of(first.get("send_date"))
    return Draft("sillytavern", derived_id(name, start_time), name, created_at, meta=meta)


def _add_message(draft: Draft, parent_id: str | None, record: dict[str, Any], known_ids: set[str]) -> str:
    """Add a message with all its swipes; return the id of the swipe that the chat continues."""
    alternatives, chosen_index = _alternatives(record)
    extra = dict_of(record.get("extra"))
    role: Role = "user" if record.get("is_user") is True else "assistant"
    if extra.get("type") == "narrator":
        role = "system"
    ids = []
    for alternative in alternatives:
        ids.append(node_id := derived_id(parent_id or "", role, alternative.text))
        if node_id in known_ids:
            continue
        known_ids.add(node_id)
        meta = {"name": record.get("name"), "is_system": record.get("is_system") or None}
        model = first_text(alternative.extra, "model") or None
        draft.add(node_id, parent_id, role, _content(alternative), time_of(alternative.sent_at), model=model, meta=meta)
    return ids[chosen_index]


def _alternatives(record: dict[str, Any]) -> tuple[list[_Alternative], int]:
    """Return the alternatives in order, and the index of the chosen one.

    `mes` is always an alternative, because it may be an edited version of its swipe.
    """
    current = _Alternative(record["mes"], record.get("send_date"), dict_of(record.get("extra")))
    swipes = list_of(record.get("swipes"))
    infos = list_of(record.get("swipe_info"))
    alternatives = []
    for number, swipe_text in enumerate(swipes):
        info = dict_of(infos[number]) if number < len(infos) else {}
        if isinstance(swipe_text, str):
            alternatives.append(
                _Alternative(swipe_text, info.get("send_date", current.sent_at), dict_of(info.get("extra")))
            )
    swipe_id = record.get("swipe_id")
    index = swipe_id if type(swipe_id) is int and 0 <= swipe_id < len(alternatives) else len(alternatives) - 1
    if index >= 0 and alternatives[index].text == current.text:
        alternatives[index] = current
        return alternatives, index
    match_index = next((i for i, alternative in enumerate(alternatives) if alternative.text == current.text), None)
    if match_index is not None:
        return alternatives, match_index
    alternatives.insert(index + 1, current)
    return alternatives, index + 1


def _content(alternative: _Alternative) -> Content:
    content = Content()
    if reasoning := first_text(alternative.extra, "reasoning"):
        content.add_thoughts(reasoning)
    content.add_text(alternative.text)
    for image in filter(None, [alternative.extra.get("image"), *list_of(alternative.extra.get("image_swipes"))]):
        content.attach("image", text_of(image).rpartition("/")[2][:200])
    if file := dict_of(alternative.extra.get("file")):
        content.attach("file", first_text(file, "name"), first_text(file, "text"), url=file.get("url"))
    return content


def time_of(value: Any) -> float | None:
    """Parse any of SillyTavern's time formats; return seconds since the epoch or None. No zone means local time."""
    if (number := seconds(value)) is not None or not isinstance(value, str):
        return number
    try:
        if date_at_time := _DATE_AT_TIME.match(value):
            year, month, day, hour, minute, second, ms = (int(item or 0) for item in date_at_time.groups())
            stamp = datetime(year, month, day, hour, minute, second, ms * 1000).timestamp()
        elif english_date := _ENGLISH_DATE.match(value):
            name, day_, year_, hour_, minute_, am_or_pm = english_date.groups()
            hour = int(hour_) % 12 + (12 if am_or_pm.lower() == "p" else 0)
            month = _MONTHS.index(name[:3].lower()) + 1
            stamp = datetime(int(year_), month, int(day_), hour, int(minute_)).timestamp()
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return stamp if 0 < stamp < END_OF_TIME else None


IMPORTER = Importer("sillytavern", "SillyTavern", recognises, read)
