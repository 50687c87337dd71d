"""Which activity the status line shows."""

from __future__ import annotations

import pytest

from treechat.tui.widgets.status import StatusLine


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        ({}, ""),
        ({"writing": "w"}, "w"),
        ({"writing": "w", "replaying": "r"}, "r"),
        ({"replaying": "r", "warming": "k"}, "k"),
        ({"loading": "l", "writing": "w", "importing": "i"}, "w · i · l"),
        ({"loading": "l", "warming": ""}, "l"),
        ({"writing": "w", "loading": "l", "notice": "n"}, "n"),
        ({"notice": "n", "writing": "w"}, "w"),
    ],
)
async def test_activities_are_shown_in_a_fixed_order_and_a_notice_replaces_them(texts, shown) -> None:
    status = StatusLine()
    for slot, text in texts.items():
        status.set(slot, text)
    assert status.activity == shown
