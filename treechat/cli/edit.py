"""`rm`, `undo`, `redo`. They do not ask for confirmation, because each change can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from treechat.cli.options import Session, db_option, pass_session
from treechat.cli.output import SHORT_LEN, plural, say

if TYPE_CHECKING:
    from treechat.store import Event

_CHANGES = {
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

    Deleting a node also deletes all nodes below it. `treechat undo` restores them. Here @ is the current node, never
    the conversation.
    """
    from treechat.cli.targets import Target, find

    store = session.store
    # Look up all names before the first change, so that a wrong name changes nothing.
    targets = []
    for name in names:
        if name.startswith("@"):
            resolved = store.resolve(name)
            targets.append(Target(resolved.conversation_id, resolved.node.id))
        else:
            targets.append(find(store, name))
    for conversation_id, node_id in targets:
        if node_id is None:
            store.hide_conversation(conversation_id)
            say(f"Deleted conversation {conversation_id[:SHORT_LEN]}. `treechat undo` restores it.")
            continue
        count = sum(1 for _ in store.load_tree(conversation_id).subtree(node_id))
        store.hide(node_id)
        say(f"Deleted {plural(count, 'message')}, from {node_id[:SHORT_LEN]} down. `treechat undo` restores this.")


@click.command()
@db_option
@pass_session
def undo(session: Session) -> None:
    """Undo the last change."""
    _report("Undone", session.store.undo())


@click.command()
@db_option
@pass_session
def redo(session: Session) -> None:
    """Redo the change undone last."""
    _report("Redone", session.store.redo())


def _report(verb: str, event: Event | None) -> None:
    if event is None:
        say("There is nothing to undo." if verb == "Undone" else "There is nothing to redo.")
        return
    name = event.node_id or event.conversation_id
    say(f"{verb}: {_CHANGES.get(event.kind, event.kind)} ({name[:SHORT_LEN]}).")
