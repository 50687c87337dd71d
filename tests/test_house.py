"""The limits of the house: sizes, inheritance, private names, folders, names, and no circle of imports.

Each rule is a function from parsed sources to findings, so the tests at the end can show that it finds something.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("treechat", "engine", "kernels", "tests", "assets")
MAX_LINES = 450
MAX_MODULES = 20
MAX_BASES = 2
"""A class inherits through at most this number of our own classes."""

NAMEDTUPLE_NAMES = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}
SAYS_NOTHING = {
    "asides", "base", "beside", "computed", "kept", "making", "over", "pieces", "plain", "state", "told", "typed",
}  # fmt: skip
"""No module or class has one of these names: participles and adverbs name no thing."""
AMBIGUOUS = {
    "choices", "context", "drawing", "events", "graphs", "memory", "paths", "runs", "siblings", "structure",
}  # fmt: skip
"""One module of a package may have such a name: two would mean different things."""
ONCE = {"Key", "Choice", "Row", "Rows"}
"""Class names that may be used once at most: each would mean another thing in each file."""


@dataclass(frozen=True)
class Source:
    """One file: its path below the root, and its text."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def module(self) -> str:
        """The name under which it is imported."""
        parts = list(self.path.with_suffix("").parts)
        if parts[0] in ("engine", "kernels"):
            parts.pop(0)
        if parts[-1] == "__init__":
            parts.pop()
        return ".".join(parts)

    @property
    def package(self) -> str:
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]

    @property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@cache
def sources() -> tuple[Source, ...]:
    """All Python files of the project."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return tuple(Source(PurePosixPath(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths)


def too_long(files: Iterable[Source]) -> Iterator[str]:
    """A file is one idea."""
    for source in files:
        if (num := source.text.count("\n")) > MAX_LINES:
            yield f"{source.path}:{MAX_LINES}: {num} lines, more than {MAX_LINES}: cut it into two ideas"


def inherits_deeply(files: Iterable[Source]) -> Iterator[str]:
    """A class is never continued in another file, so inheritance stays shallow."""
    files = list(files)
    bases: dict[str, set[str]] = defaultdict(set)
    for source in files:
        for each in source.classes:
            bases[each.name] |= {name for base in each.bases if (name := _last_name(base)) is not None} - {each.name}

    def chain(name: str, seen: tuple[str, ...] = ()) -> list[str]:
        found = [chain(base, (*seen, name)) for base in bases[name] if base in bases and base not in seen]
        return [name, *max(found, key=len, default=[])]

    for source in files:
        for each in source.classes:
            if len(path := chain(each.name)) > MAX_BASES + 1:
                yield (
                    f"{source.at(each)}: {' > '.join(path)} inherits through more than {MAX_BASES} of our classes: "
                    "hold an object in place of a base class"
                )


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name != "_"


def private_names_of(source: Source) -> set[str]:
    """The private names that a file defines: functions, classes, variables, attributes of self, parameters' fields."""
    found = set()
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            found.add(node.attr)
    return found


def _is_own(node: ast.expr) -> bool:
    """Whether an expression is self, cls or super()."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_private_names(files: Iterable[Source]) -> Iterator[str]:
    """A private name is used in its own file only."""
    files = list(files)
    ours = {name for source in files for name in private_names_of(source)}
    for source in files:
        own = private_names_of(source)
        for node in source.nodes:
            if isinstance(node, ast.ImportFrom):
                is_ours = node.level or (node.module or "").partition(".")[0] in TOP_PACKAGES
                names = [each.name for each in node.names if is_ours and is_private(each.name)]
            elif isinstance(node, ast.Attribute) and not _is_own(node.value):
                is_known = node.attr in own or node.attr in NAMEDTUPLE_NAMES or node.attr not in ours
                names = [] if is_known or not is_private(node.attr) else [node.attr]
            else:
                continue
            for name in names:
                yield f"{source.at(node)}: {name} is private to another file: give it a public name, or do without it"


TOP_PACKAGES = ("treechat", "treechat_engine", "treechat_kernels", "tests")


def crowded_folders(files: Iterable[Source]) -> Iterator[str]:
    """A folder of many modules has rooms."""
    paths = [source.path for source in files if source.path.name not in ("__init__.py", "conftest.py")]
    parents = {folder for path in paths for folder in path.parent.parents}
    for folder, num in Counter(path.parent for path in paths).items():
        if num > MAX_MODULES and folder not in parents:
            yield f"{folder}:1: {num} modules side by side, more than {MAX_MODULES}: give the folder rooms"


def bad_names(files: Iterable[Source]) -> Iterator[str]:
    """A name says what the thing is."""
    first: dict[tuple[str, str], PurePosixPath] = {}
    for source in files:
        package, name = source.path.parts[0], source.path.stem
        if package != "tests" and name in SAYS_NOTHING:
            yield f"{source.path}:1: the module's name says nothing: name what it holds"
        if package != "tests" and name in AMBIGUOUS:
            other = first.setdefault((package, name), source.path)
            if other != source.path:
                yield f"{source.path}:1: {other} has the same name: say whose {name} the module holds"
        for each in source.classes:
            if each.name.lower() in SAYS_NOTHING:
                yield f"{source.at(each)}: class {each.name} says nothing: use a noun for what it is"


def repeated_classes(files: Iterable[Source]) -> Iterator[str]:
    """Some class names would mean another thing in each file."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in files:
        for each in source.classes:
            if each.name in ONCE:
                found[each.name].append(source.at(each))
    for name, places in found.items():
        for place in places[1:]:
            yield f"{place}: class {name} is also in {places[0]}: say whose {name.lower()} it is"


