"""Changing: `rm`, `undo`, `redo`. Nothing asks, since everything can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from treechat.cli.options import Session, db_option, pass_session
from treechat.cli.output import plural, say

if TYPE_CHECKING:
    from treechat.store import Event

SHORT_LEN = 8
_DONE = {
    "hide": "deleting a message and what follows it",
    "hide_conversation": "deleting a conversation",
    "label": "labelling a message",
    "bookmark": "bookmarking a message",
    "move": "moving a message",
    "rename": "renaming a conversation",
    "graft": "copying a branch",
    "rebase": "replaying a branch",
}


@click.command()
@db_option
@click.argument("names", nargs=-1, required=True, metavar="NODE|CONVERSATION...")
@pass_session
def rm(session: Session, names: tuple[str, ...]) -> None:
    """Delete nodes or conversations.

    A node goes with all that follows it. `undo` brings back what was deleted. Here @ is the current node, never the
    conversation.
    """
    from treechat.cli.targets import Found, find

    store = session.store
    # All names are looked up before anything is changed: a wrong one changes nothing.
    found = []
    for name in names:
        if name.startswith("@"):
            resolved = store.resolve(name)
            found.append(Found(resolved.conversation_id, resolved.node.id))
        else:
            found.append(find(store, name))
    for conversation_id, node_id in found:
        if node_id is None:
            store.hide_conversation(conversation_id)
            say(f"Deleted conversation {conversation_id[:SHORT_LEN]}. `treechat undo` brings it back.")
            continue
        count = sum(1 for _ in store.load_tree(conversation_id).subtree(node_id))
        store.hide(node_id)
        say(f"Deleted {plural(count, 'message')} from {node_id[:SHORT_LEN]} on. `treechat undo` takes that back.")


@click.command()
@db_option
@pass_session
def undo(session: Session) -> None:
    """Take the last change back."""
    _report("Undone", session.store.undo())


@click.command()
@db_option
@pass_session
def redo(session: Session) -> None:
    """Do again what was undone last."""
    _report("Done again", session.store.redo())


def _report(verb: str, event: Event | None) -> None:
    if event is None:
        say("There is nothing to undo." if verb == "Undone" else "There is nothing to do again.")
        return
    name = event.node_id or event.conversation_id
    say(f"{verb}: {_DONE.get(event.kind, event.kind)} ({name[:SHORT_LEN]}).")
