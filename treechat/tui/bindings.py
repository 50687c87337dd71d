"""Every key of the app in one table: the widgets bind from it, and the help screen and the palette are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

KeyPlace = Literal[
    "panes",
    "composer",
    "everywhere",
    "tokens",
    "split",
    "compare",
    "columns",
    "memory",
    "settings",
    "import",
    "list",
    "page",
]


@dataclass(frozen=True, slots=True)
class Key:
    """One binding. `id` is what the configuration's keymap names; `keys` is its default, comma-separated.

    place: "panes" are the tree and the transcript. in_palette: it makes sense without a key, as a command.
    """

    id: str
    keys: str
    action: str
    title: str
    tooltip: str
    place: KeyPlace = "panes"
    in_palette: bool = True

    @property
    def binding(self) -> Binding:
        # Every window can be left for good, those over the conversation too.
        priority = self.id == "app.quit"
        return Binding(self.keys, self.action, self.title, False, tooltip=self.tooltip, id=self.id, priority=priority)


MOVING = (
    Key("move.next", "j,down", "app.row(1)", "Next row", "The next row of the tree, or message", in_palette=False),
    Key("move.previous", "k,up", "app.row(-1)", "Previous row", "The row or message before", in_palette=False),
    Key("move.parent", "h,left", "app.parent", "Parent", "The message before this one on its branch"),
    Key("move.child", "l,right", "app.child", "Child", "The next message, on the branch visited last"),
    Key("move.next_sibling", "J,shift+down", "app.sibling(1)", "Next sibling", "The alternative after this one"),
    Key("move.previous_sibling", "K,shift+up", "app.sibling(-1)", "Previous sibling", "The alternative before"),
    Key("move.previous_fork", "left_square_bracket", "app.fork(-1)", "Previous fork", "Up to the fork above"),
    Key("move.next_fork", "right_square_bracket", "app.fork(1)", "Next fork", "Down to the fork below"),
    Key("move.root", "g,home", "app.root", "First message", "Where this tree begins"),
    Key("move.leaf", "G,end", "app.leaf", "Last message", "The end of this branch"),
    Key("move.here", "0", "app.here", "Current node", "Back to where the next message goes"),
    Key("move.back", "backspace", "app.jump_back", "Jump back", "Where you were before the last jump"),
    Key("move.jump", "enter", "app.jump", "Jump here", "Make it current; a turn of yours is also taken for editing"),
    Key("move.find", "slash,ctrl+f", "app.find", "Search", "Find a message of this conversation"),
    Key("move.filter", "f", "app.filter", "Filter", "Everything, forks only, my turns, bookmarked, warm"),
    Key("move.fold", "space", "app.fold", "Fold", "Hide or show what is below this row"),
    Key("move.unfold", "o", "app.unfold", "Thoughts", "Show or fold a message's thoughts, tool calls and results"),
    Key("move.hoist", "z", "app.hoist", "Hoist", "Show only what is below this row"),
    Key("move.unhoist", "Z", "app.unhoist", "Un-hoist", "Show the whole tree again"),
)
DOING = (
    Key("do.edit", "e", "app.edit", "Edit as a sibling", "Change this message; the old one stays beside it"),
    Key("do.editor", "E", "app.editor", "Edit in $EDITOR", "The same in your own editor"),
    Key("do.regenerate", "r", "app.regenerate", "Regenerate", "Another reply beside this one; 3 then r makes three"),
    Key("do.beside", "v", "app.columns", "Side by side", "The alternatives at this fork in columns"),
    Key("do.continue", "c", "app.resume", "Continue", "Go on from the last token of a stopped or cut-off reply"),
    Key("do.tokens", "t", "app.tokens", "Token view", "How sure the model was of each token, and fork at any"),
    Key("do.split", "s", "app.split", "Split", "Fork in the middle of this message"),
    Key("do.compare", "equals_sign", "app.compare", "Compare", "The branch under the cursor with the current one"),
    Key("do.graft", "C", "app.graft", "Copy branch", "Copy this branch under another message; u takes it back"),
    Key("do.rebase", "R", "app.rebase", "Replay turns", "Your turns from here on again elsewhere, with new replies"),
    Key("do.bookmark", "b", "app.bookmark", "Bookmark", "Mark this message with ★, or take the mark away"),
    Key("do.next_bookmark", "B", "app.next_bookmark", "Next bookmark", "Go to the next ★"),
    Key("do.label", "m", "app.label", "Label", "Give this message a name; its row shows it"),
    Key("do.hide", "d", "app.hide", "Hide", "Take this branch out of sight; u brings it back"),
    Key("do.undo", "u", "app.undo", "Undo", "Take back the last hide, label, bookmark, rename, copy or replay"),
    Key("do.redo", "ctrl+r", "app.redo", "Redo", "Do again what was undone"),
    Key("do.copy", "y", "app.copy", "Copy message", "By the terminal (OSC 52); to a file where it takes no copies"),
    Key("do.copy_code", "Y", "app.copy_code", "Copy code", "Copy the last code block of this message"),
    Key("do.pager", "P", "app.pager", "Open in $PAGER", "The whole text of this message, outside of the app"),
    Key("do.details", "D", "app.details", "Details", "Model, seed, sampling, tokens and times of this message"),
    Key("do.export", "x", "app.export", "Export", "Branch, subtree, conversation or all: Markdown, HTML, JSON, graphs"),
    Key("do.warm", "w", "app.warm", "Warm", "Compute this branch's KV now, at the lowest priority"),
    Key("do.protect", "p", "app.protect", "Protect", "Keep this branch's KV longer than others (◆); again lets it go"),
    Key("do.memory", "M", "app.memory", "Memory", "What the slots hold, by conversation and branch; free a branch"),
    Key("pane.help", "question_mark", "app.help", "Help", "All keys", in_palette=False),
    Key("pane.composer", "i", "app.compose_text", "Write", "To the composer", in_palette=False),
)
COUNTS = tuple(
    Key(f"count.{n}", str(n), f"app.count({n})", f"{n} replies", f"Then r: {n} replies in one batch", in_palette=False)
    for n in range(2, 10)
)
COMPOSING = (
    Key("composer.send", "enter", "submit", "Send", "Send the message", "composer", in_palette=False),
    Key("composer.newline", "ctrl+j", "newline", "New line", "A new line in the message", "composer", in_palette=False),
    Key("composer.recall", "up", "recall", "Edit last", "In an empty composer: your last turn", "composer", False),
)
EVERYWHERE = (
    Key(
        "app.stop", "escape", "app.escape", "Stop", "Stop a reply or a load, what came stays; twice: tree", "everywhere"
    ),
    Key("app.focus", "tab", "app.cycle_focus(1)", "Next part", "Composer, tree, transcript", "everywhere", False),
    Key("app.focus_back", "shift+tab", "app.cycle_focus(-1)", "Part before", "The other way", "everywhere", False),
    Key("app.new", "ctrl+n,f8", "app.new", "New conversation", "Start an empty tree", "everywhere"),
    Key("app.open", "ctrl+o", "app.open", "Open conversation", "Choose among all conversations", "everywhere"),
    Key("app.search_all", "ctrl+g", "app.search_all", "Search everything", "Find in all conversations", "everywhere"),
    Key("app.rename", "f2", "app.rename", "Rename", "Another title for this conversation", "everywhere"),
    Key("app.settings", "f3", "app.settings", "Settings", "System prompt and sampling, here or once", "everywhere"),
    Key("app.model", "f4", "app.model", "Model", "Another model; this one works until it is up", "everywhere"),
    Key("app.import", "f5", "app.import", "Import", "A file, zip or folder of another program's chats", "everywhere"),
    Key("app.help", "f1", "app.help", "Help", "This list of keys", "everywhere"),
    Key("app.quit", "ctrl+q", "app.quit", "Quit", "A reply that is being written is kept", "everywhere"),
)
SETTING = (
    Key("settings.keep", "enter,ctrl+s", "screen.keep", "Keep", "For this conversation from now on", "settings", False),
    Key("settings.once", "ctrl+t,f8", "screen.once", "Once", "For the next reply only", "settings", False),
    Key("settings.model", "f4", "screen.model", "Models", "Choose this conversation's model", "settings", False),
    Key("settings.preset", "ctrl+o", "screen.preset", "Presets", "Take a preset's values", "settings", False),
    Key("settings.save", "f2", "screen.save", "Save preset", "Into the configuration file", "settings", False),
    Key("settings.close", "escape", "screen.close", "Close", "Nothing is changed", "settings", False),
)
TOKENS = (
    Key("token.next", "l,right", "screen.token(1)", "Next token", "Its alternatives are looked up", "tokens", False),
    Key("token.previous", "h,left", "screen.token(-1)", "Previous token", "The token before", "tokens", False),
    Key("token.down", "J,shift+down", "screen.line(1)", "Line below", "The same place, a line down", "tokens", False),
    Key("token.up", "K,shift+up", "screen.line(-1)", "Line above", "The same place, a line up", "tokens", False),
    Key("token.next_doubt", "n", "screen.doubt(1)", "Next doubt", "The next token below 50%", "tokens", False),
    Key("token.previous_doubt", "N", "screen.doubt(-1)", "Doubt before", "The one before", "tokens", False),
    Key("token.other", "j,down", "screen.choice(1)", "Alternative", "The next less likely one", "tokens", False),
    Key("token.other_up", "k,up", "screen.choice(-1)", "Likelier one", "The alternative above", "tokens", False),
    Key("token.first", "g,home", "screen.edge(-1)", "First token", "Where the reply begins", "tokens", False),
    Key("token.last", "G,end", "screen.edge(1)", "Last token", "Where the reply ends", "tokens", False),
    Key("token.fork", "enter", "screen.fork", "Fork here", "A sibling with the alternative, going on", "tokens", False),
    Key("token.close", "escape,q,t", "screen.close", "Close", "Back to the conversation", "tokens", False),
)
SPLITTING = (
    Key("split.next", "l,right", "screen.word(1)", "Next word", "Keep a word more", "split", False),
    Key("split.previous", "h,left", "screen.word(-1)", "Previous word", "Keep a word less", "split", False),
    Key("split.down", "j,down", "screen.line(1)", "Line below", "Keep a line more", "split", False),
    Key("split.up", "k,up", "screen.line(-1)", "Line above", "Keep a line less", "split", False),
    Key("split.first", "g,home", "screen.edge(-1)", "First word", "Keep the first word only", "split", False),
    Key("split.last", "G,end", "screen.edge(1)", "Last word", "Keep all but the last word", "split", False),
    Key("split.here", "enter", "screen.split", "Split here", "A sibling that begins with what is kept", "split", False),
    Key("split.close", "escape,q,s", "screen.close", "Close", "Back to the conversation", "split", False),
)
COMPARING = (
    Key("compare.down", "j,down", "screen.line(1)", "Down", "A line down", "compare", False),
    Key("compare.up", "k,up", "screen.line(-1)", "Up", "A line up", "compare", False),
    Key("compare.page_down", "space,pagedown", "screen.page(1)", "Page down", "A page down", "compare", False),
    Key("compare.page_up", "b,pageup", "screen.page(-1)", "Page up", "A page up", "compare", False),
    Key("compare.first", "g,home", "screen.edge(-1)", "Start", "Where the branches part", "compare", False),
    Key("compare.last", "G,end", "screen.edge(1)", "End", "Where the longer one ends", "compare", False),
    Key("compare.next", "n", "screen.difference(1)", "Next difference", "The next turn that differs", "compare", False),
    Key("compare.previous", "N", "screen.difference(-1)", "Difference before", "The one before", "compare", False),
    Key("compare.jump", "enter", "screen.jump", "Jump", "Make the other branch current", "compare", False),
    Key("compare.close", "escape,q,equals_sign", "screen.close", "Close", "Back to the conversation", "compare", False),
)
COLUMNS = (
    Key("columns.next", "l,right,tab", "screen.column(1)", "Next column", "The alternative after", "columns", False),
    Key("columns.previous", "h,left,shift+tab", "screen.column(-1)", "Column before", "Back", "columns", False),
    Key("columns.down", "j,down", "screen.line(1)", "Down", "A line of this column", "columns", False),
    Key("columns.up", "k,up", "screen.line(-1)", "Up", "A line up", "columns", False),
    Key("columns.page_down", "space,pagedown", "screen.page(1)", "Page down", "A page down", "columns", False),
    Key("columns.page_up", "b,pageup", "screen.page(-1)", "Page up", "A page up", "columns", False),
    Key("columns.first", "g,home", "screen.edge(-1)", "Start", "Where this alternative begins", "columns", False),
    Key("columns.last", "G,end", "screen.edge(1)", "End", "Where it ends, and along with it", "columns", False),
    Key("columns.stop", "s", "screen.stop", "Stop this one", "What came of it stays", "columns", False),
    Key("columns.only", "o", "screen.only", "Only this one", "Stop the others; what came stays", "columns", False),
    Key("columns.hide", "d", "screen.hide", "Hide this one", "Out of sight; undo brings it back", "columns", False),
    Key("columns.unfold", "t", "screen.unfold", "Thoughts", "Show or fold what it thought", "columns", False),
    Key("columns.promote", "enter", "screen.promote", "Promote", "Make it current; others stay", "columns", False),
    Key("columns.escape", "escape", "screen.escape", "Stop, close", "Stop all; again closes", "columns", False),
    Key("columns.close", "q,v", "screen.close", "Close", "What is being written goes on", "columns", False),
)
MEMORY = (
    Key("memory.down", "j,down", "screen.line(1)", "Down", "The next row", "memory", False),
    Key("memory.up", "k,up", "screen.line(-1)", "Up", "The row above", "memory", False),
    Key("memory.page_down", "pagedown", "screen.page(1)", "Page down", "A page down", "memory", False),
    Key("memory.page_up", "pageup", "screen.page(-1)", "Page up", "A page up", "memory", False),
    Key("memory.first", "g,home", "screen.edge(-1)", "First row", "What holds most", "memory", False),
    Key("memory.last", "G,end", "screen.edge(1)", "Last row", "What holds least", "memory", False),
    Key("memory.open", "l,right,space", "screen.open(True)", "Open", "The conversation's branches", "memory", False),
    Key("memory.shut", "h,left", "screen.open(False)", "Shut", "The conversation in one row", "memory", False),
    Key("memory.free", "d", "screen.free", "Free", "Drop the KV of this and all below; no text", "memory", False),
    Key("memory.go", "enter", "screen.go", "Go there", "The conversation, at this branch", "memory", False),
    Key("memory.close", "escape,q,M", "screen.close", "Close", "Back to the conversation", "memory", False),
)
IMPORTING = (
    Key("import.go", "enter", "screen.go", "Next step", "Look into it; import it; go to what came in", "import", False),
    Key("import.complete", "tab", "screen.complete", "Complete", "The path that is marked", "import", False),
    Key("import.down", "down", "screen.step(1)", "Down", "The next path, or conversation", "import", False),
    Key("import.up", "up", "screen.step(-1)", "Up", "The one above", "import", False),
    Key("import.stop", "s", "screen.stop", "Stop", "While it runs; whole conversations stay", "import", False),
    Key("import.close", "escape", "screen.close", "Close", "A running import goes on", "import", False),
)
LISTING = (
    Key("list.next", "down,ctrl+n", "screen.step(1)", "Next", "The next one of the list", "list", False),
    Key("list.previous", "up,ctrl+p", "screen.step(-1)", "Previous", "The one above", "list", False),
    Key("list.close", "escape", "screen.dismiss", "Close", "Nothing is chosen", "list", False),
)
READING = (
    Key("page.close", "escape,q,enter,f1,question_mark,D", "screen.dismiss", "Close", "Help or details", "page", False),
)

SECTIONS: dict[str, tuple[Key, ...]] = {
    "Composer": COMPOSING,
    "Anywhere": EVERYWHERE,
    "Settings": SETTING,
    "Tree and transcript: moving": MOVING,
    "Tree and transcript: doing": DOING + COUNTS,
    "Token view": TOKENS,
    "Split": SPLITTING,
    "Compare": COMPARING,
    "Side by side": COLUMNS,
    "Memory": MEMORY,
    "Import": IMPORTING,
    "Lists, and lines that are asked for": LISTING,
    "Help and details": READING,
}
KEYS: tuple[Key, ...] = tuple(key for section in SECTIONS.values() for key in section)


def bindings(*groups: tuple[Key, ...]) -> list[BindingType]:
    """What a widget's BINDINGS takes."""
    return [key.binding for group in groups for key in group]


PANE_BINDINGS = bindings(MOVING, DOING, COUNTS, EVERYWHERE)
COMPOSER_BINDINGS = bindings(COMPOSING, EVERYWHERE)
APP_BINDINGS = bindings(EVERYWHERE)
SETTING_BINDINGS = bindings(SETTING)
TOKEN_BINDINGS = bindings(TOKENS)
SPLIT_BINDINGS = bindings(SPLITTING)
COMPARE_BINDINGS = bindings(COMPARING)
COLUMN_BINDINGS = bindings(COLUMNS)
MEMORY_BINDINGS = bindings(MEMORY)
IMPORT_BINDINGS = bindings(IMPORTING)
LIST_BINDINGS = bindings(LISTING)
ASK_BINDINGS = bindings(LISTING[-1:])
PAGE_BINDINGS = bindings(READING)
