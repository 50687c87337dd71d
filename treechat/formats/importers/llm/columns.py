"""Read columns that both generations of llm's database have."""

from __future__ import annotations

from typing import Any

from treechat.formats.reading.lenient_fields import dict_of, first_text, json_in, text_of
from treechat.formats.trees.content import Content

ATTACHMENT_COLUMNS = ("id", "type", "path", "url")


def options_in(value: Any) -> dict[str, Any]:
    """Return the sampling options that are numbers, booleans or strings."""
    return {
        key: item
        for key, item in dict_of(json_in(value)).items()
        if type(item) in (int, bool, str) or (type(item) is float and abs(item) < 1e300)
    }


def add_attachment(content: Content, row: dict[str, Any]) -> None:
    """Add a row of the attachments table, which stores the path or URL of a file."""
    kind = text_of(row.get("type")).partition("/")[0]
    kind = kind if kind in ("image", "audio", "video") else "file"
    content.attach(kind, first_text(row, "path", "url").rpartition("/")[2], raw=row)
