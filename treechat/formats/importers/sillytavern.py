"""SillyTavern's chats: a file is one branch, with swipes beside the replies; files that share a prefix are one tree.

A message is known by all that leads to it, so the files of one chat merge, whether they come together or one by one.
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

_AT = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2}) ?@(\d{1,2})h ?(\d{1,2})m ?(\d{1,2})s(?: ?(\d{1,3})ms)?")
_WRITTEN = re.compile(r"([A-Z][a-z]{2,8}) (\d{1,2}), (\d{4}) (\d{1,2}):(\d{2}) ?([ap])m", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NO_NAMES = ("", "unused")


class _Way(NamedTuple):
    """One of the alternatives of a message."""

    text: str
    sent: Any
    extra: dict[str, Any]


def recognises(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    is_header = "chat_metadata" in value or {"user_name", "character_name"} <= set(value)
    return is_header or (isinstance(value.get("mes"), str) and "is_user" in value)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    header: dict[str, Any] = {}
    draft: Draft | None = None
    above: str | None = None
    known: set[str] = set()
    for where, value in read_records(file, report):
        record = dict_of(value)
        if not isinstance(record.get("mes"), str):
            if draft is None and recognises(record):
                header = record
            else:
                report.fail(where, "it is not a message")
            continue
        if draft is None:
            draft = _draft(header, record)
        if draft.is_full:
            report.fail(where, "the chat is too long; the rest is left out")
            break
        above = _add(draft, above, record, known)
    if draft is None:
        report.drop(file.name, "it has no messages")
    else:
        draft.current = above
        yield draft.document(report, file.name)


def _draft(header: dict[str, Any], first: dict[str, Any]) -> Draft:
    """Chats with one character often begin with the same words: the time tells them apart."""
    name = first_text(header, "character_name")
    name = text_of(first.get("name")) if name in _NO_NAMES else name
    began = id_of(first.get("send_date")) or text_of(first.get("mes"))
    user = first_text(header, "user_name")
    meta = {"character": name, "user": "" if user in _NO_NAMES else user, "chat_metadata": header.get("chat_metadata")}
    created_at = time_of(header.get("create_date")) or time_of(first.get("send_date"))
    return Draft("sillytavern", derived_id(name, began), name, created_at, meta=meta)


def _add(draft: Draft, above: str | None, record: dict[str, Any], known: set[str]) -> str:
    """Add a message with all its swipes; returns the id of the one that the chat goes on from."""
    ways, chosen = _ways(record)
    extra = dict_of(record.get("extra"))
    role: Role = "user" if record.get("is_user") is True else "assistant"
    if extra.get("type") == "narrator":
        role = "system"
    ids = []
    for way in ways:
        ids.append(node_id := derived_id(above or "", role, way.text))
        if node_id in known:
            continue
        known.add(node_id)
        meta = {"name": record.get("name"), "is_system": record.get("is_system") or None}
        model = first_text(way.extra, "model") or None
        draft.add(node_id, above, role, _content(way), time_of(way.sent), model=model, meta=meta)
    return ids[chosen]


def _ways(record: dict[str, Any]) -> tuple[list[_Way], int]:
    """The alternatives in order, and which one is chosen. `mes`, which may have been edited, is one in any case."""
    own = _Way(record["mes"], record.get("send_date"), dict_of(record.get("extra")))
    swipes = list_of(record.get("swipes"))
    infos = list_of(record.get("swipe_info"))
    ways = []
    for number, swipe in enumerate(swipes):
        info = dict_of(infos[number]) if number < len(infos) else {}
        if isinstance(swipe, str):
            ways.append(_Way(swipe, info.get("send_date", own.sent), dict_of(info.get("extra"))))
    swipe_id = record.get("swipe_id")
    place = swipe_id if type(swipe_id) is int and 0 <= swipe_id < len(ways) else len(ways) - 1
    if place >= 0 and ways[place].text == own.text:
        ways[place] = own
        return ways, place
    same = next((i for i, way in enumerate(ways) if way.text == own.text), None)
    if same is not None:
        return ways, same
    ways.insert(place + 1, own)
    return ways, place + 1


def _content(way: _Way) -> Content:
    content = Content()
    if reasoning := first_text(way.extra, "reasoning"):
        content.think(reasoning)
    content.say(way.text)
    for image in filter(None, [way.extra.get("image"), *list_of(way.extra.get("image_swipes"))]):
        content.attach("image", text_of(image).rpartition("/")[2][:200])
    if file := dict_of(way.extra.get("file")):
        content.attach("file", first_text(file, "name"), first_text(file, "text"), url=file.get("url"))
    return content


def time_of(value: Any) -> float | None:
    """One of the many ways in which SillyTavern wrote times; those without a zone are local."""
    if (plain := seconds(value)) is not None or not isinstance(value, str):
        return plain
    try:
        if at := _AT.match(value):
            year, month, day, hour, minute, second, ms = (int(item or 0) for item in at.groups())
            stamp = datetime(year, month, day, hour, minute, second, ms * 1000).timestamp()
        elif written := _WRITTEN.match(value):
            name, day_, year_, hour_, minute_, half = written.groups()
            hour = int(hour_) % 12 + (12 if half.lower() == "p" else 0)
            month = _MONTHS.index(name[:3].lower()) + 1
            stamp = datetime(int(year_), month, int(day_), hour, int(minute_)).timestamp()
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return stamp if 0 < stamp < END_OF_TIME else None


IMPORTER = Importer("sillytavern", "SillyTavern", recognises, read)
