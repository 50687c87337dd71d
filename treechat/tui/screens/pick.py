"""Choose from a list that typed text filters: conversations, search results, models, presets."""

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
"""Choices shown at once; more text finds the others."""

MAX_SHORT_LIST = 10
"""With more choices than this, the list takes the full height."""

Find = Callable[[str], Sequence[ListChoice]]
"""Returns the choices for the typed text, which may be ""."""

Note = Callable[[Store, Sequence[str]], Mapping[str, str]]


class StoreSearch:
    """A `find` that reads the store. It runs in a thread, and the next typed letter interrupts it."""

    def __init__(
        self, store: Store, find: Callable[[Store, str], Sequence[ListChoice]], note: Note | None = None
    ) -> None:
        """Open a second reader of the store.

        store: the store to read.
        find: returns the choices for a query.
        note: looks up notes of choices without one; called for visible choices only. Raises StoreError.
        """
        self._reader = Reader(store)
        self._find = find
        self._note = note
        self.has_notes = note is not None
        self.interrupt = self._reader.interrupt
        self.close = self._reader.close

    def __call__(self, query: str) -> Sequence[ListChoice]:
        return self._find(self._reader.store, query)

    def notes(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the note of each of these choices, "" for none."""
        found = self._note(self._reader.store, ids) if self._note is not None else {}
        return dict.fromkeys(ids, "") | dict(found)


class PickScreen(Modal[str | None]):
    """Returns the id of the chosen item, or None."""

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
            # A fixed height from the start: late results move nothing and cost less to draw.
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
        """Find until the latest query has its results, then look up notes. Results of older queries are dropped."""
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
            self.list.add_notes(await asyncio.to_thread(find.notes, ids))
        except TreechatError:
            # If no new query interrupted the lookup, it failed: these choices have no note.
            if self._wanted is None:
                self.list.add_notes(dict.fromkeys(ids, ""))

    def _show(self, query: str, found: Sequence[ListChoice], text: str = "") -> None:
        if len(found) > MAX_SHORT_LIST:
            self.query_one(".window").add_class("tall")
        self.list.show(found[:MAX_CHOICES], text or ("nothing found" if query else "nothing here yet"))
        if self._is_chosen:
            self._choose()

    def action_step(self, by: int) -> None:
        self.list.go(self.list.index + by)

    @on(Input.Submitted)
    def _choose(self) -> None:
        """Return the highlighted choice. If the results of the query are still missing, return the first one later."""
        self._is_chosen = self._is_finding and self._wanted is not None
        if not self._is_chosen and (choice := self.list.chosen) is not None:
            self.dismiss(choice.id)

    @on(ChoiceList.Clicked)
    def _clicked(self, event: ChoiceList.Clicked) -> None:
        self.dismiss(event.id)


def model_picker(choices: Sequence[ListChoice], verb: str = "loads it") -> PickScreen:
    """Return a list of models that also accepts any other name.

    choices: the known models.
    verb: the effect of enter, in the border.
    """

    def find(query: str) -> list[ListChoice]:
        words = query.casefold().split()
        found = [choice for choice in choices if all(word in choice.text.casefold() for word in words)]
        if query.strip() and query.strip() not in (choice.text for choice in choices):
            found.append(ListChoice(query.strip(), query.strip(), "a hub id, a directory or a .gguf file"))
        return found

    return PickScreen("Model", find, "a name, hub id, directory or .gguf file", verb=verb)
