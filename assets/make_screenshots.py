"""Write assets/screenshot.svg, the app with a forked conversation. Run `python assets/make_screenshots.py`.

The replies come from a script, not from a model, so the picture is the same on each machine.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "engine"), str(ROOT / "kernels")]

from tests.treechat.tui.seeded import CONFIG, seed, seeded_model, until  # noqa: E402
from treechat.tui.app import TreechatApp  # noqa: E402

SIZE = (124, 36)
TARGET = ROOT / "assets" / "screenshot.svg"


async def picture() -> str:
    """The screenshot as SVG."""
    model = seeded_model()
    app = TreechatApp(None, config=CONFIG, load_model=lambda progress: model)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.chat.model is not None)
        await seed(app, pilot)
        svg = app.export_screenshot(title="treechat")
    # Rich puts a checksum into its class names that differs between calls; remove it so that the text is stable.
    return re.sub(r"terminal-\d+-", "terminal-", svg)


if __name__ == "__main__":
    TARGET.write_text(asyncio.run(picture()), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
