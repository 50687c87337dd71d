"""Refuse files that contain no readable conversations (HTML, PDF, images, ...), recognised by their first bytes."""

from __future__ import annotations

import re

from treechat.errors import FormatError

HEAD_BYTES = 4096
"""Bytes at the start of a file that are checked."""

_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|!--)", re.IGNORECASE)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml")
_OFFICE = (b"[Content_Types].xml", b"mimetypeapplication/vnd.oasis", b"word/document.xml")
_MAGIC_NUMBERS = (
    ((b"%PDF-",), "a PDF document"),
    ((b"{\\rtf",), "a text document (RTF)"),
    ((b"\xd0\xcf\x11\xe0",), "an office document"),
    ((b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8"), "an image"),
    ((b"PAR1",), "a Parquet table"),
)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"7z\xbc\xaf", b"Rar!\x1a")

EXPORT_HINT = (
    "Such a file is for reading only. Export the data itself. In ChatGPT and Claude, "
    "Settings, Export data gives a zip. In other programs, export as JSON"
)


def refuse_non_export(head: bytes, name: str) -> None:
    """Raise FormatError with a hint if `head` begins a file of another kind."""
    if (kind := _kind(head)) is not None:
        hint = "Write it out as JSON lines first" if head.startswith(b"PAR1") else EXPORT_HINT
        raise FormatError(f"{name} is {kind}, not an export of conversations", hint)
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"{\0", b"[\0", b"\0{", b"\0[")):
        raise FormatError(f"{name} is text in UTF-16", "Save it as UTF-8; PowerShell's > does not, `export -o` does")
    if head.startswith(_COMPRESSED):
        raise FormatError(
            f"{name} is compressed in a format that treechat does not read", "Unpack it, or make a zip of it"
        )


def _kind(head: bytes) -> str | None:
    """Return the kind of file that `head` begins, None if it may be an export."""
    if _HTML.match(head):
        return "a web page"
    if _XML.match(head):
        return "an XML document"
    if head.startswith(b"PK") and any(sign in head for sign in _OFFICE):
        return "an office document"
    return next((kind for magic_numbers, kind in _MAGIC_NUMBERS if head.startswith(magic_numbers)), None)
