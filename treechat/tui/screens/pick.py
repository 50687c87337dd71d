"""Choosing from a list that a few typed letters narrow down: conversations, or messages that were searched for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from treechat.errors import TreechatError
from treechat.store import Reader, Store
from treechat.tui.bindings import LIST_BINDINGS
from treechat.tui.screens.modal import Modal
from treechat.tui.widgets.choice_list import ChoiceList, ListChoice

MAX_CHOICES = 200
"""Choices shown at once; typing finds the others."""

LONG = 10
"""From more choices than these on, the list takes the height that there is."""

Find = Callable[[str], Sequence[ListChoice]]
"""The choices for what is typed, "" included."""

Note = Callable[[Store, Sequence[str]], Mapping[str, str]]


class StoreSearch:
    """A `find` that reads the store for long: it runs in a thread, and is ended where the next letter overtakes it."""

    def __init__(
        self, store: Store, find: Callable[[Store, str], Sequence[ListChoice]], note: Note | None = None
    ) -> None:
        """note: looks up what stands behind choices that came without; only for those in sight. Raises StoreError."""
        self._reader = Reader(store)
        self._find = find
        self._note = note
        self.has_notes = note is not None
        self.interrupt = self._reader.interrupt
        self.close = self._reader.close

    def __call__(self, query: str) -> Sequence[ListChoice]:
        return self._find(self._reader.store, query)

    def notes(self, ids: Sequence[str]) -> Mapping[str, str]:
        """What is noted of each of these choices."""
        found = self._note(self._reader.store, ids) if self._note is not None else {}
        return dict.fromkeys(ids, "") | dict(found)


class PickScreen(Modal[str | None]):
    """Returns the id of what was chosen, or None."""

    BINDINGS = LIST_BINDINGS

    def __init__(self, title: str, find: Find | StoreSearch, placeholder: str, verb: str = "opens") -> None:
        super().__init__()
        self.list = ChoiceList()
        self._title = title
        self._find = find
        self._placeholder = placeholder
        self._verb = verb
        self._wanted: str | None = None
        self._is_finding = False
        self._is_chosen = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            # Of one height from the beginning: what is found late then moves nothing, and costs less to draw.
            window.set_class(isinstance(self._find, StoreSearch), "tall")
            window.border_title = self._title
            window.border_subtitle = f"enter {self._verb} · esc closes"
            yield Input(placeholder=self._placeholder)
            yield self.list

    def on_mount(self) -> None:
        self._look_for("")

    def on_unmount(self) -> None:
        if isinstance(self._find, StoreSearch):
            self._find.close()

    @on(Input.Changed)
    def _narrow(self, event: Input.Changed) -> None:
        self._look_for(event.value)

    def _look_for(self, query: str) -> None:
        self._is_chosen = False
        if not isinstance(self._find, StoreSearch):
            self._show(query, self._find(query))
            return
        self._wanted = query
        if self._is_finding:
            self._find.interrupt()
        else:
            self._go_on()

    @on(ChoiceList.Scrolled)
    def _go_on(self) -> None:
        if isinstance(self._find, StoreSearch) and not self._is_finding:
            self._is_finding = True
            self.run_worker(self._find_wanted(self._find), group="find")

    async def _find_wanted(self, find: StoreSearch) -> None:
        """What is found for a query that was overtaken is dropped, and the last one looked for; then come the notes."""
        try:
            while True:
                if self._wanted is not None:
                    await self._find_one(find, self._wanted)
                elif find.has_notes and self.list.is_attached and (ids := self.list.without_note):
                    await self._note(find, ids)
                else:
                    break
        finally:
            self._is_finding = False

    async def _find_one(self, find: StoreSearch, query: str) -> None:
        try:
            found, text = await asyncio.to_thread(find, query), ""
        except TreechatError as error:
            found, text = (), error.message
        if query == self._wanted:
            self._wanted = None
            if self.list.is_attached:
                self._show(query, found, text)

    async def _note(self, find: StoreSearch, ids: Sequence[str]) -> None:
        try:
            self.list.note(await asyncio.to_thread(find.notes, ids))
        except TreechatError:
            # Unless the next letter ended it, there is nothing to be noted.
            if self._wanted is None:
                self.list.note(dict.fromkeys(ids, ""))

    def _show(self, query: str, found: Sequence[ListChoice], text: str = "") -> None:
        if len(found) > LONG:
            self.query_one(".window").add_class("tall")
        self.list.show(found[:MAX_CHOICES], text or ("nothing found" if query else "nothing here yet"))
        if self._is_chosen:
            self._choose()

    def action_step(self, by: int) -> None:
        self.list.go(self.list.index + by)

    @on(Input.Submitted)
    def _choose(self) -> None:
        """Where the choices for what was typed are not there yet, the first of them when they come."""
        self._is_chosen = self._is_finding and self._wanted is not None
        if not self._is_chosen and (choice := self.list.chosen) is not None:
            self.dismiss(choice.id)

    @on(ChoiceList.Clicked)
    def _clicked(self, event: ChoiceList.Clicked) -> None:
        self.dismiss(event.id)


def model_picker(choices: Sequence[ListChoice], verb: str = "loads it") -> PickScreen:
    """A list of models that takes any other name, too."""

    def find(query: str) -> list[ListChoice]:
        words = query.casefold().split()
        found = [choice for choice in choices if all(word in choice.text.casefold() for word in words)]
        if query.strip() and query.strip() not in (choice.text for choice in choices):
            found.append(ListChoice(query.strip(), query.strip(), "a hub id, a directory or a .gguf file"))
        return found

    return PickScreen("Model", find, "a name, hub id, directory or .gguf file", verb=verb)
