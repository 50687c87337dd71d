"""`export`: conversations, branches and subtrees as files of several formats."""

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
    chosen = {name: bool(value) for name, value in options.items() if name != "tokens"}
    _write(_pieces(session, name, everything, _scope(branch, subtree), form, tokens, chosen), output)


def _scope(branch: bool, subtree: bool) -> Scope | None:
    """None: what the name says."""
    return "branch" if branch else "subtree" if subtree else None


def _pieces(
    session: Session,
    name: str,
    everything: bool,
    scope: Scope | None,
    form: str,
    tokens: bool,
    options: dict[str, bool],
) -> Iterator[str]:
    from treechat.cli.targets import find
    from treechat.transfer.export import all_documents, part_of, pieces

    store = session.store
    if everything:
        return pieces(all_documents(store, tokens), form, tokens=tokens, **options)
    conversation_id, node_id = find(store, name)
    if scope is not None and node_id is None:
        node_id = store.conversation(conversation_id).current_id
    document = part_of(store, conversation_id, node_id, scope or "branch", tokens)
    return pieces([document], form, tokens=tokens, **options)


def _write(texts: Iterable[str], output: Path | None) -> None:
    """To standard output, or to a file."""
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
        # Whoever read has seen enough.
        raise
    except OSError as error:
        raise click.ClickException(f"{file or 'Standard output'} cannot be written: {error.strerror}") from error
