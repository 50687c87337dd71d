"""Write the tour of the package, with the keys of the bindings. Run `python assets/make_tour.py`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "engine"), str(ROOT / "kernels")]

from treechat.formats.document import Document, Message  # noqa: E402
from treechat.formats.native.writer import write_native  # noqa: E402
from treechat.tree import Conversation, Node, preview_of  # noqa: E402
from treechat.tui.bindings import KEYS  # noqa: E402
from treechat.tui.screens.help import key_labels  # noqa: E402

TARGET = ROOT / "treechat" / "assets" / "tour.jsonl"
TITLE = "A tour of treechat"
WRITTEN_AT = 1_760_000_000.0

# Name, parent's name, role, label, bookmarked, text. `{do.edit}` stands for the key of that binding.
MESSAGES: list[tuple[str, str | None, str, str | None, bool, str]] = [
    ("start", None, "user", None, False, "What is this?"),
    (
        "welcome",
        "start",
        "assistant",
        "start here",
        True,
        """A conversation, and it **branches**: this one goes on in several ways from here. Nothing in it can break, so
try every key on it.

- {app.focus} goes from the composer, where you write, to the tree, and on to this text. {app.stop} comes back.
- In the tree, {move.next} and {move.previous} go from row to row. A row is a stretch of conversation without a fork.
- {move.jump} makes a row the place where your next message goes.

Go to the tree now and walk down: each row is a chapter. {app.help} lists every key there is.""",
    ),
    ("fork", "welcome", "user", "forking", False, "How do I make branches?"),
    (
        "forking",
        "fork",
        "assistant",
        None,
        False,
        """Every way of changing something makes a branch, and what was there stays beside it:

- {do.edit} on a message of yours, or of the model: change it, and the new one stands beside the old.
- {do.regenerate} on a reply: another one. `3` and then {do.regenerate}: three more at once, from one computation.
- {do.split} forks in the middle of a message, {do.continue} goes on with a reply that was cut off.
- {do.tokens} walks through a reply token by token: how sure the model was, which other tokens were likely, and
  {token.fork} continues from there with another one.

This reply has a sibling. {move.next_sibling} goes to it; {do.compare} compares two branches word by word.""",
    ),
    (
        "forking-2",
        "fork",
        "assistant",
        None,
        False,
        """You are on the second reply to the same question: the fork is marked `⋔ 2/2` beside its name.

Branches need some order:

- {do.bookmark} sets a bookmark ★, {do.next_bookmark} goes to the next one.
- {do.label} gives a message a name, as the chapters here have.
- {do.hide} hides a branch. {do.undo} shows it again, {do.redo} hides it again. Nothing is lost.""",
    ),
    ("warm", "welcome", "user", "what ● and ○ say", False, "What do the circles in the tree say?"),
    (
        "warming",
        "warm",
        "assistant",
        None,
        False,
        """Where the *keys and values* of a branch are: what the model has computed of it.

- `●` in memory: going on there begins at once.
- `◐` in part, or in host memory.
- `○` cold: it has to be computed again, and the row says how long that takes.

The line at the bottom says the same of the row under the cursor, in tokens. Resting on a cold row warms it; {do.warm}
does it now, and {do.protect} has it kept longer than others. Branches share what they have in common, so ten cost
little more than one.""",
    ),
    ("more", "welcome", "user", "everything else", False, "What else is there?"),
    (
        "everything",
        "more",
        "assistant",
        None,
        False,
        """- {app.settings} sets the system prompt and the sampling, for this conversation or one reply; presets too.
- {app.model} changes the model while you work. You can continue what another model wrote.
- {do.details} shows the origin of a reply: model, seed, tokens, times.
- {do.export} exports, {do.copy} copies, {do.editor} opens your own editor.
- {app.new} begins a conversation, {app.open} opens another one, {app.rename} renames this one.
- `ctrl+p` is the palette: every action by its name.

On the command line, `treechat ask "…"` puts question and answer into the same trees, `treechat import FILE` brings your
conversations from elsewhere, and `treechat --help` lists the rest.

Write something below and press `enter`: that is the next branch of this tour.""",
    ),
    # Last, because the tree shows the newest of several branches first.
    ("move", "welcome", "user", "moving", False, "How do I move about?"),
    (
        "moving",
        "move",
        "assistant",
        None,
        False,
        """In the tree and in the text the same keys act:

| key | goes |
| --- | --- |
| {move.parent} · {move.child} | to the message before, and on along the branch visited last |
| {move.next_sibling} · {move.previous_sibling} | to the alternatives of this one, in place |
| {move.previous_fork} · {move.next_fork} | to the fork above, and below |
| {move.root} · {move.leaf} | to the beginning, and to the end of this branch |
| {move.here} | back to where your next message goes |
| {move.back} | back to where you were before a jump |

{move.find} searches this conversation, {app.search_all} all of them. {move.fold} folds a row, {move.hoist} shows only
what hangs on it, {move.filter} shows only forks, bookmarks, or what is warm.""",
    ),
]


def node_id(name: str) -> str:
    """The id of a message of that name; the same in each run."""
    return hashlib.sha256(f"treechat tour {name}".encode()).hexdigest()[:32]


def with_keys(text: str) -> str:
    """The text with the placeholders replaced by the first key of each binding."""
    for key in KEYS:
        label = key_labels(key.keys).split()[0]
        text = text.replace("{" + key.id + "}", f"`{label}`")
    assert "{" not in text, f"no such binding: {text[text.index('{') :][:40]}"
    return text


def lines() -> list[str]:
    """The tour as lines of the native format."""
    messages = []
    for index, (name, parent, role, label, bookmarked, text) in enumerate(MESSAGES):
        text = with_keys(text)
        parent_id = node_id(parent) if parent else None
        node = Node(node_id(name), parent_id, role, "complete", WRITTEN_AT + index, preview_of(text), label, bookmarked)
        messages.append(Message(node, text, labels=(label,) if label else ()))
    conversation = Conversation(node_id("tour"), TITLE, WRITTEN_AT, WRITTEN_AT, node_id("welcome"))
    return list(write_native([Document(conversation, messages)]))


if __name__ == "__main__":
    TARGET.write_text("".join(lines()), encoding="utf-8")
