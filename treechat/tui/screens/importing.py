"""The import screen: a path with completion, the result of a dry run, the progress, and the imported conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from treechat.formats.document import ImportReport
from treechat.transfer.import_job import ImportJob
from treechat.tui.bindings import IMPORT_BINDINGS
from treechat.tui.safe_text import as_input, fit, one_line
from treechat.tui.screens.modal import Modal
from treechat.tui.screens.path_input import completions, first_missing, parse_paths, short_path

POLL_S = 0.1
"""Seconds between two looks at the progress."""

MAX_SENTENCES = 8
"""Problems that the report lists; the command line prints all."""

MAX_WIDTH, BORDERS = 100, 14
"""Cells of the window, and of the frame around a line in it."""

MAX_LISTED = 500
"""Conversations that the report lists."""

Start = Callable[[Sequence[Path], bool], ImportJob]
"""Starts an import of the paths; True: a dry run."""


class ImportScreen(Modal[str | None]):
    """Returns the id of the conversation to open, or None. A running import continues after it is closed."""

    BINDINGS = IMPORT_BINDINGS
    DEFAULT_CSS = "ImportScreen #report { margin: 1 0 0 0; }"

    def __init__(self, start: Start, job: ImportJob | None = None) -> None:
        """start: starts a job.

        job: the import that is running, or is done and not reported yet.
        """
        super().__init__()
        self._start = start
        self._job = job
        self._is_reported = False
        self._paths: list[Path] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="window", id="import") as window:
            window.border_title = "Import"
            yield Input(placeholder="a file, a zip or a folder: type, paste or drop its path")
            yield Static("", id="report", markup=False)
            options = OptionList(markup=False)
            options.can_focus = False
            yield options

    def on_mount(self) -> None:
        self.set_interval(POLL_S, self._look)
        if self._job is None:
            self._offer()
        self._look()

    @property
    def options(self) -> OptionList:
        return self.query_one(OptionList)

    # The path

    @on(Input.Changed)
    def _typed(self) -> None:
        if self._job is not None and self._job.dry_run:
            self._job.stop()
            self._job = None
        if self._job is None:
            self._offer()

    def _offer(self) -> None:
        self._paths = completions(self.query_one(Input).value)
        # The end of a long path is the informative part.
        texts = [one_line(short_path(path)) for path in self._paths]
        room = self._room - 4
        self._list([(f"…{text[-room:]}" if cell_len(text) > room else text, "") for text in texts])
        if self._job is None:
            self._show_report("", "enter checks it · tab completes · esc closes")

    def action_complete(self) -> None:
        highlighted = self.options.highlighted
        if self._job is None and highlighted is not None and highlighted < len(self._paths):
            field, path = self.query_one(Input), self._paths[highlighted]
            text = short_path(path)
            if as_input(text) != text:
                # A path with control characters cannot be put into a text field: check it at once.
                self._begin([path], True)
                return
            field.value = text
            field.cursor_position = len(text)

    def action_step(self, by: int) -> None:
        options = self.options
        if options.option_count:
            options.highlighted = ((options.highlighted or 0) + by) % options.option_count

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.options.highlighted = event.option_index
        if self._job is None:
            self.action_complete()
        elif self._job.is_done and not self._job.dry_run:
            self.action_go()

    # Enter does the next step

    @on(Input.Submitted)
    def action_go(self) -> None:
        job = self._job
        if job is None:
            self._look_into()
        elif not job.is_done:
            return
        elif job.dry_run:
            if job.report.nodes or job.report.conversations:
                self._begin(job.paths, False)
        else:
            index, imported = self.options.highlighted, job.report.imported
            self.dismiss(imported[index]["id"] if index is not None and index < len(imported) else None)

    def _look_into(self) -> None:
        text = self.query_one(Input).value
        if not text.strip():
            self.action_complete()
            return
        paths = parse_paths(text)
        wrong = first_missing(paths)
        if wrong is not None and self._paths:
            self.action_complete()
            return
        if wrong is not None:
            self._show_report(f"There is no {one_line(str(wrong))}", "tab completes · esc closes")
            return
        self._begin(paths, True)

    def _begin(self, paths: Sequence[Path], dry_run: bool) -> None:
        self._job = self._start(paths, dry_run)
        self._is_reported = False
        self._list([])
        self._look()

    def action_stop(self) -> None:
        if self._job is not None:
            self._job.stop()

    def action_close(self) -> None:
        if self._job is not None and self._job.dry_run:
            self._job.stop()
        self.dismiss(None)

    # Progress

    def _look(self) -> None:
        job = self._job
        if job is None or self._is_reported:
            return
        field = self.query_one(Input)
        field.display = job.dry_run
        if not job.dry_run and field.has_focus:
            self.set_focus(None)
        if not job.is_done:
            doing = "Checking" if job.dry_run else "Importing"
            keys = "esc closes" if job.dry_run else "s stops · esc closes, import continues"
            self._show_report(f"{doing}: {progress(job)}", keys)
            return
        self._is_reported = True
        imported = job.report.imported[:MAX_LISTED]
        self._list([(one["title"] or "(untitled)", _counts(one)) for one in imported])
        keys = "enter opens it · esc closes" if imported else "esc closes"
        if job.dry_run:
            keys = "enter imports · esc closes" if imported else "another path, or esc"
        self._show_report("\n".join(summary(job)), keys)

    @property
    def is_reported(self) -> bool:
        """Whether the result of the import was shown."""
        return self._is_reported

    def _show_report(self, text: str, keys: str) -> None:
        report = self.query_one("#report", Static)
        report.update(Text(text))
        report.display = bool(text)
        self.query_one("#import", Vertical).border_subtitle = keys

    @property
    def _room(self) -> int:
        """Cells of a line of the list."""
        return min(self.app.size.width, MAX_WIDTH) - BORDERS

    def _list(self, rows: Sequence[tuple[str, str]]) -> None:
        options = self.options
        options.clear_options()
        options.display = bool(rows)
        for title, note in rows:
            title, used = one_line(title), max(self._room - len(note), 8)
            text = Text(fit(title, min(used, cell_len(title))))
            text.append(f"  {note}", style="dim")
            options.add_option(Option(text))
        if rows:
            options.highlighted = 0


def progress(job: ImportJob) -> str:
    """Return `12.3 of 190.0 MB, 35 conversations`."""
    total = job.total_bytes or 0
    # The bytes read from a database are not counted, so its total says nothing.
    of = f" of {total / 1e6:,.1f}" if not job.is_done and job.num_bytes <= total else ""
    return f"{job.num_bytes / 1e6:,.1f}{of} MB, {plural(job.num_read, 'conversation')}"


def summary(job: ImportJob) -> list[str]:
    """Return the lines of the report: what was or would be imported, and what was not."""
    report = job.report
    lines = [] if job.error is None else [one_line(str(job.error))]
    if job.titles:
        lines.append(f"{', '.join(job.titles)} · {progress(job)}")
    lines.append(_outcome(job, report))
    for kind, sentences in (("left out", report.dropped), ("cannot be read", report.failed)):
        lines += [f"{kind}: {one_line(sentence)[:300]}" for sentence in sentences[:MAX_SENTENCES]]
        if len(sentences) > MAX_SENTENCES:
            lines.append(f"{kind}: {len(sentences) - MAX_SENTENCES:,} more; `treechat import --json` lists them")
    return lines


def _outcome(job: ImportJob, report: ImportReport) -> str:
    num_grown = len(report.imported) - report.conversations
    parts = [plural(report.conversations, "new conversation")] if report.conversations else []
    parts += [f"new messages in {plural(num_grown, 'known conversation')}"] if num_grown else []
    if not parts:
        if job.is_stopped:
            return "Stopped. Nothing was imported."
        return "Everything in it is here already." if job.num_read else "Nothing in it can be imported."
    counts = f"{', '.join(parts)}; {plural(report.nodes, 'message')}, {plural(report.forks, 'fork')}"
    if job.dry_run:
        return f"Would add {counts}."
    return f"Stopped. Added {counts}, each conversation whole." if job.is_stopped else f"Added {counts}."


def _counts(one: dict[str, object]) -> str:
    news = "new" if one["new"] else "grows"
    return f"{news} · {one['nodes']:,} messages · {one['forks']:,} forks"


def plural(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'s' if num != 1 else ''}"
