"""Commands that only read: `ls`, `show`, `cat`, `log`, `search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from treechat.cli.options import Session, db_option, json_option, pass_session
from treechat.cli.output import SHORT_LEN, cut, one_line, pad, plural, print_json, print_text, say, terminal_width, when

if TYPE_CHECKING:
    from treechat.tree import Node, Turn


@click.command()
@db_option
@json_option
@click.option("--limit", type=click.IntRange(1), help="List at most this many.")
@pass_session
def ls(session: Session, as_json: bool, limit: int | None) -> None:
    """List conversations, the last changed first."""
    infos = session.store.conversations(limit)
    if as_json:
        print_json(
            [
                {"id": i.id, "title": i.title, "nodes": i.num_nodes, "forks": i.num_forks, "updated": i.updated_at}
                for i in infos
            ]
        )
        return
    if not infos:
        say("No conversations yet. `treechat` opens the app, `treechat ask` starts one here.")
    for i in infos:
        counts = f"{plural(i.num_nodes, 'node'):>12}  {plural(i.num_forks, 'fork'):>9}"
        title = cut(one_line(i.title) or "Untitled", max(terminal_width() - 54, 20))
        click.echo(f"{i.id[:SHORT_LEN]}  {when(i.updated_at)}  {counts}  {title}".rstrip())


@click.command()
@db_option
@click.argument("name", default="@", metavar="[NODE|CONVERSATION]")
@click.option("--messages", is_flag=True, help="One row per message, not per run.")
@json_option
@pass_session
def show(session: Session, name: str, messages: bool, as_json: bool) -> None:
    """Draw the tree of a conversation, or the subtree of a node.

    A row is a run: a chain of messages without a fork. The branch with the current node comes first.
    """
    from treechat.cli import tree_lines
    from treechat.cli.targets import find

    found = find(session.store, name)
    tree = session.store.load_tree(found.conversation_id)
    conversation = session.store.conversation(found.conversation_id)
    if as_json:
        ids = tree.subtree(found.node_id) if found.node_id else tree.walk()
        nodes = [_node_json(tree[node_id]) for node_id in ids]
        head = {"id": conversation.id, "title": conversation.title, "current": conversation.current_id}
        print_json(head | {"nodes": nodes})
        return
    if not found.node_id:
        click.echo(cut(one_line(conversation.title) or "Untitled", terminal_width()))
    for line in tree_lines.lines(tree, conversation.current_id, found.node_id, messages, terminal_width()):
        click.echo(line)


@click.command()
@db_option
@click.argument("name", default="@", metavar="[NODE]")
@click.option("--path", "whole_path", is_flag=True, help="Print the whole path to the node, as Markdown.")
@pass_session
def cat(session: Session, name: str, whole_path: bool) -> None:
    """Print the text of a node."""
    node, conversation_id = session.store.resolve(name)
    if not whole_path:
        print_text(session.store.text(node.id))
        return
    from treechat.formats.export import markdown
    from treechat.transfer.documents import document_of

    path = session.store.load_tree(conversation_id).path(node.id)
    document = document_of(session.store, conversation_id, path)
    print_text("".join(markdown.write_branch(document, path)).rstrip("\n"))


@click.command()
@db_option
@click.argument("name", default="@", metavar="[NODE]")
@json_option
@pass_session
def log(session: Session, name: str, as_json: bool) -> None:
    """List the messages on the path to a node.

    The line below a reply shows its tokens reused and computed, times and speed.
    """
    node, conversation_id = session.store.resolve(name)
    tree = session.store.load_tree(conversation_id)
    path = tree.path(node.id)
    turns = session.store.turns(path)
    if as_json:
        print_json([_node_json(tree[i]) | {"turn": _turn_json(turns.get(i))} for i in path])
        return
    width = terminal_width()
    for node_id in path:
        one = tree[node_id]
        fork = (
            f"⋔ {tree.siblings(node_id).index(node_id) + 1}/{len(tree.siblings(node_id))} " if _forks(tree, one) else ""
        )
        text = cut(f"{fork}{one_line(one.preview)}", max(width - 22, 20))
        click.echo(f"{node_id[:SHORT_LEN]}  {pad(one.role, 9)}  {text}".rstrip())
        if note := _turn_note(turns.get(node_id)):
            click.echo(" " * 21 + note)


@click.command()
@db_option
@click.argument("query", nargs=-1, required=True)
@click.option("-c", "--conversation", metavar="NAME", help="Search only this conversation.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show at most this many hits.")
@json_option
@pass_session
def search(session: Session, query: tuple[str, ...], conversation: str | None, limit: int, as_json: bool) -> None:
    """Find messages that contain all words."""
    within = session.store.resolve_conversation(conversation).id if conversation else None
    hits = session.store.search(" ".join(query), within, limit)
    if as_json:
        print_json(
            [{"id": h.node_id, "conversation": h.conversation_id, "title": h.title, "snippet": h.snippet} for h in hits]
        )
        return
    if not hits:
        say("Nothing found.")
    for hit in hits:
        title = pad(one_line(hit.title) or "Untitled", 24)
        click.echo(f"{hit.node_id[:SHORT_LEN]}  {title}  {cut(one_line(hit.snippet), max(terminal_width() - 36, 20))}")


def _forks(tree: Any, node: Node) -> bool:
    return len(tree.siblings(node.id)) > 1


def _node_json(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "parent": node.parent_id,
        "role": node.role,
        "status": node.status,
        "created": node.created_at,
        "preview": node.preview,
        "label": node.label,
        "bookmarked": node.bookmarked,
    }


def _turn_json(turn: Turn | None) -> dict[str, Any] | None:
    if turn is None:
        return None
    from dataclasses import asdict

    return asdict(turn)


def _turn_note(turn: Turn | None) -> str:
    """Tokens, times and speed of a reply, in one line; empty if unknown."""
    if turn is None:
        return ""
    parts = [one_line(turn.model)]
    if turn.cached_tokens is not None and turn.computed_tokens is not None:
        parts.append(f"reused {turn.cached_tokens + (turn.restored_tokens or 0):,}, computed {turn.computed_tokens:,}")
    if turn.ttft_s is not None:
        parts.append(f"first token {turn.ttft_s:.2f} s")
    if turn.tokens_per_s is not None:
        parts.append(f"{turn.tokens_per_s:.1f} tokens/s")
    return " · ".join(parts)
