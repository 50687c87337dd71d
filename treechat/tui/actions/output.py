"""Writing a branch, what is below a message, the conversation or everything to a file, in a format to be chosen."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from treechat.errors import TreechatError
from treechat.transfer.export import SUFFIXES, all_documents, part_of, pieces, write_file
from treechat.tui.actions.copying import Copying
from treechat.tui.screens.pick import PickScreen
from treechat.tui.widgets.choice_list import ListChoice

BACKUP = "backup"
"""Stands among the formats for SQLite's own copy."""

SCOPES = {
    "branch": ("This branch", ("markdown", "html", "native", "openai")),
    "subtree": ("From this message on", ("markdown", "html", "native", "openai", "dot", "mermaid")),
    "conversation": ("The conversation", ("markdown", "html", "native", "openai", "dot", "mermaid")),
    "everything": ("All conversations", ("native", "html", "markdown", "openai", BACKUP)),
}
"""What can be written, its name here, and the formats that make sense of it."""

NAMES = {
    "markdown": "Markdown",
    "html": "one HTML page",
    "native": "treechat's JSON Lines",
    "openai": "OpenAI chat JSONL",
    "dot": "its structure for Graphviz",
    "mermaid": "its structure for Mermaid",
    BACKUP: "a copy of the database",
}
NOTES = {
    ("everything", "native"): "with tokens, to import again",
    ("everything", BACKUP): "*.db, hidden ones too",
}


def choices() -> list[ListChoice]:
    """Ids are `scope:format`."""
    made = []
    for scope, (title, forms) in SCOPES.items():
        for form in forms:
            note = NOTES.get((scope, form)) or f"*{_suffix(form)}"
            made.append(ListChoice(f"{scope}:{form}", f"{title} · {NAMES[form]}", note))
    return made


class Exporting(Copying):
    """The action that writes conversations to files, and its window."""

    def action_export(self) -> None:
        if self.chat.conversation_id is None:
            self.say("There is nothing to export yet")
            return
        all_choices = choices()

        def find(query: str) -> list[ListChoice]:
            words = query.casefold().split()
            return [each for each in all_choices if all(word in each.text.casefold() for word in words)]

        def done(chosen: str | None) -> None:
            if chosen is not None:
                scope, _, form = chosen.partition(":")
                self.run_worker(self._export(scope, form), group="exports")

        self.ask(PickScreen("Export", find, "what, or as what: html, branch, …", "writes"), done)

    async def _export(self, scope: str, form: str) -> None:
        """In a thread: a large conversation takes a while. The file is new; exports never overwrite.

        In a browser it is a download.
        """
        write = self._writer(scope, form)
        title = "conversations" if scope == "everything" else self.chat.title
        name = re.sub(r"[^\w-]+", "-", title).strip("-").lower()[:40] or "conversation"
        # A file that is being downloaded is open, and needs no name any more.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            await self._write(Path(folder if self.is_web else ""), name, _suffix(form), write)

    async def _write(self, folder: Path, name: str, suffix: str, write: Callable[[Path], None]) -> None:
        try:
            target = await asyncio.to_thread(_write_new, folder, name, suffix, write)
        except OSError as error:
            self.tell(TreechatError(f"{name}{suffix} cannot be written: {error.strerror}", "Start treechat elsewhere."))
        except TreechatError as error:
            self.tell(error)
        else:
            if self.is_web:
                self.deliver_binary(target)
            else:
                self.say(f"Written to {target}")

    def _writer(self, scope: str, form: str) -> Callable[[Path], None]:
        if form == BACKUP:
            return self.store.back_up
        make = self._pieces(scope, form)
        return lambda target: write_file(target, make())

    def _pieces(self, scope: str, form: str) -> Callable[[], Iterator[str]]:
        """What makes the text; what is in sight is looked up now, the rest when it is called."""
        store, conversation_id = self.store, self.chat.conversation_id
        if scope == "everything":
            tokens = form == "native"
            return lambda: pieces(all_documents(store, tokens), form, tokens=tokens)
        assert conversation_id is not None, "the action checks it"
        if scope == "conversation":
            return lambda: pieces([part_of(store, conversation_id, None, "conversation")], form)
        if scope == "subtree":
            node_id = self.cursor_id
            return lambda: pieces([part_of(store, conversation_id, node_id, "subtree")], form)
        view_id = self.view_id
        return lambda: pieces([part_of(store, conversation_id, view_id, "branch")], form)


def _suffix(form: str) -> str:
    return ".db" if form == BACKUP else SUFFIXES[form]


def _write_new(folder: Path, name: str, suffix: str, write: Callable[[Path], None]) -> Path:
    """Write to a name that is not taken, and return it. Raises OSError, StoreError."""
    # Where the working folder was removed in the meantime, this fails, and it is said as any other failure.
    folder = folder.absolute()
    for number in count():
        target = folder / f"{name}{f'-{number}' if number else ''}{suffix}"
        try:
            target.open("x").close()
        except FileExistsError:
            continue
        break
    try:
        write(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target
