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
class KeyBinding:
    """One binding. `id` is what the configuration's keymap names; `keys` is its default, comma-separated.

    place: "panes" are the tree and the transcript. in_palette: it makes sense without a key, as a command.
    """

    id: str
    keys: str
    action: str
    title: str
    tooltip: str
    place: KeyPlace
    in_palette: bool = False

    @property
    def binding(self) -> Binding:
        # Every window can be left for good, those over the conversation too.
        priority = self.id == "app.quit"
        return Binding(self.keys, self.action, self.title, False, tooltip=self.tooltip, id=self.id, priority=priority)


def _keys(place: KeyPlace, *rows: tuple[str, str, str, str, str], in_palette: bool = False) -> tuple[KeyBinding, ...]:
    """The bindings of one place, from rows of (id, keys, action, title, tooltip)."""
    return tuple(KeyBinding(*row, place, in_palette) for row in rows)


NAVIGATION_KEYS = _keys(
    "panes",
    ("move.next", "j,down", "app.row(1)", "Next row", "The next row of the tree, or message"),
    ("move.previous", "k,up", "app.row(-1)", "Previous row", "The row or message before"),
) + _keys(
    "panes",
    ("move.parent", "h,left", "app.parent", "Parent", "The message before this one on its branch"),
    ("move.child", "l,right", "app.child", "Child", "The next message, on the branch visited last"),
    ("move.next_sibling", "J,shift+down", "app.sibling(1)", "Next sibling", "The alternative after this one"),
    ("move.previous_sibling", "K,shift+up", "app.sibling(-1)", "Previous sibling", "The alternative before"),
    ("move.previous_fork", "left_square_bracket", "app.fork(-1)", "Previous fork", "Up to the fork above"),
    ("move.next_fork", "right_square_bracket", "app.fork(1)", "Next fork", "Down to the fork below"),
    ("move.root", "g,home", "app.root", "First message", "Where this tree begins"),
    ("move.leaf", "G,end", "app.leaf", "Last message", "The end of this branch"),
    ("move.here", "0", "app.here", "Current node", "Back to where the next message goes"),
    ("move.back", "backspace", "app.jump_back", "Jump back", "Where you were before the last jump"),
    ("move.jump", "enter", "app.jump", "Jump here", "Make it current; a turn of yours is also taken for editing"),
    ("move.find", "slash,ctrl+f", "app.find", "Search", "Find a message of this conversation"),
    ("move.filter", "f", "app.filter", "Filter", "Everything, forks only, my turns, bookmarked, warm"),
    ("move.fold", "space", "app.fold", "Fold", "Hide or show what is below this row"),
    ("move.unfold", "o", "app.unfold", "Thoughts", "Show or fold a message's thoughts, tool calls and results"),
    ("move.hoist", "z", "app.hoist", "Hoist", "Show only what is below this row"),
    ("move.unhoist", "Z", "app.unhoist", "Un-hoist", "Show the whole tree again"),
    in_palette=True,
)
ACTION_KEYS = _keys(
    "panes",
    ("do.edit", "e", "app.edit", "Edit as a sibling", "Change this message; the old one stays beside it"),
    ("do.editor", "E", "app.editor", "Edit in $EDITOR", "The same in your own editor"),
    ("do.regenerate", "r", "app.regenerate", "Regenerate", "Another reply beside this one; 3 then r makes three"),
    ("do.beside", "v", "app.columns", "Side by side", "The alternatives at this fork in columns"),
    ("do.continue", "c", "app.resume", "Continue", "Go on from the last token of a stopped or cut-off reply"),
    ("do.tokens", "t", "app.tokens", "Token view", "How sure the model was of each token, and fork at any"),
    ("do.split", "s", "app.split", "Split", "Fork in the middle of this message"),
    ("do.compare", "equals_sign", "app.compare", "Compare", "The branch under the cursor with the current one"),
    ("do.graft", "C", "app.graft", "Copy branch", "Copy this branch under another message; u takes it back"),
    ("do.rebase", "R", "app.rebase", "Replay turns", "Your turns from here on again elsewhere, with new replies"),
    ("do.bookmark", "b", "app.bookmark", "Bookmark", "Mark this message with ★, or take the mark away"),
    ("do.next_bookmark", "B", "app.next_bookmark", "Next bookmark", "Go to the next ★"),
    ("do.label", "m", "app.label", "Label", "Give this message a name; its row shows it"),
    ("do.hide", "d", "app.hide", "Hide", "Take this branch out of sight; u brings it back"),
    ("do.undo", "u", "app.undo", "Undo", "Take back the last hide, label, bookmark, rename, copy or replay"),
    ("do.redo", "ctrl+r", "app.redo", "Redo", "Do again what was undone"),
    ("do.copy", "y", "app.copy", "Copy message", "By the terminal (OSC 52); to a file where it takes no copies"),
    ("do.copy_code", "Y", "app.copy_code", "Copy code", "Copy the last code block of this message"),
    ("do.pager", "P", "app.pager", "Open in $PAGER", "The whole text of this message, outside of the app"),
    ("do.details", "D", "app.details", "Details", "Model, seed, sampling, tokens and times of this message"),
    ("do.export", "x", "app.export", "Export", "Branch, subtree, conversation or all: Markdown, HTML, JSON, graphs"),
    ("do.warm", "w", "app.warm", "Warm", "Compute this branch's KV now, at the lowest priority"),
    ("do.protect", "p", "app.protect", "Protect", "Keep this branch's KV longer than others (◆); again lets it go"),
    ("do.memory", "M", "app.memory", "Memory", "What the slots hold, by conversation and branch; free a branch"),
    in_palette=True,
) + _keys(
    "panes",
    ("pane.help", "question_mark", "app.help", "Help", "All keys"),
    ("pane.composer", "i", "app.compose_text", "Write", "To the composer"),
)
COUNT_KEYS = _keys(
    "panes",
    *(
        (f"count.{n}", str(n), f"app.count({n})", f"{n} replies", f"Then r: {n} replies in one batch")
        for n in range(2, 10)
    ),
)
COMPOSER_KEYS = _keys(
    "composer",
    ("composer.send", "enter", "submit", "Send", "Send the message"),
    ("composer.newline", "ctrl+j", "newline", "New line", "A new line in the message"),
    ("composer.recall", "up", "recall", "Edit last", "In an empty composer: your last turn"),
)
GLOBAL_KEYS = (
    _keys(
        "everywhere",
        ("app.stop", "escape", "app.escape", "Stop", "Stop a reply or a load, what came stays; twice: tree"),
        in_palette=True,
    )
    + _keys(
        "everywhere",
        ("app.focus", "tab", "app.cycle_focus(1)", "Next part", "Composer, tree, transcript"),
        ("app.focus_back", "shift+tab", "app.cycle_focus(-1)", "Part before", "The other way"),
    )
    + _keys(
        "everywhere",
        ("app.new", "ctrl+n,f8", "app.new", "New conversation", "Start an empty tree"),
        ("app.open", "ctrl+o", "app.open", "Open conversation", "Choose among all conversations"),
        ("app.search_all", "ctrl+g", "app.search_all", "Search everything", "Find in all conversations"),
        ("app.rename", "f2", "app.rename", "Rename", "Another title for this conversation"),
        ("app.settings", "f3", "app.settings", "Settings", "System prompt and sampling, here or once"),
        ("app.model", "f4", "app.model", "Model", "Another model; this one works until it is up"),
        ("app.import", "f5", "app.import", "Import", "A file, zip or folder of another program's chats"),
        ("app.help", "f1", "app.help", "Help", "This list of keys"),
        ("app.quit", "ctrl+q", "app.quit", "Quit", "A reply that is being written is kept"),
        in_palette=True,
    )
)
SETTINGS_KEYS = _keys(
    "settings",
    ("settings.keep", "enter,ctrl+s", "screen.keep", "Keep", "For this conversation from now on"),
    ("settings.once", "ctrl+t,f8", "screen.once", "Once", "For the next reply only"),
    ("settings.model", "f4", "screen.model", "Models", "Choose this conversation's model"),
    ("settings.preset", "ctrl+o", "screen.preset", "Presets", "Take a preset's values"),
    ("settings.save", "f2", "screen.save", "Save preset", "Into the configuration file"),
    ("settings.close", "escape", "screen.close", "Close", "Nothing is changed"),
)
TOKEN_KEYS = _keys(
    "tokens",
    ("token.next", "l,right", "screen.token(1)", "Next token", "Its alternatives are looked up"),
    ("token.previous", "h,left", "screen.token(-1)", "Previous token", "The token before"),
    ("token.down", "J,shift+down", "screen.line(1)", "Line below", "The same place, a line down"),
    ("token.up", "K,shift+up", "screen.line(-1)", "Line above", "The same place, a line up"),
    ("token.next_doubt", "n", "screen.doubt(1)", "Next doubt", "The next token below 50%"),
    ("token.previous_doubt", "N", "screen.doubt(-1)", "Doubt before", "The one before"),
    ("token.other", "j,down", "screen.choice(1)", "Alternative", "The next less likely one"),
    ("token.other_up", "k,up", "screen.choice(-1)", "Likelier one", "The alternative above"),
    ("token.first", "g,home", "screen.edge(-1)", "First token", "Where the reply begins"),
    ("token.last", "G,end", "screen.edge(1)", "Last token", "Where the reply ends"),
    ("token.fork", "enter", "screen.fork", "Fork here", "A sibling with the alternative, going on"),
    ("token.close", "escape,q,t", "screen.close", "Close", "Back to the conversation"),
)
SPLIT_KEYS = _keys(
    "split",
    ("split.next", "l,right", "screen.word(1)", "Next word", "Keep a word more"),
    ("split.previous", "h,left", "screen.word(-1)", "Previous word", "Keep a word less"),
    ("split.down", "j,down", "screen.line(1)", "Line below", "Keep a line more"),
    ("split.up", "k,up", "screen.line(-1)", "Line above", "Keep a line less"),
    ("split.first", "g,home", "screen.edge(-1)", "First word", "Keep the first word only"),
    ("split.last", "G,end", "screen.edge(1)", "Last word", "Keep all but the last word"),
    ("split.here", "enter", "screen.split", "Split here", "A sibling that begins with what is kept"),
    ("split.close", "escape,q,s", "screen.close", "Close", "Back to the conversation"),
)
COMPARE_KEYS = _keys(
    "compare",
    ("compare.down", "j,down", "screen.line(1)", "Down", "A line down"),
    ("compare.up", "k,up", "screen.line(-1)", "Up", "A line up"),
    ("compare.page_down", "space,pagedown", "screen.page(1)", "Page down", "A page down"),
    ("compare.page_up", "b,pageup", "screen.page(-1)", "Page up", "A page up"),
    ("compare.first", "g,home", "screen.edge(-1)", "Start", "Where the branches part"),
    ("compare.last", "G,end", "screen.edge(1)", "End", "Where the longer one ends"),
    ("compare.next", "n", "screen.difference(1)", "Next difference", "The next turn that differs"),
    ("compare.previous", "N", "screen.difference(-1)", "Difference before", "The one before"),
    ("compare.jump", "enter", "screen.jump", "Jump", "Make the other branch current"),
    ("compare.close", "escape,q,equals_sign", "screen.close", "Close", "Back to the conversation"),
)
COLUMN_KEYS = _keys(
    "columns",
    ("columns.next", "l,right,tab", "screen.column(1)", "Next column", "The alternative after"),
    ("columns.previous", "h,left,shift+tab", "screen.column(-1)", "Column before", "Back"),
    ("columns.down", "j,down", "screen.line(1)", "Down", "A line of this column"),
    ("columns.up", "k,up", "screen.line(-1)", "Up", "A line up"),
    ("columns.page_down", "space,pagedown", "screen.page(1)", "Page down", "A page down"),
    ("columns.page_up", "b,pageup", "screen.page(-1)", "Page up", "A page up"),
    ("columns.first", "g,home", "screen.edge(-1)", "Start", "Where this alternative begins"),
    ("columns.last", "G,end", "screen.edge(1)", "End", "Where it ends, and along with it"),
    ("columns.stop", "s", "screen.stop", "Stop this one", "What came of it stays"),
    ("columns.only", "o", "screen.only", "Only this one", "Stop the others; what came stays"),
    ("columns.hide", "d", "screen.hide", "Hide this one", "Out of sight; undo brings it back"),
    ("columns.unfold", "t", "screen.unfold", "Thoughts", "Show or fold what it thought"),
    ("columns.promote", "enter", "screen.promote", "Promote", "Make it current; others stay"),
    ("columns.escape", "escape", "screen.escape", "Stop, close", "Stop all; again closes"),
    ("columns.close", "q,v", "screen.close", "Close", "What is being written goes on"),
)
MEMORY_KEYS = _keys(
    "memory",
    ("memory.down", "j,down", "screen.line(1)", "Down", "The next row"),
    ("memory.up", "k,up", "screen.line(-1)", "Up", "The row above"),
    ("memory.page_down", "pagedown", "screen.page(1)", "Page down", "A page down"),
    ("memory.page_up", "pageup", "screen.page(-1)", "Page up", "A page up"),
    ("memory.first", "g,home", "screen.edge(-1)", "First row", "What holds most"),
    ("memory.last", "G,end", "screen.edge(1)", "Last row", "What holds least"),
    ("memory.open", "l,right,space", "screen.open(True)", "Open", "The conversation's branches"),
    ("memory.shut", "h,left", "screen.open(False)", "Shut", "The conversation in one row"),
    ("memory.free", "d", "screen.free", "Free", "Drop the KV of this and all below; no text"),
    ("memory.go", "enter", "screen.go", "Go there", "The conversation, at this branch"),
    ("memory.close", "escape,q,M", "screen.close", "Close", "Back to the conversation"),
)
IMPORT_KEYS = _keys(
    "import",
    ("import.go", "enter", "screen.go", "Next step", "Look into it; import it; go to what came in"),
    ("import.complete", "tab", "screen.complete", "Complete", "The path that is marked"),
    ("import.down", "down", "screen.step(1)", "Down", "The next path, or conversation"),
    ("import.up", "up", "screen.step(-1)", "Up", "The one above"),
    ("import.stop", "s", "screen.stop", "Stop", "While it runs; whole conversations stay"),
    ("import.close", "escape", "screen.close", "Close", "A running import goes on"),
)
LIST_KEYS = _keys(
    "list",
    ("list.next", "down,ctrl+n", "screen.step(1)", "Next", "The next one of the list"),
    ("list.previous", "up,ctrl+p", "screen.step(-1)", "Previous", "The one above"),
    ("list.close", "escape", "screen.dismiss", "Close", "Nothing is chosen"),
)
PAGE_KEYS = _keys(
    "page",
    ("page.close", "escape,q,enter,f1,question_mark,D", "screen.dismiss", "Close", "Help or details"),
)

