"""The tour is part of the package, is made from the bindings, and is imported once."""

from __future__ import annotations

import runpy
from importlib.resources import files
from pathlib import Path

from treechat.store import Store
from treechat.transfer.tour import open_tour
from treechat.tui.bindings import KEYS

ROOT = Path(__file__).resolve().parents[3]


def test_the_tour_is_the_output_of_the_script() -> None:
    made = runpy.run_path(str(ROOT / "assets" / "make_tour.py"))
    text = files("treechat").joinpath("assets/tour.jsonl").read_text(encoding="utf-8")
    assert "".join(made["lines"]()) == text, "run python assets/make_tour.py"
    named = {key.id for key in KEYS if any("{" + key.id + "}" in message[-1] for message in made["MESSAGES"])}
    assert {"app.focus", "move.jump", "do.regenerate", "do.tokens", "do.undo", "app.settings"} <= named


def test_the_tour_opens_at_its_root_and_is_imported_once() -> None:
    with Store.open(None) as store:
        conversation_id = open_tour(store)
        tree = store.load_tree(conversation_id)
        assert store.repairs == []
        assert len(tree.roots) == 1
        assert sum(tree.is_fork(node_id) for node_id in tree.walk()) >= 2
        assert store.conversation(conversation_id).current_id == tree.children(tree.roots[0])[0]
        store.set_label(tree.roots[0], "mine")
        assert open_tour(store) == conversation_id
        assert len(store.conversations()) == 1
        assert store.load_tree(conversation_id)[tree.roots[0]].label == "mine"


def test_a_deleted_tour_is_imported_again() -> None:
    with Store.open(None) as store:
        first = open_tour(store)
        store.hide_conversation(first)
        second = open_tour(store)
        assert [info.id for info in store.conversations()] == [second]
        assert len(store.load_tree(second)) == len(store.load_tree(first))
