"""Writes assets/screenshot.svg: the app on a conversation with forks. `python assets/make_screenshots.py`

The replies come from a script, not from a model, so the picture is the same on every machine.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "engine"), str(ROOT / "kernels")]

from tests.treechat.tui.scripted import scripted_model  # noqa: E402
from treechat.chat.settings import Settings  # noqa: E402
from treechat.config import Config  # noqa: E402
from treechat.tui.app import TreechatApp  # noqa: E402

SIZE = (132, 38)
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
SCRIPT = [
    FLORENCE,
    "Then **Rome**: four days are enough for the old centre, the Vatican and one day at Ostia.",
    "**Bologna** is the hub: Ravenna, Ferrara, Modena and Florence are all within an hour.",
    "Regional trains have fixed prices: Florence to Siena 10.20 €, to Lucca 9.90 €. Only fast trains need booking.",
    MUSEUMS,
    "Start with the Duomo's baptistery doors, then the Bargello.",
    "The `Amici degli Uffizi` card pays off from the third visit on.",
]


async def settle(app: TreechatApp, pilot) -> None:
    """Until no reply is being written and the marks are up to date."""
    for _ in range(60):
        await pilot.pause(0.02)
    while app.chat.streaming:
        await pilot.pause()


async def seed(app: TreechatApp, pilot) -> None:
    """A conversation about a trip, with forks at the first reply, after it, and at the last."""
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
    chat.set_label(chat.tree.siblings(first)[1], "Rome instead")
    chat.jump(museums)
    app.show_conversation()
    await settle(app, pilot)


def cool(engine, chat) -> None:
    """Forget some branches, as an engine short of memory would."""
    engine.cached = [path for path in engine.cached if b"Rome" not in bytes(i for i in path if i < 256)]


async def main() -> None:
    model = scripted_model(lambda n: SCRIPT[n % len(SCRIPT)], "SmolLM2-135M-Instruct")
    app = TreechatApp(None, config=Config(system_prompt=SYSTEM), load_model=lambda progress: model)
    app.settings = Settings(system_prompt=SYSTEM, seed=1)
    async with app.run_test(size=SIZE) as pilot:
        while app.chat.model is None:
            await pilot.pause()
        app.chat.settings = app.settings
        await seed(app, pilot)
        cool(model.engine, app.chat)
        app.open_tree()
        await settle(app, pilot)
        target = ROOT / "assets" / "screenshot.svg"
        target.write_text(app.export_screenshot(title="treechat"), encoding="utf-8")
        print(f"wrote {target.relative_to(ROOT)}")


if __name__ == "__main__":
    asyncio.run(main())
