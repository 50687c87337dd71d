"""Protect and warm branches."""

from __future__ import annotations

from tests.fakes import scripted_model


async def test_a_protected_branch_is_marked_until_protection_ends(open_app) -> None:
    async with open_app(size=(120, 30)) as d:
        await d.send("hello")
        protected_id = d.app.chat.current_id
        await d.press("tab", "p")
        assert list(d.app.chat.protected) == [protected_id]
        assert "◆" in next(line for line in d.screen_text().splitlines() if "← here" in line)
        await d.press("p")
        assert not d.app.chat.protected
        assert "◆" not in d.screen_text()


async def test_resting_on_a_cold_branch_warms_it(open_app, tmp_path) -> None:
    path = tmp_path / "cold.db"
    async with open_app(path) as d:
        await d.send("one")
        await d.send("two")
    model = scripted_model("x")
    async with open_app(path, model=model) as d:
        await d.until(lambda: model.engine.warmed, "warming of the branch that the cursor rests on")
        await d.until(lambda: "●" in d.app.status.row, "the branch is resident")
