"""Compare syntax trees without docstrings, to show that a commit changes only words.

    python -m tests.house.syntax FROM TO            the two commits, file by file
    python -m tests.house.syntax --english FROM TO  each commit between them whose subject begins with "English:"

Exits with 1 if a syntax tree differs.
"""

from __future__ import annotations

import argparse
import ast

from tests.house.sources import git, sources


def bare(source: str) -> str:
    """The syntax tree of a module without its docstrings and comments, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [each for each in statements if not is_string_statement(each)])
    return ast.dump(tree)


def is_string_statement(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def changed(before: dict[str, str], after: dict[str, str]) -> tuple[int, list[str]]:
    """Return how many files differ in text, and those of them that differ in their syntax tree."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return len(names), [name for name in names if bare(before.get(name, "")) != bare(after.get(name, ""))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english", action="store_true", help="only commits whose subject begins with English:")
    parser.add_argument("first")
    parser.add_argument("last")
    options = parser.parse_args()
    pairs = [(options.first, options.last)]
    if options.english:
        revs = git("log", "--reverse", "--format=%h", "--grep=^English:", f"{options.first}..{options.last}").decode()
        pairs = [(f"{rev}^", rev) for rev in revs.split()]
    num_files = num_bad = 0
    for before, after in pairs:
        num, bad = changed(sources(before), sources(after))
        num_files, num_bad = num_files + num, num_bad + len(bad)
        for name in bad:
            print(f"{after}: {name} differs in code")
    print(f"{len(pairs)} comparisons, {num_files} files with other text, {num_bad} with another syntax tree")
    return 1 if num_bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
