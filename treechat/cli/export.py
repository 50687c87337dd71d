"""`export`: write conversations, branches and subtrees in several formats."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treechat.cli.options import Session, db_option, pass_session

if TYPE_CHECKING:
    from treechat.transfer.export import Scope

FORMATS = ("native", "markdown", "html", "openai", "dot", "mermaid")
_OPTIONS = {"tokens": ("native",), "bookmarked": ("openai",), "weights": ("openai",), "messages": ("dot", "mermaid")}
"""The formats that each option applies to."""


@click.command()
@db_option
@click.argument("name", default="@", metavar="[NODE|CONVERSATION]")
@click.option("--all", "everything", is_flag=True, help="All conversations. With native, tokens included: a backup.")
@click.option("--branch", is_flag=True, help="Only the path to the node; without NODE, to the current node.")
@click.option("--subtree", is_flag=True, help="Only the node and all nodes below it; without NODE, the current node.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="native", show_default=True)
@click.option("--tokens/--no-tokens", default=None, help="native: include token ids and log-probabilities.")
@click.option("--bookmarked", is_flag=True, help="openai: one line per bookmark, not per leaf.")
@click.option("--weights", is_flag=True, help="openai: add weights, so that training uses a shared reply once.")
@click.option("--messages", is_flag=True, help="dot, mermaid: one box per message, not per run.")
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
    """Write a conversation, a branch, or a subtree.

    For a CONVERSATION all branches are written, for a NODE the branch that leads to it.

    The native format is JSON Lines. `treechat import` reads it: importing an export of --all restores a database. The
    other formats are for reading (markdown; html, one page with all branches), for training (openai), and for drawing
    the structure (dot, mermaid).
    """
    if everything and (branch or subtree or name != "@"):
        raise click.UsageError("--all cannot be combined with a name, --branch or --subtree.")
    if branch and subtree:
        raise click.UsageError("Use either --branch or --subtree, not both.")
    for option, forms in _OPTIONS.items():
        if options[option] and form not in forms:
            raise click.UsageError(f"--{option} applies only to the format {' or '.join(forms)}.")
    tokens = everything and form == "native" if options["tokens"] is None else bool(options["tokens"])
    chosen = {name: bool(value) for name, value in options.items() if name != "tokens"}
    _write(_texts(session, name, everything, _scope(branch, subtree), form, tokens, chosen), output)


def _scope(branch: bool, subtree: bool) -> Scope | None:
    """None: a branch for a node, all for a conversation."""
    return "branch" if branch else "subtree" if subtree else None


def _texts(
    session: Session,
    name: str,
    everything: bool,
    scope: Scope | None,
    form: str,
    tokens: bool,
    options: dict[str, bool],
) -> Iterator[str]:
    from treechat.cli.targets import find
    from treechat.transfer.export import all_documents, part_of, text_chunks

    store = session.store
    if everything:
        return text_chunks(all_documents(store, tokens), form, tokens=tokens, **options)
    conversation_id, node_id = find(store, name)
    if scope is not None and node_id is None:
        node_id = store.conversation(conversation_id).current_id
    document = part_of(store, conversation_id, node_id, scope or "branch", tokens)
    return text_chunks([document], form, tokens=tokens, **options)


def _write(texts: Iterable[str], output: Path | None) -> None:
    """Write to the file; None or `-` is standard output."""
    from treechat.transfer.export import write_file

    file = None if str(output) == "-" else output
    try:
        if file is not None:
            write_file(file, texts)
            return
        for text in texts:
            sys.stdout.buffer.write(text.encode("utf-8", errors="replace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader closed the pipe: no error of the output.
        raise
    except OSError as error:
        raise click.ClickException(f"{file or 'Standard output'} cannot be written: {error.strerror}") from error
