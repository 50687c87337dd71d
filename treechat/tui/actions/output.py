"""Hand text to other programs: the clipboard, `$PAGER`, and exported files."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from itertools import count
from pathlib import Path

from textual.app import SuspendNotSupported

from treechat.errors import TreechatError
from treechat.paths import cache_dir
from treechat.transfer.export import SUFFIXES, all_documents, part_of, text_chunks, write_file
from treechat.tui.safe_text import escape_controls
from treechat.tui.screens.pick import PickScreen
from treechat.tui.widgets.choice_list import ListChoice
from treechat.tui.window import Window

_CODE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)

BACKUP = "backup"
"""The format that is a copy of the database by SQLite itself."""

SCOPES = {
    "branch": ("This branch", ("markdown", "html", "native", "openai")),
    "subtree": ("From this message on", ("markdown", "html", "native", "openai", "dot", "mermaid")),
    "conversation": ("The conversation", ("markdown", "html", "native", "openai", "dot", "mermaid")),
    "everything": ("All conversations", ("native", "html", "markdown", "openai", BACKUP)),
}
"""By scope: its name in the list, and the formats that can represent it."""

FORMAT_NAMES = {
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


def export_choices() -> list[ListChoice]:
    """The entries of the export list; their ids are `scope:format`."""
    made = []
    for scope, (title, forms) in SCOPES.items():
        for form in forms:
            note = NOTES.get((scope, form)) or f"*{_suffix(form)}"
            made.append(ListChoice(f"{scope}:{form}", f"{title} · {FORMAT_NAMES[form]}", note))
    return made


class OutputActions(Window):
    """The actions that copy a message, open it in a pager, and export."""

    def action_copy(self) -> None:
        if self.cursor_id is not None:
            self._copy(self.transcript.cache.visible_text(self.chat, self.cursor_id), "Message")

    def action_copy_code(self) -> None:
        blocks = _CODE.findall(self.chat.text(self.cursor_id)) if self.cursor_id else []
        if blocks:
            self._copy(blocks[-1], "Code")
        else:
            self.say("No code block in this message")

    def _copy(self, text: str, what: str) -> None:
        if self.is_web or not lacks_clipboard(os.environ):
            self.copy_to_clipboard(text)
            self.say(f"{what} copied · P opens it {'in a tab' if self.is_web else 'in $PAGER'}")
            return
        target = cache_dir() / "copied.md"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            self.tell(TreechatError(f"{target} cannot be written: {error.strerror}", "P opens the message in $PAGER."))
            return
        self.say(f"This terminal does not support copying. {what} written to {target}")

    def action_pager(self) -> None:
        """Open the message in `$PAGER`, or in a browser's tab. Control characters are escaped: a pager may not."""
        if self.cursor_id is None:
            return
        text = escape_controls(self.chat.text(self.cursor_id))
        if self.is_web:
            self.deliver_text(StringIO(text), save_filename="message.txt", open_method="browser", encoding="utf-8")
            return
        pager = os.environ.get("PAGER") or "less"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "message.md"
            path.write_text(text, encoding="utf-8")
            try:
                with self.suspend():
                    subprocess.run([*shlex.split(pager), str(path)], check=True)
            except (OSError, ValueError, SuspendNotSupported, subprocess.CalledProcessError) as error:
                self.tell(TreechatError(f"{pager} failed: {error}", "Set $PAGER to a pager."))

    # Exporting

    def action_export(self) -> None:
        if self.chat.conversation_id is None:
            self.say("There is nothing to export yet")
            return
        choices = export_choices()

        def find(query: str) -> list[ListChoice]:
            words = query.casefold().split()
            return [each for each in choices if all(word in each.text.casefold() for word in words)]

        def done(chosen: str | None) -> None:
            if chosen is not None:
                scope, _, form = chosen.partition(":")
                self.run_worker(self._export(scope, form), group="exports")

        self.ask(PickScreen("Export", find, "part or format: html, branch, …", "writes"), done)

    async def _export(self, scope: str, form: str) -> None:
        """Write a new file in a thread, as a large conversation takes a while; a browser downloads it."""
        write = self._writer(scope, form)
        title = "conversations" if scope == "everything" else self.chat.title
        name = re.sub(r"[^\w-]+", "-", title).strip("-").lower()[:40] or "conversation"
        # A file that is being downloaded is open, so its folder can be removed.
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
        make_text = self._text_source(scope, form)
        return lambda target: write_file(target, make_text())

    def _text_source(self, scope: str, form: str) -> Callable[[], Iterator[str]]:
        """Return a function that yields the text. It reads the store; the cursor and the view are the present ones."""
        store, conversation_id = self.store, self.chat.conversation_id
        if scope == "everything":
            tokens = form == "native"
            return lambda: text_chunks(all_documents(store, tokens), form, tokens=tokens)
        assert conversation_id is not None, "the action checks it"
        if scope == "conversation":
            return lambda: text_chunks([part_of(store, conversation_id, None, "conversation")], form)
        if scope == "subtree":
            node_id = self.cursor_id
            return lambda: text_chunks([part_of(store, conversation_id, node_id, "subtree")], form)
        view_id = self.view_id
        return lambda: text_chunks([part_of(store, conversation_id, view_id, "branch")], form)


def lacks_clipboard(env: Mapping[str, str]) -> bool:
    """Whether the terminal is known not to support copying by OSC 52."""
    return env.get("TERM", "") in ("linux", "dumb", "vt100", "vt220") or env.get("TERM_PROGRAM") == "Apple_Terminal"


def _suffix(form: str) -> str:
    return ".db" if form == BACKUP else SUFFIXES[form]


def _write_new(folder: Path, name: str, suffix: str, write: Callable[[Path], None]) -> Path:
    """Write a file under a name that does not exist yet, and return its path; no export overwrites a file.

    Raises OSError, StoreError.
    """
    # This raises OSError if the working folder was removed in the meantime.
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
