"""`export`: conversations, branches and subtrees as files of several formats."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treechat.cli.context import Session, db_option, pass_session

if TYPE_CHECKING:
    from treechat.formats.document import Document

FORMATS = ("native", "markdown", "html", "openai", "dot", "mermaid")
_OPTIONS = {"tokens": ("native",), "bookmarked": ("openai",), "weights": ("openai",), "messages": ("dot", "mermaid")}
"""The formats that an option belongs to."""


@click.command()
@db_option
@click.argument("name", default="@", metavar="[NODE|CONVERSATION]")
@click.option("--all", "everything", is_flag=True, help="Every conversation; native, with tokens: a backup.")
@click.option("--branch", is_flag=True, help="Only the branch that leads to the (current) node.")
@click.option("--subtree", is_flag=True, help="Only the (current) node and what is below it.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="native", show_default=True)
@click.option("--tokens/--no-tokens", default=None, help="native: with token ids and log-probabilities.")
@click.option("--bookmarked", is_flag=True, help="openai: the paths to bookmarks, not to every leaf.")
@click.option("--weights", is_flag=True, help="openai: weights, so that shared replies are learnt once.")
@click.option("--messages", is_flag=True, help="dot, mermaid: a box per message, not per run.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@pass_session
def export(
    session: Session,
    /,
    name: str,
    everything: bool,
    branch: bool,
    subtree: bool,
    form: str,
    output: Path | None,
    **options: bool | None,
) -> None:
    """Write a conversation, one branch, or one subtree.

    With every branch of a CONVERSATION, or only the one that leads to NODE.

    The native format is JSON Lines and can be imported again: --all, and import of it, restore a database. The others
    are for reading (markdown; html, one page with every branch), for training (openai), and for drawing the structure
    (dot, mermaid).
    """
    if everything and (branch or subtree or name != "@"):
        raise click.UsageError("--all takes neither a name nor --branch nor --subtree.")
    if branch and subtree:
        raise click.UsageError("Either --branch or --subtree.")
    for option, forms in _OPTIONS.items():
        if options[option] and form not in forms:
            raise click.UsageError(f"--{option} belongs to the format {' or '.join(forms)}.")
    tokens = everything and form == "native" if options["tokens"] is None else bool(options["tokens"])
    chosen = _all(session, tokens) if everything else [_chosen(session, name, branch, subtree, tokens)]
    write_to(output, pieces(chosen, form, tokens=tokens, **{k: bool(v) for k, v in options.items() if k != "tokens"}))


def pieces(
    documents: Iterable[Document],
    form: str,
    *,
    tokens: bool = False,
    bookmarked: bool = False,
    weights: bool = False,
    messages: bool = False,
) -> Iterator[str]:
    """The text of a file in the format `form`, one of `FORMATS`."""
    from treechat.formats import graphs, markdown, native, openai_export

    match form:
        case "native":
            return native.write(documents, tokens)
        case "markdown":
            return (piece for document in documents for piece in markdown.write(document))
        case "html":
            from treechat.formats import html

            return html.write(documents)
        case "openai":
            return (line for document in documents for line in openai_export.write(document, bookmarked, weights))
        case "dot":
            return graphs.write_dot(documents, messages)
        case _:
            assert form == "mermaid", form
            return graphs.write_mermaid(documents, messages)


def _all(session: Session, tokens: bool) -> Iterator[Document]:
    from treechat.chat.documents import document_of

    # The oldest first: importing the file gives the same order in the list.
    for info in reversed(session.store.conversations()):
        yield document_of(session.store, info.id, tokens=tokens)


def _chosen(session: Session, name: str, branch: bool, subtree: bool, tokens: bool) -> Document:
    from treechat.chat.documents import document_of, subtree_of
    from treechat.cli.names import find

    store = session.store
    conversation_id, node_id = find(store, name)
    if (branch or subtree) and node_id is None:
        node_id = store.conversation(conversation_id).current_id
    if node_id is None:
        return document_of(store, conversation_id, tokens=tokens)
    if subtree:
        return subtree_of(store, conversation_id, node_id, tokens)
    return document_of(store, conversation_id, store.load_tree(conversation_id).path(node_id), tokens)


def write_to(output: Path | None, texts: Iterable[str]) -> None:
    """To standard output, or to a file that is there whole or not at all."""
    if output is None or str(output) == "-":
        stdout = sys.stdout.buffer
        for text in texts:
            stdout.write(text.encode("utf-8", errors="replace"))
        stdout.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            for text in texts:
                file.write(text.encode("utf-8", errors="replace"))
        part.replace(output)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
