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
        """A conversation that **branches**: it continues in several ways from here. You cannot break anything, so try
every key on it.

- {app.focus} moves the focus from the composer, where you write, to the tree, and then to this text. {app.stop} goes
  back.
- In the tree, {move.next} and {move.previous} go from row to row. A row is a chain of messages without a fork.
- {move.jump} jumps to a row: your next message goes below it.

Go to the tree now and walk down: each row is a chapter. {app.help} lists all keys.""",
    ),
    ("fork", "welcome", "user", "forking", False, "How do I make branches?"),
    (
        "forking",
        "fork",
        "assistant",
        None,
        False,
        """Each change makes a branch, and the old branch stays next to it:

- {do.edit} on any message edits it: the edit is a new sibling of the old message.
- {do.regenerate} on a reply generates another one. `3` and then {do.regenerate} generates three in one batch.
- {do.split} forks in the middle of a message. {do.continue} continues a reply that was cut off.
- {do.tokens} shows a reply token by token: the probability of each token and its alternatives. {token.fork} forks at a
  token and continues with an alternative.

This reply has a sibling. {move.next_sibling} goes to it. {do.compare} compares two branches word by word.""",
    ),
    (
        "forking-2",
        "fork",
        "assistant",
        None,
        False,
        """You are on the second reply to the same question: `⋔ 2/2` next to its name marks the fork.

These keys keep branches in order:

- {do.bookmark} sets a bookmark ★, {do.next_bookmark} goes to the next one.
- {do.label} gives a message a name, like those of the chapters here.
- {do.hide} hides a branch. {do.undo} undoes that, {do.redo} redoes it. Nothing is lost.""",
    ),
    ("warm", "welcome", "user", "the signs ● and ○", False, "What do the circles in the tree mean?"),
    (
        "warming",
        "warm",
        "assistant",
        None,
        False,
        """They show where the *keys and values* (KV) of a branch are, which the model has computed for it.

- `●` in device memory: the branch continues at once.
- `◐` partly, or in host memory.
- `○` cold: the KV has to be computed again; the row shows the estimated time.

The line at the bottom shows the same for the row under the cursor, in tokens. If the cursor stays on a cold row, the
branch is warmed. {do.warm} warms it now, and {do.protect} keeps its KV longer than that of others. Branches share their
common prefix, so ten branches cost little more than one.""",
    ),
    ("more", "welcome", "user", "everything else", False, "What else is there?"),
    (
        "everything",
        "more",
        "assistant",
        None,
        False,
        """- {app.settings} sets the system prompt and the sampling, for this conversation or one reply; also presets.
- {app.model} changes the model while the app runs. The new model can continue the replies of another one.
- {do.details} shows the model, seed, tokens and times of a reply.
- {do.export} exports, {do.copy} copies, {do.editor} opens your own editor.
- {app.new} starts a conversation, {app.open} opens another one, {app.rename} renames this one.
- `ctrl+p` opens the palette: all actions by name.

On the command line, `treechat ask "…"` stores question and answer in the same trees, `treechat import FILE` imports
your conversations from other programs, and `treechat --help` lists all commands.

Write something below and press `enter`: your message is the next branch of this tour.""",
    ),
    # Last, because the tree shows the newest of several branches first.
    ("move", "welcome", "user", "moving", False, "How do I move around?"),
    (
        "moving",
        "move",
        "assistant",
        None,
        False,
        """The same keys work in the tree and in the text:

| key | goes to |
| --- | --- |
| {move.parent} · {move.child} | the previous message, and the next one on the branch visited last |
| {move.next_sibling} · {move.previous_sibling} | the siblings of this message |
| {move.previous_fork} · {move.next_fork} | the fork above, and the fork below |
| {move.root} · {move.leaf} | the start, and the end of this branch |
| {move.here} | the current message, which your next message goes below |
| {move.back} | the message before the last jump |

{move.find} searches this conversation, {app.search_all} searches all. {move.fold} folds a row, {move.hoist} shows only
the subtree of a row, {move.filter} shows only forks, bookmarks, or warm branches.""",
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
