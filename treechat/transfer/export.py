"""Export: the part of a conversation, its text in a format, and the file."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from treechat.formats.reading.inputs import SQLITE_MAGIC
from treechat.store import Store
from treechat.transfer.documents import document_of, subtree_of

if TYPE_CHECKING:
    from treechat.formats.document import Document

Scope = Literal["branch", "subtree", "conversation"]

SUFFIXES = {
    "native": ".jsonl",
    "markdown": ".md",
    "html": ".html",
    "openai": ".openai.jsonl",
    "dot": ".dot",
    "mermaid": ".mmd",
}
"""The suffix of a file's name, by format."""


def part_of(store: Store, conversation_id: str, node_id: str | None, scope: Scope, tokens: bool = False) -> Document:
    """Return a part of a conversation as a document.

    store: the open database.
    conversation_id: the conversation.
    node_id: the node of the part; None takes the whole conversation.
    scope: branch is the path to the node, subtree the node with its descendants, conversation the whole tree.
    tokens: include the spans.
    """
    if scope == "conversation" or node_id is None:
        return document_of(store, conversation_id, tokens=tokens)
    if scope == "subtree":
        return subtree_of(store, conversation_id, node_id, tokens)
    return document_of(store, conversation_id, store.load_tree(conversation_id).path(node_id), tokens)


def all_documents(store: Store, tokens: bool = False) -> Iterator[Document]:
    """Yield all conversations, reading one at a time. The oldest is first: an import of the file keeps the order."""
    for info in reversed(store.conversations()):
        yield document_of(store, info.id, tokens=tokens)


def text_chunks(
    documents: Iterable[Document],
    form: str,
    *,
    tokens: bool = False,
    bookmarked: bool = False,
    weights: bool = False,
    messages: bool = False,
) -> Iterator[str]:
    """Return the text of a file in the format `form`, a key of `SUFFIXES`. The options are those of the writers."""
    from treechat.formats.export import dot, html, markdown, mermaid, openai
    from treechat.formats.native.writer import write_native

    match form:
        case "native":
            return write_native(documents, tokens)
        case "markdown":
            return (piece for document in documents for piece in markdown.write(document))
        case "html":
            return html.write(documents)
        case "openai":
            return (line for document in documents for line in openai.write(document, bookmarked, weights))
        case "dot":
            return dot.write(documents, messages)
        case _:
            assert form == "mermaid", form
            return mermaid.write(documents, messages)


def write_file(target: Path, texts: Iterable[str]) -> None:
    """Write a file atomically. An existing file is replaced and keeps its permissions; a database is not replaced.

    Follows links. Writes a pipe or a device directly. Raises OSError.
    """
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            _write_all(stream, texts)
        return
    target = target.resolve()
    if _is_of_database(target):
        raise FileExistsError(errno.EEXIST, "the file belongs to a database; an export does not replace it")
    part = target.with_name(f".treechat-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            if target.exists():
                shutil.copymode(target, part)
            _write_all(file, texts)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _is_of_database(target: Path) -> bool:
    """Return whether the file is a SQLite database of any program, or one of the files that SQLite keeps next to it."""
    names = {target.name, *(target.name.removesuffix(end) for end in ("-wal", "-shm", "-journal"))}
    for file in (target.with_name(name) for name in names if name):
        if file.is_file():
            with file.open("rb") as stream:
                if stream.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
                    return True
    return False


def _write_all(file: BinaryIO, texts: Iterable[str]) -> None:
    for text in texts:
        file.write(text.encode("utf-8", errors="replace"))
