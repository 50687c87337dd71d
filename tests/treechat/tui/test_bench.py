"""tests/bench/ui.py measures the app in a real terminal."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are POSIX")

from tests.bench.ui import lines, percentile, probe
from tests.bench.ui_trees import branching


def test_branches_are_timed_in_a_terminal(tmp_path) -> None:
    branching(tmp_path / "branches.db", 3, 10)
    measured = probe("branches", tmp_path / "branches.db", (100, 30))
    assert {name: len(values) for name, values in measured["seconds"].items()} == {
        "branch, first time": 2,
        "branch, again": 4,
    }
    assert all(0 < value < 30 for values in measured["seconds"].values() for value in values)


def test_the_table_says_what_the_json_says() -> None:
    row = {"what": "key", "num": 3, "median_s": 0.0123, "p95_s": 0.5, "max_s": 1.5}
    result = {"machine": "m", "commit": "c", "size": "80x24", "times": [row], "memory_bytes": {"app": 52_000_000}}
    text = "\n".join(lines(json.loads(json.dumps(result))))
    assert "12.3" in text
    assert "500.0" in text
    assert "1,500.0" in text
    assert "52" in text
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
