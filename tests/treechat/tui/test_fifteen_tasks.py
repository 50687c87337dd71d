"""Fifteen tasks as a person does them, in order, in one terminal of 80x24, with the default model.

Each step has the keys to type and the text that the screen must then show. The next keys are sent after that.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import NamedTuple

import pytest

from tests.treechat.tui.test_terminal import Terminal
from treechat.store import Store

pytestmark = [
    pytest.mark.terminal,
    pytest.mark.model,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: install it and run `pytest -m terminal`"),
]

CONFIG = "max_tokens = 24\ntemperature = 0.8\nseed = 11\nkv_disk_mb = 0\n"


class Step(NamedTuple):
    """One step of a task.

    keys: in tmux's names.
    shown: a regular expression that the whole screen must match.
    gone: one that it must not match.
    """

    keys: tuple[str, ...]
    shown: str
    gone: str = r"(?!)"


ENDED = r"reused \d"
TREE = Step(("Tab",), r"← here")
TASKS: dict[str, tuple[Step, ...]] = {
    "send a message and read the reply": (
        Step(("Name a town by the sea.",), r"│ Name a town by the sea"),
        Step(("Enter",), rf"You\s+.*Name a town(.|\n)*Assistant(.|\n)*{ENDED}", r"writing"),
    ),
    "ask for three more replies, side by side": (
        TREE,
        Step(("3",), r"3 × …"),
        Step(("r",), r"3 alternatives(.|\n)*tok/s(.|\n)*tok/s(.|\n)*tok/s", r"waiting|writing"),
    ),
    "promote the second of them": (
        Step(("l",), r"▸2/3"),
        Step(("Enter",), r"⋔ 3/4(.|\n)*enter sends"),
    ),
    "go on from there": (
        Step(("What is it known for?",), r"│ What is it known"),
        Step(("Enter",), r"Assistant(.|\n)*What is it known(.|\n)*Assistant(.|\n)*" + ENDED, r"writing|│ What"),
    ),
    "look at the alternatives again": (
        TREE,
        Step(("g",), r"← here"),
        Step(("G",), r"← here"),
        Step(("v",), r"4 alternatives(.|\n)*▸3/4"),
        Step(("q",), r"← here", r"alternatives"),
    ),
    "jump to another branch": (
        Step(("J",), r"4/4"),
        Step(("Enter",), r"⋔ 4/4(.|\n)*enter sends", r"← here"),
    ),
    "edit one's own message as a sibling": (
        Step(("Up",), r"│ Name a town by the sea(.|\n)*edit|edit(.|\n)*│ Name a town by the sea"),
        Step((" Be brief.",), r"│ .*Be brief\."),
        Step(("Enter",), rf"You.*⋔ 2/2(.|\n)*Be brief\.(.|\n)*{ENDED}", r"writing|│ Name"),
    ),
    "name a branch and mark it": (
        TREE,
        Step(("m",), r"Label"),
        Step(("brief answers", "Enter"), r"brief answers +← here", r"enter keeps"),
        Step(("b",), r"← here.*★"),
    ),
    "hide a branch and bring it back": (
        Step(("d",), r"hidden", r"brief answers"),
        Step(("u",), r"brief answers"),
    ),
    "compare it with the other branch": (
        Step(("=",), r"in common, then(.|\n)*− (.|\n)*\+ "),
        Step(("q",), r"← here", r"in common"),
    ),
    "see how sure the model was of each token": (
        Step(("G",), r"← here"),
        Step(("t",), r"%"),
        Step(("q",), r"← here", r"esc closes"),
    ),
    "copy the branch elsewhere, and take that back": (
        Step(("C",), r"Copy \d+ messages? under"),
        Step(("Enter",), r"copied", r"enter copies"),
        Step(("u",), r"copy undone"),
    ),
    "replay one's turns, and stop half-way": (
        Step(("g",), r"← here"),
        Step(("R",), r"Replay \d turns? under"),
        Step(("beginning", "Enter"), r"replaying turn 1", r"enter replays"),
        Step(("Escape",), r"← here", r"replaying|writing"),
    ),
    "see what memory holds, and free a branch": (
        Step(("M",), r"slots used(.|\n)*█"),
        Step(("d",), r"slots freed"),
        Step(("q",), r"← here", r"slots used"),
    ),
    "find a message among all conversations": (
        Step(("C-g",), r"Search everything"),
        Step(("known",), r"Search everything(.|\n)*What is it known"),
        Step(("Enter",), r"← here", r"Search everything"),
        Step(("Tab",), r"You(.|\n)*What is it known", r"← here"),
    ),
}


def test_fifteen_tasks(tmp_path, default_model) -> None:
    assert len(TASKS) == 15
    (tmp_path / "CONFIG").mkdir()
    (tmp_path / "CONFIG" / "config.toml").write_text(CONFIG)
    path = tmp_path / "tree.db"
    folders = {f"TREECHAT_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CONFIG")}
    command = [sys.executable, "-m", "treechat", "--db", str(path)]
    terminal = Terminal(f"treechat-tasks-{os.getpid()}", command, folders | {"HF_HUB_OFFLINE": "1"})
    try:
        terminal.until(lambda: "slots" in terminal.screen())
        for task, steps in TASKS.items():
            for number, step in enumerate(steps):
                for keys in step.keys:
                    terminal.keys(keys)
                try:
                    terminal.until(lambda step=step: _holds(terminal.screen(), step))
                except AssertionError as error:
                    raise AssertionError(f"{task}, step {number}: {step}\n{error}") from None
        terminal.keys("C-q")
        terminal.until(lambda: not terminal.is_open())
    finally:
        terminal.close()
    with Store.open(path) as store:
        (info,) = store.conversations()
        tree = store.load_tree(info.id)
        roots = [tree[node_id].preview for node_id in tree.roots]
        assert roots[:2] == ["Name a town by the sea.", "Name a town by the sea. Be brief."]
        assert len(tree.children(tree.roots[0])) == 4
        assert not any(node.status in ("streaming", "failed") for node in tree.nodes.values())
        assert [node.label for node in tree.nodes.values() if node.bookmarked] == ["brief answers"]
        assert store.verify() == []


def _holds(screen: str, step: Step) -> bool:
    return bool(re.search(step.shown, screen)) and not re.search(step.gone, screen)
