"""All key bindings of the app, in one table. Widgets, the help screen and the palette are made from it."""

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
    """One binding.

    id: its name in the configuration's keymap.
    keys: the default keys, comma-separated, in Textual's names.
    action: the Textual action that it runs.
    title: its name in the help and in the palette.
    tooltip: its effect, in a few words.
    place: the widgets or the screen that bind it; "panes" are the tree and the transcript.
    in_palette: the palette lists it as a command.
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
        # ctrl+q quits from every screen, modal screens included.
        priority = self.id == "app.quit"
        return Binding(self.keys, self.action, self.title, False, tooltip=self.tooltip, id=self.id, priority=priority)


def _keys(place: KeyPlace, *rows: tuple[str, str, str, str, str], in_palette: bool = False) -> tuple[KeyBinding, ...]:
    """Return the bindings of one place, from rows of (id, keys, action, title, tooltip)."""
    return tuple(KeyBinding(*row, place, in_palette) for row in rows)


NAVIGATION_KEYS = _keys(
    "panes",
    ("move.next", "j,down", "app.row(1)", "Next row", "The next row or message"),
    ("move.previous", "k,up", "app.row(-1)", "Previous row", "The previous row or message"),
) + _keys(
    "panes",
    ("move.parent", "h,left", "app.parent", "Parent", "The previous message on this branch"),
    ("move.child", "l,right", "app.child", "Child", "The next message on the branch visited last"),
    ("move.next_sibling", "J,shift+down", "app.sibling(1)", "Next sibling", "The next alternative"),
    ("move.previous_sibling", "K,shift+up", "app.sibling(-1)", "Previous sibling", "The previous alternative"),
    ("move.previous_fork", "left_square_bracket", "app.fork(-1)", "Previous fork", "The nearest fork above"),
    ("move.next_fork", "right_square_bracket", "app.fork(1)", "Next fork", "The nearest fork below"),
    ("move.root", "g,home", "app.root", "First message", "The start of this tree"),
    ("move.leaf", "G,end", "app.leaf", "Last message", "The end of this branch"),
    ("move.here", "0", "app.here", "Current node", "The node that your next message follows"),
    ("move.back", "backspace", "app.jump_back", "Jump back", "Return to the node before the last jump"),
    ("move.jump", "enter", "app.jump", "Jump here", "Make it current; your own message also opens for editing"),
    ("move.find", "slash,ctrl+f", "app.find", "Search", "Find a message in this conversation"),
    ("move.filter", "f", "app.filter", "Filter", "All rows, forks only, my turns, bookmarked, warm"),
    ("move.fold", "space", "app.fold", "Fold", "Hide or show the rows below this row"),
    ("move.unfold", "o", "app.unfold", "Thoughts", "Show or hide a message's thoughts, tool calls and results"),
    ("move.hoist", "z", "app.hoist", "Hoist", "Show only this row and the rows below it"),
    ("move.unhoist", "Z", "app.unhoist", "Un-hoist", "Show the whole tree again"),
    in_palette=True,
)
ACTION_KEYS = _keys(
    "panes",
    ("do.edit", "e", "app.edit", "Edit as a sibling", "Edit this message; the original stays as its sibling"),
    ("do.editor", "E", "app.editor", "Edit in $EDITOR", "Edit this message in your own editor"),
    ("do.regenerate", "r", "app.regenerate", "Regenerate", "Another reply as a sibling; 3 then r makes three"),
    ("do.beside", "v", "app.columns", "Side by side", "Show the alternatives at this fork in columns"),
    ("do.continue", "c", "app.resume", "Continue", "Continue a stopped or cut-off reply from its last token"),
    ("do.tokens", "t", "app.tokens", "Token view", "The probability of each token; fork at any token"),
    ("do.split", "s", "app.split", "Split", "Fork in the middle of this message"),
    ("do.compare", "equals_sign", "app.compare", "Compare", "Compare the branch under the cursor with the current one"),
    ("do.graft", "C", "app.graft", "Copy branch", "Copy this branch below another message; u undoes it"),
    ("do.rebase", "R", "app.rebase", "Replay turns", "Send your turns from here on again elsewhere; new replies"),
    ("do.bookmark", "b", "app.bookmark", "Bookmark", "Set or remove the mark ★ on this message"),
    ("do.next_bookmark", "B", "app.next_bookmark", "Next bookmark", "Go to the next ★"),
    ("do.label", "m", "app.label", "Label", "Name this message; its row shows the name"),
    ("do.hide", "d", "app.hide", "Hide", "Hide this branch; u shows it again"),
    ("do.undo", "u", "app.undo", "Undo", "Undo the last hide, label, bookmark, rename, copy or replay"),
    ("do.redo", "ctrl+r", "app.redo", "Redo", "Repeat the change that was undone"),
    ("do.copy", "y", "app.copy", "Copy message", "Copy through the terminal (OSC 52), or to a file if it cannot"),
    ("do.copy_code", "Y", "app.copy_code", "Copy code", "Copy the last code block of this message"),
    ("do.pager", "P", "app.pager", "Open in $PAGER", "Show this message in your pager"),
    ("do.details", "D", "app.details", "Details", "Model, seed, sampling, tokens and times of this message"),
    ("do.export", "x", "app.export", "Export", "Branch, subtree, conversation or all: Markdown, HTML, JSON, graphs"),
    ("do.warm", "w", "app.warm", "Warm", "Compute this branch's KV now, at the lowest priority"),
    ("do.protect", "p", "app.protect", "Protect", "Keep this branch's KV longer than others (◆), or stop that"),
    ("do.memory", "M", "app.memory", "Memory", "KV slots by conversation and branch; free a branch"),
    in_palette=True,
) + _keys(
    "panes",
    ("pane.help", "question_mark", "app.help", "Help", "All keys"),
    ("pane.composer", "i", "app.compose_text", "Write", "Go to the composer"),
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
    ("composer.newline", "ctrl+j", "newline", "New line", "Insert a line break"),
    ("composer.recall", "up", "recall", "Edit last", "In an empty composer: edit your last message"),
)
GLOBAL_KEYS = (
    _keys(
        "everywhere",
        ("app.stop", "escape", "app.escape", "Stop", "Stop a reply or a load and keep its text; twice: tree"),
        in_palette=True,
    )
    + _keys(
        "everywhere",
        ("app.focus", "tab", "app.cycle_focus(1)", "Next part", "Composer, tree, transcript"),
        ("app.focus_back", "shift+tab", "app.cycle_focus(-1)", "Previous part", "Composer, transcript, tree"),
    )
    + _keys(
        "everywhere",
        ("app.new", "ctrl+n,f8", "app.new", "New conversation", "Start an empty tree"),
        ("app.open", "ctrl+o", "app.open", "Open conversation", "Choose from all conversations"),
        ("app.search_all", "ctrl+g", "app.search_all", "Search everything", "Search all conversations"),
        ("app.rename", "f2", "app.rename", "Rename", "Change the title of this conversation"),
        ("app.settings", "f3", "app.settings", "Settings", "System prompt and sampling, for good or for one reply"),
        ("app.model", "f4", "app.model", "Model", "Load another model; use this one until it is ready"),
        ("app.import", "f5", "app.import", "Import", "A file, zip or folder of another program's chats"),
        ("app.help", "f1", "app.help", "Help", "This list of keys"),
        ("app.quit", "ctrl+q", "app.quit", "Quit", "A reply in progress is saved"),
        in_palette=True,
    )
)
SETTINGS_KEYS = _keys(
    "settings",
    ("settings.keep", "enter,ctrl+s", "screen.keep", "Keep", "For this conversation from now on"),
    ("settings.once", "ctrl+t,f8", "screen.once", "Once", "For the next reply only"),
    ("settings.model", "f4", "screen.model", "Models", "Choose this conversation's model"),
    ("settings.preset", "ctrl+o", "screen.preset", "Presets", "Fill in the values of a preset"),
    ("settings.save", "f2", "screen.save", "Save preset", "Save the values in the configuration file"),
    ("settings.close", "escape", "screen.close", "Close", "Change nothing"),
)
TOKEN_KEYS = _keys(
    "tokens",
    ("token.next", "l,right", "screen.token(1)", "Next token", "The next token; looks its alternatives up"),
    ("token.previous", "h,left", "screen.token(-1)", "Previous token", "The previous token"),
    ("token.down", "J,shift+down", "screen.line(1)", "Line below", "Same column, one line down"),
    ("token.up", "K,shift+up", "screen.line(-1)", "Line above", "Same column, one line up"),
    ("token.next_doubt", "n", "screen.doubt(1)", "Next doubt", "The next token below 50%"),
    ("token.previous_doubt", "N", "screen.doubt(-1)", "Previous doubt", "The previous token below 50%"),
    ("token.other", "j,down", "screen.choice(1)", "Alternative", "The next less likely token"),
    ("token.other_up", "k,up", "screen.choice(-1)", "Likelier one", "The next more likely token"),
    ("token.first", "g,home", "screen.edge(-1)", "First token", "The start of the reply"),
    ("token.last", "G,end", "screen.edge(1)", "Last token", "The end of the reply"),
    ("token.fork", "enter", "screen.fork", "Fork here", "A sibling that continues from this alternative"),
    ("token.close", "escape,q,t", "screen.close", "Close", "Back to the conversation"),
)
SPLIT_KEYS = _keys(
    "split",
    ("split.next", "l,right", "screen.word(1)", "Next word", "Keep one word more"),
    ("split.previous", "h,left", "screen.word(-1)", "Previous word", "Keep one word less"),
    ("split.down", "j,down", "screen.line(1)", "Line below", "Keep one line more"),
    ("split.up", "k,up", "screen.line(-1)", "Line above", "Keep one line less"),
    ("split.first", "g,home", "screen.edge(-1)", "First word", "Keep the first word only"),
    ("split.last", "G,end", "screen.edge(1)", "Last word", "Keep all but the last word"),
    ("split.here", "enter", "screen.split", "Split here", "A sibling that begins with the kept words"),
    ("split.close", "escape,q,s", "screen.close", "Close", "Back to the conversation"),
)
COMPARE_KEYS = _keys(
    "compare",
    ("compare.down", "j,down", "screen.line(1)", "Down", "One line down"),
    ("compare.up", "k,up", "screen.line(-1)", "Up", "One line up"),
    ("compare.page_down", "space,pagedown", "screen.page(1)", "Page down", "One page down"),
    ("compare.page_up", "b,pageup", "screen.page(-1)", "Page up", "One page up"),
    ("compare.first", "g,home", "screen.edge(-1)", "Start", "The fork of the two branches"),
    ("compare.last", "G,end", "screen.edge(1)", "End", "The end of the longer branch"),
    ("compare.next", "n", "screen.difference(1)", "Next difference", "The next turn that differs"),
    ("compare.previous", "N", "screen.difference(-1)", "Previous difference", "The previous turn that differs"),
    ("compare.jump", "enter", "screen.jump", "Jump", "Make the other branch current"),
    ("compare.close", "escape,q,equals_sign", "screen.close", "Close", "Back to the conversation"),
)
COLUMN_KEYS = _keys(
    "columns",
    ("columns.next", "l,right,tab", "screen.column(1)", "Next column", "The next alternative"),
    ("columns.previous", "h,left,shift+tab", "screen.column(-1)", "Previous column", "The previous alternative"),
    ("columns.down", "j,down", "screen.line(1)", "Down", "One line down in this column"),
    ("columns.up", "k,up", "screen.line(-1)", "Up", "One line up"),
    ("columns.page_down", "space,pagedown", "screen.page(1)", "Page down", "One page down"),
    ("columns.page_up", "b,pageup", "screen.page(-1)", "Page up", "One page up"),
    ("columns.first", "g,home", "screen.edge(-1)", "Start", "The start of this alternative"),
    ("columns.last", "G,end", "screen.edge(1)", "End", "The end; follows it as it grows"),
    ("columns.stop", "s", "screen.stop", "Stop this one", "Its text so far is kept"),
    ("columns.only", "o", "screen.only", "Only this one", "Stop the others; their text is kept"),
    ("columns.hide", "d", "screen.hide", "Hide this one", "Undo shows it again"),
    ("columns.unfold", "t", "screen.unfold", "Thoughts", "Show or hide its thoughts"),
    ("columns.promote", "enter", "screen.promote", "Promote", "Make it current; the others stay"),
    ("columns.escape", "escape", "screen.escape", "Stop, close", "Stop all; again: close"),
    ("columns.close", "q,v", "screen.close", "Close", "Replies in progress continue"),
)
MEMORY_KEYS = _keys(
    "memory",
    ("memory.down", "j,down", "screen.line(1)", "Down", "The next row"),
    ("memory.up", "k,up", "screen.line(-1)", "Up", "The row above"),
    ("memory.page_down", "pagedown", "screen.page(1)", "Page down", "One page down"),
    ("memory.page_up", "pageup", "screen.page(-1)", "Page up", "One page up"),
    ("memory.first", "g,home", "screen.edge(-1)", "First row", "The most slots"),
    ("memory.last", "G,end", "screen.edge(1)", "Last row", "The fewest slots"),
    ("memory.open", "l,right,space", "screen.open(True)", "Open", "Show the conversation's branches"),
    ("memory.shut", "h,left", "screen.open(False)", "Close branches", "Show the conversation as one row"),
    ("memory.free", "d", "screen.free", "Free", "Drop the KV of this row and below; no text"),
    ("memory.go", "enter", "screen.go", "Go there", "Open the conversation at this branch"),
    ("memory.close", "escape,q,M", "screen.close", "Close", "Back to the conversation"),
)
IMPORT_KEYS = _keys(
    "import",
    ("import.go", "enter", "screen.go", "Next step", "Check the file; import it; open a conversation"),
    ("import.complete", "tab", "screen.complete", "Complete", "Use the marked path"),
    ("import.down", "down", "screen.step(1)", "Down", "The next path or conversation"),
    ("import.up", "up", "screen.step(-1)", "Up", "The previous one"),
    ("import.stop", "s", "screen.stop", "Stop", "Stop the import; whole conversations are kept"),
    ("import.close", "escape", "screen.close", "Close", "A running import continues"),
)
LIST_KEYS = _keys(
    "list",
    ("list.next", "down,ctrl+n", "screen.step(1)", "Next", "The next item"),
    ("list.previous", "up,ctrl+p", "screen.step(-1)", "Previous", "The previous item"),
    ("list.close", "escape", "screen.dismiss", "Close", "Choose nothing"),
)
PAGE_KEYS = _keys(
    "page",
    ("page.close", "escape,q,enter,f1,question_mark,D", "screen.dismiss", "Close", "Close help or details"),
)

SECTIONS: dict[str, tuple[KeyBinding, ...]] = {
    "Composer": COMPOSER_KEYS,
    "Anywhere": GLOBAL_KEYS,
    "Settings": SETTINGS_KEYS,
    "Tree and transcript: navigation": NAVIGATION_KEYS,
    "Tree and transcript: actions": ACTION_KEYS + COUNT_KEYS,
    "Token view": TOKEN_KEYS,
    "Split": SPLIT_KEYS,
    "Compare": COMPARE_KEYS,
    "Side by side": COLUMN_KEYS,
    "Memory": MEMORY_KEYS,
    "Import": IMPORT_KEYS,
    "Lists and input lines": LIST_KEYS,
    "Help and details": PAGE_KEYS,
}
KEYS: tuple[KeyBinding, ...] = tuple(key for section in SECTIONS.values() for key in section)


def bindings(*groups: tuple[KeyBinding, ...]) -> list[BindingType]:
    """Return these keys as a widget's BINDINGS."""
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
