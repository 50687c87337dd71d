"""Print figures of the code's structure, for the working tree or for the commits that are named.

    python -m tests.house.figures [REV ...] [--json]

- depth: the longest chain of our own classes from the window's class upwards, itself included.
- members across files: uses of `self.name` in one file of the window's class, where another file defines the name;
  of these, `beside`: uses of a name that no base of the using class defines.
- modules per folder: the folders with the most modules.
- words per 1,000 of docstrings and comments: how often each word of the old dialect occurs.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.house.sources import docstrings, sources

WORDS = ("where", "what", "in sight", "told", "behind")
WINDOW = "TreechatApp"

Classes = dict[str, tuple[str, ast.ClassDef]]
"""Class name to its file and its definition."""


def classes_of(trees: dict[str, ast.Module]) -> Classes:
    """The classes of treechat.tui, by name."""
    return {
        node.name: (path, node)
        for path, tree in trees.items()
        if path.startswith("treechat/tui/")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def bases(name: str, classes: Classes) -> list[str]:
    """Our own classes that a class names as its bases, subscripts such as `Base[int]` included."""
    found = []
    for base in classes[name][1].bases:
        node = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(node, ast.Name) and node.id in classes:
            found.append(node.id)
    return found


def depth(name: str, classes: Classes) -> int:
    return 1 + max((depth(base, classes) for base in bases(name, classes)), default=0)


def ancestors(name: str, classes: Classes) -> set[str]:
    """The class and all of our classes that it inherits from."""
    return {name}.union(*(ancestors(base, classes) for base in bases(name, classes)))


def members(cls: ast.ClassDef) -> set[str]:
    """Methods, class attributes and attributes that a method assigns to `self`."""
    names = {node.name for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {
        node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    names |= {
        t.id for node in cls.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    }
    return names | {name for name, is_store in self_uses(cls) if is_store}


def self_uses(cls: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """Every `self.name` in a class, and whether it is assigned."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr, isinstance(node.ctx, ast.Store)


def words_of(text: str, tree: ast.Module) -> Iterator[str]:
    """Docstrings and comments of a module."""
    for node in docstrings(tree):
        yield str(node.value.value)  # type: ignore[attr-defined]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")


def figures(rev: str | None) -> dict[str, Any]:
    texts = sources(rev)
    trees = {path: ast.parse(text) for path, text in texts.items()}
    classes = classes_of(trees)
    window = ancestors(WINDOW, classes)
    defined = {name: members(classes[name][1]) for name in window}
    across = beside = 0
    for name in window:
        path, cls = classes[name]
        here = set().union(*(defined[other] for other in window if classes[other][0] == path))
        above = set().union(*(defined[other] for other in ancestors(name, classes)))
        everywhere = set().union(*defined.values())
        for used, _ in self_uses(cls):
            if used in everywhere and used not in here:
                across += 1
                beside += used not in above
    folders = Counter(path.rpartition("/")[0] for path in texts if not path.endswith("__init__.py"))
    prose = " ".join(part for path, text in texts.items() for part in words_of(text, trees[path])).lower()
    num_words = len(re.findall(r"[a-z']+", prose))
    return {
        "rev": rev or "working tree",
        "depth": depth(WINDOW, classes),
        "window_classes": len(window),
        "window_files": len({classes[name][0] for name in window}),
        "window_members": len(set().union(*defined.values())),
        "members_across_files": across,
        "members_beside": beside,
        "modules_per_folder": dict(folders.most_common(12)),
        "longest_file": max((text.count("\n"), path) for path, text in texts.items()),
        "prose_words": num_words,
        "dialect_per_1000": {
            word: round(1000 * len(re.findall(rf"\b{word}\b", prose)) / num_words, 2) for word in WORDS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revs", nargs="*")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [figures(rev) for rev in options.revs or [None]]
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for name in results[0]:
        print(f"{name:22}", *(result[name] for result in results), sep="\n    ")


if __name__ == "__main__":
    main()
