"""The Python files of one commit or of the working tree."""

from __future__ import annotations

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> bytes:
    """The standard output of a git command. Raises CalledProcessError."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def sources(rev: str | None) -> dict[str, str]:
    """The text of every Python file by path. rev: None reads the working tree."""
    if rev is None:
        names = git("ls-files", "--cached", "--others", "--exclude-standard", "*.py").decode().split("\n")
        return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if name and (ROOT / name).exists()}
    with tarfile.open(fileobj=io.BytesIO(git("archive", rev))) as archive:
        members = [member for member in archive if member.isfile() and member.name.endswith(".py")]
        return {member.name: archive.extractfile(member).read().decode() for member in members}  # type: ignore[union-attr]


def docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    """Every string that is a whole statement: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child
