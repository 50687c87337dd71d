"""`export` and `import`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treechat.cli.context import Session, db_option, json_option, pass_session
from treechat.cli.output import plural, print_json, say

if TYPE_CHECKING:
    from treechat.formats.document import Document, ImportReport


@click.command()
@db_option
@click.argument("name", default="@", metavar="[NODE|CONVERSATION]")
@click.option("--all", "everything", is_flag=True, help="Every conversation.")
@click.option("--branch", is_flag=True, help="Only the branch that leads to the (current) node.")
@click.option("--format", "form", type=click.Choice(["native", "markdown"]), default="native", show_default=True)
@click.option("--tokens", is_flag=True, help="With token ids and log-probabilities (native).")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@pass_session
def export(
    session: Session, name: str, everything: bool, branch: bool, form: str, tokens: bool, output: Path | None
) -> None:
    """Write a conversation, or one branch.

    With every branch of a CONVERSATION, or only the one that leads to NODE.

    The native format is JSON Lines and can be imported again; Markdown is for reading.
    """
    from treechat.formats import native

    if everything and (branch or name != "@"):
        raise click.UsageError("--all takes neither a name nor --branch.")
    if tokens and form != "native":
        raise click.UsageError("--tokens belongs to the native format.")
    documents = _all(session, tokens) if everything else [_chosen(session, name, branch, tokens)]
    if form == "native":
        _write(native.write(documents, tokens), output)
    else:
        _write((piece for document in documents for piece in _markdown(document)), output)


def _all(session: Session, tokens: bool) -> Iterator[Document]:
    from treechat.chat.documents import document_of

    # The oldest first: importing the file gives the same order in the list.
    for info in reversed(session.store.conversations()):
        yield document_of(session.store, info.id, tokens=tokens)


def _chosen(session: Session, name: str, branch: bool, tokens: bool) -> Document:
    from treechat.chat.documents import document_of
    from treechat.cli.names import find

    store = session.store
    conversation_id, node_id = find(store, name)
    if branch and node_id is None:
        node_id = store.conversation(conversation_id).current_id
    path = store.load_tree(conversation_id).path(node_id) if node_id else None
    return document_of(store, conversation_id, path, tokens)


def _markdown(document: Document) -> Iterator[str]:
    from treechat.formats.markdown import write_branch, write_tree

    tree = document.tree
    chain = list(tree.walk())
    if len(tree.roots) <= 1 and not any(tree.is_fork(node_id) for node_id in chain):
        return write_branch(document, chain)
    return write_tree(document)


def _write(pieces: Iterable[str], output: Path | None) -> None:
    """To standard output, or to a file that is there whole or not at all."""
    if output is None or str(output) == "-":
        stdout = sys.stdout.buffer
        for piece in pieces:
            stdout.write(piece.encode("utf-8", errors="replace"))
        stdout.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece.encode("utf-8", errors="replace"))
        part.replace(output)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


@click.command(name="import")
@db_option
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE...")
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@json_option
@pass_session
@click.pass_context
def import_(ctx: click.Context, session: Session, files: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:
    """Add the conversations of exported files.

    Every branch comes in, and importing twice adds nothing. What is left out is said, with the reason; the exit
    status is 1 if anything could not be read.
    """
    from treechat.formats.document import ImportReport

    report = ImportReport()
    for path in files:
        _import_file(session, path, report, dry_run)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report, dry_run)
    if report.failed:
        ctx.exit(1)


def _import_file(session: Session, path: Path, report: ImportReport, dry_run: bool) -> None:
    from treechat.chat.documents import import_document
    from treechat.errors import FormatError
    from treechat.formats import native, native_reader

    name = "standard input" if str(path) == "-" else path.name
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            for document in native_reader.read(file, name, report):
                import_document(session.store, document, native.FORMAT, report, dry_run)
    except OSError as error:
        report.fail(name, error.strerror or type(error).__name__)
    except FormatError as error:
        report.fail(name, str(error))


def _print_report(report: ImportReport, dry_run: bool) -> None:
    for reason in report.dropped:
        say(f"left out: {reason}")
    for reason in report.failed:
        say(f"failed: {reason}")
    counts = [plural(report.conversations, "conversation"), plural(report.nodes, "node"), plural(report.forks, "fork")]
    say(f"{'Would add' if dry_run else 'Added'} {', '.join(counts[:2])} and {counts[2]}.")
