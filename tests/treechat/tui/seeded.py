"""A conversation with forks, the same each time, and the way to each screen from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.fakes import scripted_model
from treechat.chat.model.chat_model import ChatModel
from treechat.config import Config
from treechat.tui.app import TreechatApp

SYSTEM = "You are a travel guide who knows Italy by train."
START = "Four days in Italy in May, by train. Where should we go?"
FLORENCE = """Stay in **Florence**: everything is in walking distance, and day trips are short.

1. *Day one*: the Uffizi at 8:15, then San Miniato for the view
2. *Day two*: Siena, 1 h 30 min by bus or train
3. *Day three*: the Bargello and Oltrarno's workshops
4. *Day four*: Lucca, once around on its wall"""
MUSEUMS = """Three need a time slot in May:

| museum | book ahead | quietest |
| --- | --- | --- |
| Uffizi | 3 weeks | 8:15 or after 16:00 |
| Accademia | 2 weeks | last hour |
| Bargello | not needed | any morning |

The Bargello has Donatello's *David* and hardly a queue."""
REPLIES = [
    FLORENCE,
    "Then **Rome**: four days are enough for the old centre, the Vatican and one day at Ostia.",
    "**Bologna** is the hub: Ravenna, Ferrara, Modena and Florence are all within an hour.",
    "Regional trains have fixed prices: Florence to Siena 10.20 €, to Lucca 9.90 €. Only fast trains need booking.",
    MUSEUMS,
    "Start with the Duomo's baptistery doors, then the Bargello.",
    "The `Amici degli Uffizi` card pays off from the third visit on.",
]
CONFIG = Config(system_prompt=SYSTEM, seed=1, presets={"exact": {"temperature": 0.0}, "lively": {"temperature": 1.2}})


def seeded_model() -> ChatModel:
    """Return a model with a low probability for some letters, which the token view then marks."""
    model = scripted_model(lambda n: REPLIES[n % len(REPLIES)], "SmolLM2-135M-Instruct")
    model.engine.logprob = lambda token_id: {0: -1.2, 1: -2.1}.get(token_id % 7, -0.1)
    return model


async def seed(app: TreechatApp, pilot) -> None:
    """Make a conversation about a trip. Forks: at the first reply, after it, and at the last. Needs a loaded model."""
    chat = app.chat
    chat.title = "four days in Italy"

    async def send(text: str, parent_id: str | None) -> str:
        async for _ in chat.send(text, parent_id=parent_id):
            pass
        return chat.current_id

    first = await send(START, None)
    async for _ in chat.regenerate(first, 2):
        pass
    trains = await send("What do the trains cost?", first)
    museums = await send("Which museums must be booked?", first)
    async for _ in chat.regenerate(museums, 2):
        pass
    chat.set_bookmark(trains, True)
    chat.nodes.set_label(chat.tree.siblings(first)[1], "Rome instead")
    chat.jump(museums)
    cool(app)
    app.show_conversation()
    app.open_tree()
    await until(pilot, lambda: app.tree_pane.costs and app.in_tree)
    await settle(pilot)


def cool(app: TreechatApp) -> None:
    """Drop the KV of some branches, as an engine does when memory is short."""
    engine = app.chat.model.engine
    engine.cached = [path for path in engine.cached if b"Rome" not in bytes(i for i in path if i < 256)]


async def until(pilot, condition: Callable[[], object]) -> None:
    for _ in range(1600):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError("never came true")


async def settle(pilot) -> None:
    """Wait until pending messages are handled and their changes are drawn."""
    for _ in range(6):
        await pilot.pause(0)


async def press(pilot, *keys: str) -> None:
    """Press each key after the changes of the previous key are drawn. `pilot.press` takes 40 ms more per key."""
    for key in keys:
        pilot.app.simulate_key(key)
        await settle(pilot)


async def _token_view(app: TreechatApp, pilot) -> None:
    await press(pilot, "t")
    await until(pilot, lambda: app.screen.choices and "computed" in app.screen.note)


async def _memory(app: TreechatApp, pilot) -> None:
    await press(pilot, "M")
    await until(pilot, lambda: app.screen.rows.rows)


async def _search(app: TreechatApp, pilot) -> None:
    await press(pilot, "ctrl+g", *"florence")
    await until(pilot, lambda: app.screen.list.chosen)


async def _other_columns(app: TreechatApp, pilot) -> None:
    await press(pilot, "G", "v")
    await until(pilot, lambda: app.screen.query("#siblings"))


async def _conversations(app: TreechatApp, pilot) -> None:
    await press(pilot, "ctrl+o")
    await until(pilot, lambda: len(app.screen_stack) > 1 and app.screen.list.chosen)
    await until(pilot, lambda: not app.screen.list.without_note)


def _keys(*keys: str) -> Callable[[TreechatApp, object], Awaitable[None]]:
    async def pressed(app: TreechatApp, pilot) -> None:
        await press(pilot, *keys)

    return pressed


SCREENS: dict[str, Callable[[TreechatApp, object], Awaitable[None]]] = {
    "main": _keys(),
    "filtered": _keys("f"),
    "tokens": _token_view,
    "columns": _other_columns,
    "compare": _keys("j", "j", "equals_sign"),
    "split": _keys("s"),
    "settings": _keys("f3"),
    "memory": _memory,
    "palette": _keys("ctrl+p"),
    "help": _keys("f1"),
    "conversations": _conversations,
    "search": _search,
    "label": _keys("m"),
    "export": _keys("x"),
}
"""The way to each screen from the seeded conversation, with the focus on its tree."""


async def show(app: TreechatApp, pilot, name: str) -> None:
    """Go to a screen, from any other screen."""
    while len(app.screen_stack) > 1:
        app.pop_screen()
        await pilot.pause()
    app.clear_notifications()
    pane = app.tree_pane
    pane.filter, pane.hoisted_id = "everything", None
    pane.folded_ids.clear()
    pane.expanded_ids.clear()
    app.look_at(app.chat.current_id)
    app.open_tree()
    await until(pilot, lambda: app.in_tree)
    await SCREENS[name](app, pilot)
    stats = app.chat.model.engine.stats()
    used = f" {stats.slots_total - stats.slots_free:,}/"
    await until(pilot, lambda: used in app.status.memory)
    await settle(pilot)