def circles(files: Iterable[Source]) -> Iterator[str]:
    """No module imports itself through others, imports for type checkers and inside functions left out."""
    by_name = {source.module: source for source in files}
    imports = {name: _imported(source, by_name) for name, source in by_name.items()}
    for group in _strongly_connected(imports):
        if len(group) > 1:
            first = by_name[min(group)]
            yield f"{first.path}:1: a circle of imports: {', '.join(sorted(group))}: move what they share below them"


def _imported(source: Source, known: dict[str, Source]) -> set[str]:
    """The modules that one loads when it is imported."""
    found = set()
    for node in _loaded(source.tree.body):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = source.package.split(".")[: len(source.package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join(filter(None, [*above, node.module]))
            modules = {f"{module}.{each.name}" for each in node.names}
            found |= (modules & known.keys()) or {module}
    return (found & known.keys()) - {source.module}


def _loaded(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import, without those for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _loaded(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from _loaded(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _loaded(handler.body)


def _strongly_connected(edges: dict[str, set[str]]) -> Iterator[set[str]]:
    """Tarjan's algorithm (1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> Iterator[set[str]]:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in edges[name]:
            if other not in number:
                yield from visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            at = stack.index(name)
            yield set(stack[at:])
            del stack[at:]

    for name in edges:
        if name not in number:
            yield from visit(name)


Rule = Callable[[Iterable[Source]], Iterator[str]]
RULES: tuple[Rule, ...] = (
    too_long,
    inherits_deeply,
    foreign_private_names,
    crowded_folders,
    bad_names,
    repeated_classes,
    circles,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    assert not (found := "\n".join(rule(sources()))), f"\n{found}"


def example(**files: str) -> list[Source]:
    """Sources of a package; two underscores in a name separate folder and file."""
    return [
        Source(PurePosixPath("treechat", *name.split("__")).with_suffix(".py"), text) for name, text in files.items()
    ]


@pytest.mark.parametrize(
    ("rule", "files", "expected"),
    [
        (too_long, {"long": "x = 1\n" * 451}, "treechat/long.py:450: 451 lines"),
        (
            inherits_deeply,
            {"a": "class A: pass\nclass B(A): pass\n", "b": "class C(B): pass\nclass D(x.C[int]): pass\n"},
            "treechat/b.py:2: D > C > B > A",
        ),
        (foreign_private_names, {"a": "_x = 1\n", "b": "import a\nprint(a._x)\n"}, "treechat/b.py:2: _x"),
        (foreign_private_names, {"a": "", "b": "from treechat.a import _y\n"}, "treechat/b.py:1: _y"),
        (
            foreign_private_names,
            {"a": "class A:\n    def __init__(self):\n        self._z = 1\n", "b": "def f(a):\n    a._z = 2\n"},
            "treechat/b.py:2: _z",
        ),
        (crowded_folders, {f"room__m{n}": "" for n in range(21)}, "treechat/room:1: 21 modules"),
        (bad_names, {"kept": ""}, "treechat/kept.py:1"),
        (bad_names, {"a__siblings": "", "b__siblings": ""}, "treechat/b/siblings.py:1: treechat/a/siblings.py has"),
        (bad_names, {"a": "\nclass Pieces: pass\n"}, "treechat/a.py:2: class Pieces"),
        (repeated_classes, {"a": "class Row: pass\n", "b": "class Row: pass\n"}, "treechat/b.py:1: class Row"),
        (
            circles,
            {"a": "from treechat.b import x\n", "b": "from treechat import c\n", "c": "import treechat.a\n"},
            "treechat/a.py:1: a circle of imports: treechat.a, treechat.b, treechat.c",
        ),
        (
            circles,
            {"a": "from .b import x\n", "b": "try:\n    from .a import y\nfinally:\n    pass\n"},
            "treechat.a, tree",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_rule_finds_what_it_forbids(rule: Rule, files: dict[str, str], expected: str) -> None:
    (found,) = rule(example(**files))
    assert expected in found


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (too_long, {"long": "x = 1\n" * 450}),
        (inherits_deeply, {"a": "class A: pass\nclass B(A): pass\nclass C(B, Protocol): pass\n"}),
        (
            foreign_private_names,
            {"a": "class A:\n    _x = 1\n    def f(self, other):\n        return other._x, self.row._replace(a=1)\n"},
        ),
        (foreign_private_names, {"a": "import sys\nsys._getframe()\nfrom os import _exit\nx.__class__\n"}),
        (crowded_folders, {f"room__m{n}": "" for n in range(20)}),
        (bad_names, {"tree": "class Node: pass\n", "siblings": ""}),
        (repeated_classes, {"a": "class Row: pass\n", "b": "class TreeRow: pass\n"}),
        (
            circles,
            {
                "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from treechat.b import x\n",
                "b": "import treechat.a\n",
            },
        ),
        (circles, {"a": "def f():\n    import treechat.b\n", "b": "import treechat.a\n"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_rule_lets_pass_what_it_allows(rule: Rule, files: dict[str, str]) -> None:
    assert not list(rule(example(**files)))
