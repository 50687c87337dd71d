"""Open, find, name and import conversations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from treechat.store import ConversationInfo, Store
from treechat.transfer.tour import open_tour
from treechat.tui.safe_text import without_markdown
from treechat.tui.screens.ask import AskScreen
from treechat.tui.screens.importing import ImportScreen
from treechat.tui.screens.pick import MAX_CHOICES, PickScreen, StoreSearch
from treechat.tui.widgets.choice_list import ListChoice
from treechat.tui.window import Window

LONG_TITLE = 400
"""The most characters of a title in a list."""


class ConversationActions(Window):
    """The actions that show another conversation or search in all of them."""

    def action_new(self) -> None:
        self.switch_to(None)
        self.to_composer()

    def action_open(self) -> None:
        def find(store: Store, query: str) -> list[ListChoice]:
            words = query.casefold().split()
            found = ((i, title) for i, title in store.titles() if all(word in title.casefold() for word in words))
            return [
                ListChoice(i, without_markdown(title[:LONG_TITLE]) or "(untitled)")
                for i, title in islice(found, MAX_CHOICES)
            ]

        def sizes(store: Store, ids: Sequence[str]) -> dict[str, str]:
            return {info.id: _size(info) for info in store.conversations(ids=ids)}

        def done(conversation_id: str | None) -> None:
            if conversation_id is not None:
                self.switch_to(conversation_id)

        self.ask(PickScreen("Conversations", StoreSearch(self.store, find, sizes), "type to narrow down"), done)

    def action_rename(self) -> None:
        def done(title: str | None) -> None:
            if title:
                self.chat.nodes.rename(title)
                self.draw_labels()

        self.ask(AskScreen("Title", self.chat.title), done)

    def action_tour(self) -> None:
        self.switch_to(open_tour(self.store))
        self.open_tree()

    def action_import(self) -> None:
        screen = ImportScreen(self.imports.start, self.imports.job)

        def done(conversation_id: str | None) -> None:
            if screen.is_reported:
                self.imports.forget_reported()
            if conversation_id is not None:
                self.switch_to(conversation_id)

        self.ask(screen, done)

    # Searching

    def action_find(self) -> None:
        chat = self.chat

        def find(store: Store, query: str) -> list[ListChoice]:
            if not query.strip() or chat.conversation_id is None:
                return []
            hits = store.search(query, chat.conversation_id)
            return [ListChoice(hit.node_id, without_markdown(hit.snippet)) for hit in hits if hit.node_id in chat.tree]

        def done(node_id: str | None) -> None:
            if node_id is not None and node_id in self.chat.tree:
                self._look_at_found(node_id)

        self.ask(PickScreen("Search this conversation", StoreSearch(self.store, find), "words"), done)

    def action_search_all(self) -> None:
        homes: dict[str, str] = {}

        def find(store: Store, query: str) -> list[ListChoice]:
            hits = store.search(query) if query.strip() else []
            homes.update((hit.node_id, hit.conversation_id) for hit in hits)
            return [
                ListChoice(hit.node_id, without_markdown(hit.snippet), without_markdown(hit.title[:LONG_TITLE]))
                for hit in hits
            ]

        def done(node_id: str | None) -> None:
            if node_id is None:
                return
            if homes[node_id] != self.chat.conversation_id:
                self.switch_to(homes[node_id])
            if node_id in self.chat.tree:
                self._look_at_found(node_id)

        self.ask(PickScreen("Search everything", StoreSearch(self.store, find), "words"), done)

    def _look_at_found(self, node_id: str) -> None:
        self.look_at(node_id, view_id=self.leaf_of(node_id))
        self.transcript.point(node_id)


def _size(info: ConversationInfo) -> str:
    messages, forks = info.num_nodes, info.num_forks
    return f"{messages:,} message{'s' if messages != 1 else ''} · {forks:,} fork{'s' if forks != 1 else ''}"
