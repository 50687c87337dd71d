"""Databases for tests/bench/ui.py: many conversations, or one that is deep, wide or of long branches. A long reply."""

from __future__ import annotations

import random
from pathlib import Path

from treechat.store import NewNode, Store

WORDS = (
    *("museum", "train", "ticket", "river", "bridge", "garden", "quiet", "morning", "coffee", "window", "letter"),
    *("harbour", "island", "engine", "branch", "memory", "paper", "winter", "summer", "kitchen", "recipe", "light"),
)
TURNS = ("user", "assistant")


def paragraph(rng: random.Random, num_words: int) -> str:
    words = [rng.choice(WORDS) for _ in range(num_words)]
    words[num_words // 2] = f"**{words[num_words // 2]}**"
    return " ".join(words).capitalize() + "."


def many(path: Path, num_conversations: int, num_nodes: int) -> None:
    """Write conversations of `num_nodes` nodes each, with a fork at about every eighth node."""
    rng = random.Random(1)
    with Store.open(path) as store:
        for number in range(num_conversations):
            conversation = store.create_conversation(f"{rng.choice(WORDS)} {rng.choice(WORDS)} {number}")
            rows: list[NewNode] = []
            for i in range(num_nodes):
                above = i - 1 if i < 2 or rng.random() > 0.12 else rng.randrange(i - 1)
                parent_id = f"n{number}-{above}" if i else None
                text = paragraph(rng, rng.randrange(5, 60))
                rows.append(NewNode(parent_id, TURNS[i % 2], text, id=f"n{number}-{i}"))
            store.add_nodes(conversation.id, rows)


def branching(path: Path, num_branches: int, num_nodes: int) -> None:
    """Write one conversation: branches of `num_nodes` messages each below the first message."""
    rng = random.Random(2)
    with Store.open(path) as store:
        conversation = store.create_conversation("long branches")
        rows = [NewNode(None, "user", "Where to?", id="root")]
        for branch in range(num_branches):
            for i in range(num_nodes):
                parent_id = f"b{branch}-{i - 1}" if i else "root"
                text = "\n\n".join(paragraph(rng, 40) for _ in range(2)) + "\n\n- one\n- `two`\n"
                rows.append(NewNode(parent_id, TURNS[(i + 1) % 2], text, id=f"b{branch}-{i}"))
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "b0-0")


def chain(path: Path, num_nodes: int) -> None:
    """Write one conversation without a fork, as from an import. The last node is current."""
    rng = random.Random(3)
    with Store.open(path) as store:
        conversation = store.create_conversation("a chain")
        rows = []
        for i in range(num_nodes):
            text = paragraph(rng, rng.randrange(5, 60)) if i < num_nodes - 1 else "the last one"
            rows.append(NewNode(f"n{i - 1}" if i else None, TURNS[i % 2], text, id=f"n{i}"))
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, f"n{num_nodes - 1}")


def wide(path: Path, num_siblings: int) -> None:
    """Write one message with `num_siblings` replies and a message below each. The middle one is current."""
    rng = random.Random(4)
    current = num_siblings // 2
    with Store.open(path) as store:
        conversation = store.create_conversation("many siblings")
        rows = [NewNode(None, "user", "Where to?", id="root")]
        for i in range(num_siblings):
            rows.append(NewNode("root", "assistant", paragraph(rng, rng.randrange(5, 60)), id=f"a{i}"))
            rows.append(NewNode(f"a{i}", "user", "the last one" if i == current else "Why?", id=f"b{i}"))
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, f"b{current}")


def long_reply(num_chars: int) -> str:
    """Return Markdown of about `num_chars` characters: paragraphs, lists and code blocks."""
    rng = random.Random(5)
    parts: list[str] = []
    while sum(map(len, parts)) < num_chars:
        code = "\n".join(f"    {rng.choice(WORDS)} = {rng.choice(WORDS)}({number})" for number in range(12))
        parts.append(
            f"{paragraph(rng, 60)}\n\n- one\n- `two`\n\n```python\ndef {rng.choice(WORDS)}():\n{code}\n```\n\n"
        )
    return "".join(parts)
