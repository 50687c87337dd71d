"""Replace ChatGPT's markup for citations and entities by a link or the entity's name, as its page displays them."""

from __future__ import annotations

import re
from typing import Any

from treechat.formats.reading.lenient_fields import dict_of, first_text, json_in, list_of, text_of

_MARK = re.compile("\ue200[^\ue200\ue201]{0,4000}\ue201|【[^【】]{1,200}】")
_SEPARATOR = "\ue202"


def without_marks(text: str, metadata: dict[str, Any]) -> str:
    """Return the text with each mark replaced. metadata: the message's, with the targets of the marks."""
    if "\ue200" not in text and "【" not in text:
        return text
    replacements: dict[str, str] = {}
    for citation in map(dict_of, list_of(metadata.get("citations"))):
        start, end = citation.get("start_ix"), citation.get("end_ix")
        if type(start) is int and type(end) is int and 0 <= start < end:
            replacements.setdefault(text[start:end].strip(), _link(dict_of(citation.get("metadata"))))
    for reference in map(dict_of, list_of(metadata.get("content_references"))):
        replacements.setdefault(text_of(reference.get("matched_text")).strip(), text_of(reference.get("alt")))
    return _MARK.sub(lambda mark: _replacement(mark.group(), replacements), text)


def _link(page: dict[str, Any]) -> str:
    title, url = first_text(page, "title", "url"), first_text(page, "url")
    title = re.sub(r"[\[\]\n]", " ", title)
    return f" ([{title}]({url}))" if url and not re.search(r"[\s()<>]", url) else f" ({title})" if title else ""


def _replacement(mark: str, replacements: dict[str, str]) -> str:
    if replacements.get(mark):
        return replacements[mark]
    if mark.startswith("【"):
        # Brackets of an East Asian text, or a citation without an entry in the metadata.
        return mark
    kind, _, body = mark[1:-1].partition(_SEPARATOR)
    values = list_of(json_in(body)) if kind == "entity" else []
    return text_of(values[1]) if len(values) > 1 else ""