SECTIONS: dict[str, tuple[KeyBinding, ...]] = {
    "Composer": COMPOSER_KEYS,
    "Anywhere": GLOBAL_KEYS,
    "Settings": SETTINGS_KEYS,
    "Tree and transcript: moving": NAVIGATION_KEYS,
    "Tree and transcript: doing": ACTION_KEYS + COUNT_KEYS,
    "Token view": TOKEN_KEYS,
    "Split": SPLIT_KEYS,
    "Compare": COMPARE_KEYS,
    "Side by side": COLUMN_KEYS,
    "Memory": MEMORY_KEYS,
    "Import": IMPORT_KEYS,
    "Lists, and lines that are asked for": LIST_KEYS,
    "Help and details": PAGE_KEYS,
}
KEYS: tuple[KeyBinding, ...] = tuple(key for section in SECTIONS.values() for key in section)


def bindings(*groups: tuple[KeyBinding, ...]) -> list[BindingType]:
    """What a widget's BINDINGS takes."""
    return [key.binding for group in groups for key in group]


PANE_BINDINGS = bindings(NAVIGATION_KEYS, ACTION_KEYS, COUNT_KEYS, GLOBAL_KEYS)
COMPOSER_BINDINGS = bindings(COMPOSER_KEYS, GLOBAL_KEYS)
APP_BINDINGS = bindings(GLOBAL_KEYS)
SETTING_BINDINGS = bindings(SETTINGS_KEYS)
TOKEN_BINDINGS = bindings(TOKEN_KEYS)
SPLIT_BINDINGS = bindings(SPLIT_KEYS)
COMPARE_BINDINGS = bindings(COMPARE_KEYS)
COLUMN_BINDINGS = bindings(COLUMN_KEYS)
MEMORY_BINDINGS = bindings(MEMORY_KEYS)
IMPORT_BINDINGS = bindings(IMPORT_KEYS)
LIST_BINDINGS = bindings(LIST_KEYS)
ASK_BINDINGS = bindings(LIST_KEYS[-1:])
PAGE_BINDINGS = bindings(PAGE_KEYS)
