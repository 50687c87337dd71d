"""Every binding has a name and a help text, no key has two bindings in one place, and the README lists all."""

from __future__ import annotations

import importlib
import pkgutil
import runpy
from pathlib import Path

import pytest
from textual.dom import DOMNode
from textual.widgets import Input, TextArea

import treechat.tui
from treechat.tui.bindings import KEYS, SECTIONS

ROOT = Path(__file__).resolve().parents[3]


def test_each_binding_has_a_name_and_help() -> None:
    for key in KEYS:
        assert key.title and key.tooltip and key.binding.tooltip == key.tooltip, key.id
    assert len({key.id for key in KEYS}) == len(KEYS)


def test_each_screen_and_widget_binds_from_the_table_alone() -> None:
    for module in pkgutil.walk_packages(treechat.tui.__path__, "treechat.tui."):
        importlib.import_module(module.name)
    bound = [
        kind for kind in _subclasses(DOMNode) if kind.__module__.startswith("treechat.tui") and "BINDINGS" in vars(kind)
    ]
    assert len(bound) > 10
    known = {key.binding.id: key.binding for key in KEYS}
    for kind in bound:
        for binding in kind.BINDINGS:
            assert known.get(binding.id) == binding, f"{kind.__name__}: {binding}"


@pytest.mark.parametrize("place", ["settings", "list", "import"])
def test_a_field_takes_no_key_of_its_window(place) -> None:
    fields = [Input, TextArea] if place == "settings" else [Input]
    taken = {name: kind for kind in fields for binding in kind.BINDINGS for name in binding.key.split(",")}
    for key in KEYS:
        for name in key.keys.split(","):
            # A field reports enter to its screen.
            assert key.place != place or name not in taken or name == "enter", f"{name}: {key.id} and {taken[name]}"


def _subclasses(kind: type) -> set[type]:
    below = set(kind.__subclasses__())
    return below.union(*map(_subclasses, below)) if below else below


WINDOWS = sorted({key.place for key in KEYS} - {"panes", "composer", "everywhere"})


@pytest.mark.parametrize(
    "together", [("panes", "everywhere"), ("composer", "everywhere"), *((window,) for window in WINDOWS)]
)
def test_no_key_is_bound_twice_in_one_place(together) -> None:
    taken: dict[str, str] = {}
    for key in KEYS:
        if key.place in together:
            for name in key.keys.split(","):
                assert name not in taken, f"{name}: {key.id} and {taken[name]}"
                taken[name] = key.id


def test_keys_that_terminals_do_not_send_are_not_bound() -> None:
    for key in KEYS:
        for name in key.keys.split(","):
            assert name not in ("ctrl+enter", "ctrl+tab", "ctrl+i", "ctrl+m", "ctrl+h"), key.id
            assert not name.startswith("alt+"), key.id


def test_the_readme_lists_each_binding_as_it_is() -> None:
    made = runpy.run_path(str(ROOT / "assets" / "make_key_table.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert made["filled"](readme) == readme, "run python assets/make_key_table.py"
    assert all(title in readme for title in SECTIONS)
    assert all(key.tooltip in readme for key in KEYS if not key.id.startswith("count."))
