"""Read llm's older log: each row is a prompt and its response; a conversation is a chain of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.llm.columns import ATTACHMENT_COLUMNS, add_attachment, options_in
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import first_text, id_of, json_in, seconds, text_of
from treechat.formats.reading.sqlite_source import SqliteSource
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import Draft

COLUMNS = (
    "id", "model", "resolved_model", "prompt", "system", "response", "reasoning", "conversation_id", "datetime_utc",
    "options_json", "input_tokens", "output_tokens", "duration_ms",
)  # fmt: skip


def read_responses(
    source: SqliteSource, tree_thread_ids: set[str], file: Input, report: ImportReport
) -> Iterator[Document]:
    """Yield the conversations that are not in `tree_thread_ids`, the ids of those read from the tree."""
    names = {row["id"]: first_text(row, "name") for row in source.rows("conversations", ("id", "name"))}
    key = "coalesce(conversation_id, id)" if source.has("responses", "conversation_id") else "id"
    order = f"{key}, datetime_utc, id" if source.has("responses", "datetime_utc") else f"{key}, id"
    rows = source.rows("responses", COLUMNS, f"ORDER BY {order}")
    for conversation_id, group in groupby(rows, lambda row: id_of(row["conversation_id"]) or id_of(row["id"])):
        if conversation_id is None:
            report.drop(file.name, "a response without an id")
        elif conversation_id in tree_thread_ids:
            # llm has copied these messages into its tree, but not their attachments.
            ids = [row["id"] for row in group]
            if num := sum(1 for _ in source.rows_matching("prompt_attachments", ("response_id",), "response_id", ids)):
                place = f"{file.name} ({names.get(conversation_id, '')[:60] or conversation_id})"
                report.drop(place, f"attachments from before llm 0.32 ({num}) are not in its tree of messages")
        else:
            yield _conversation(conversation_id, names.get(conversation_id, ""), list(group), source, file, report)


def _conversation(
    conversation_id: str, name: str, rows: list[dict[str, Any]], source: SqliteSource, file: Input, report: ImportReport
) -> Document:
    place = f"{file.name} ({name[:60] or conversation_id})"
    draft = Draft("llm", conversation_id, name, seconds(rows[0]["datetime_utc"]), seconds(rows[-1]["datetime_utc"]))
    details = _ResponseDetails(source, [row["id"] for row in rows])
    parent_id: str | None = None
    system = ""
    pending = Content()
    for row in rows:
        if draft.is_full:
            report.fail(place, "the conversation is too long; the rest is left out")
            break
        row_id, created_at = id_of(row["id"]) or "", seconds(row["datetime_utc"])
        new_system = "\n\n".join(filter(None, [*details.system_fragments[row["id"]], text_of(row["system"])]))
        if new_system and new_system != system:
            draft.add(f"{row_id}/system", parent_id, "system", new_system, created_at)
            parent_id, system = f"{row_id}/system", new_system
        prompt, results = details.prompt(row), details.results[row["id"]]
        for result in results:
            pending.add_result(text_of(result["name"]), text_of(result["output"]), id=result["tool_call_id"])
        if prompt or not results:
            if pending and parent_id is not None:
                draft.add(f"{row_id}/results", parent_id, "assistant", pending, created_at)
                parent_id, pending = f"{row_id}/results", Content()
            draft.add(f"{row_id}/prompt", parent_id, "user", prompt, created_at)
            parent_id = f"{row_id}/prompt"
        if reasoning := text_of(row["reasoning"]):
            pending.add_thoughts(reasoning)
        pending.add_text(text_of(row["response"]))
        calls = details.calls[row["id"]]
        for call in calls:
            pending.add_call(text_of(call["name"]), json_in(call["arguments"]), id=call["tool_call_id"])
        if calls and row is not rows[-1]:
            # The results and the answer are in the next row.
            continue
        model = first_text(row, "resolved_model", "model") or None
        options = options_in(row["options_json"])
        counts = {key: row[key] for key in ("input_tokens", "output_tokens", "duration_ms")}
        draft.add(row_id, parent_id, "assistant", pending, created_at, model=model, sampling=options, meta=counts)
        parent_id, pending = row_id, Content()
    return draft.document(report, place)


class _ResponseDetails:
    """Calls, results, fragments and attachments of responses, by response id."""

    def __init__(self, source: SqliteSource, ids: list[Any]) -> None:
        self.calls: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self.results: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self.fragments: dict[Any, list[str]] = defaultdict(list)
        self.system_fragments: dict[Any, list[str]] = defaultdict(list)
        self.attachments: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        columns = ("response_id", "name", "arguments", "output", "tool_call_id")
        for table, by_response in (("tool_calls", self.calls), ("tool_results", self.results)):
            for row in source.rows_matching(table, columns, "response_id", ids, "id"):
                by_response[row["response_id"]].append(row)
        for table, texts in (("prompt_fragments", self.fragments), ("system_fragments", self.system_fragments)):
            links = list(
                source.rows_matching(table, ("response_id", "fragment_id"), "response_id", ids, "response_id order")
            )
            contents = {
                row["id"]: text_of(row["content"])
                for row in source.rows_matching(
                    "fragments", ("id", "content"), "id", [link["fragment_id"] for link in links]
                )
            }
            for link in links:
                texts[link["response_id"]].append(contents.get(link["fragment_id"], ""))
        pair = ("response_id", "attachment_id")
        links = list(source.rows_matching("prompt_attachments", pair, "response_id", ids, "response_id order"))
        attachment_rows = {
            row["id"]: row
            for row in source.rows_matching(
                "attachments", ATTACHMENT_COLUMNS, "id", [link["attachment_id"] for link in links]
            )
        }
        for link in links:
            self.attachments[link["response_id"]].append(attachment_rows.get(link["attachment_id"], {}))

    def prompt(self, row: dict[str, Any]) -> Content:
        """Return the prompt of a response with its fragments and attachments."""
        content = Content()
        content.add_text("\n\n".join(filter(None, [*self.fragments[row["id"]], text_of(row["prompt"])])))
        for attachment in self.attachments[row["id"]]:
            add_attachment(content, attachment)
        return content
