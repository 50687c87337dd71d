"""Spans and turns: the exact token ids of a node, and the provenance of a generated one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from treechat.store.codec import clean, dump_json, load_mapping, pack_ids, pack_logprobs, unpack_ids, unpack_span
from treechat.store.connection import Connection, SqlRow
from treechat.tree import Span, Turn

CHUNK_LEN = 500
"""Ids per query: the oldest SQLite builds allow 999 variables."""

TURN_COLUMNS = (
    "model, sampling, seed, finish_reason, prompt_tokens, cached_tokens, restored_tokens, computed_tokens,"
    " completion_tokens, queue_s, ttft_s, total_s"
)


def chunks(ids: Iterable[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Split ids into chunks that fit one query, each with its question marks. A repeated id comes once."""
    rest = iter(dict.fromkeys(ids))
    while chunk := tuple(islice(rest, CHUNK_LEN)):
        yield chunk, ", ".join("?" * len(chunk))


def turn_from(row: SqlRow) -> Turn:
    """The turn of a row of `TURN_COLUMNS`."""
    model, sampling, seed, *rest = row
    return Turn(model, load_mapping(sampling), None if seed is None else int(seed), *rest)


def turn_row(turn: Turn) -> SqlRow:
    """The values of `TURN_COLUMNS` for a turn."""
    # Store the seed as text: unsigned 64-bit seeds do not fit SQLite's integers.
    return (
        clean(turn.model),
        dump_json(dict(turn.sampling)),
        None if turn.seed is None else str(turn.seed),
        turn.finish_reason,
        turn.prompt_tokens,
        turn.cached_tokens,
        turn.restored_tokens,
        turn.computed_tokens,
        turn.completion_tokens,
        turn.queue_s,
        turn.ttft_s,
        turn.total_s,
    )


def write_spans(conn: sqlite3.Connection, rows: Iterable[tuple[str, Span]]) -> None:
    """Write (node id, span) pairs; a span replaces that of the same node and tokenizer."""
    values: Iterator[tuple[Any, ...]] = (
        (node_id, span.tokenizer, pack_ids(span.ids), pack_logprobs(span.logprobs)) for node_id, span in rows
    )
    conn.executemany("INSERT OR REPLACE INTO spans (node_id, tokenizer, ids, logprobs) VALUES (?, ?, ?, ?)", values)


def write_turns(conn: sqlite3.Connection, rows: Iterable[tuple[str, Turn]]) -> None:
    """Write (node id, turn) pairs; a turn replaces that of the same node."""
    marks = ", ".join("?" * (len(TURN_COLUMNS.split(",")) + 1))
    values = ((node_id, *turn_row(turn)) for node_id, turn in rows)
    conn.executemany(f"INSERT OR REPLACE INTO turns (node_id, {TURN_COLUMNS}) VALUES ({marks})", values)


def read_flushed(conn: sqlite3.Connection, node_id: str) -> tuple[str, Span | None]:
    """The text and span of a streaming reply: its row and the flushes since."""
    (text,) = conn.execute("SELECT text FROM nodes WHERE id = ?", (node_id,)).fetchone() or ("",)
    query = "SELECT tokenizer FROM streams WHERE node_id = ?"
    (tokenizer,) = conn.execute(query, (node_id,)).fetchone() or (None,)
    query = "SELECT ids, logprobs FROM spans WHERE node_id = ? AND tokenizer = ?"
    ids, logprobs = conn.execute(query, (node_id, tokenizer)).fetchone() or (b"", b"")
    all_ids, all_logprobs = bytearray(ids), bytearray(logprobs or b"")
    texts, num_chars, partial = [text], len(text), None
    query = "SELECT keep_chars, text, keep_ids, ids, logprobs FROM partials WHERE node_id = ? ORDER BY seq"
    for partial in conn.execute(query, (node_id,)).fetchall():
        keep_chars, text, keep_ids, ids, logprobs = partial
        if keep_chars < num_chars:
            texts = ["".join(texts)[:keep_chars]]
        texts.append(text)
        num_chars = keep_chars + len(text)
        all_ids[4 * keep_ids :] = ids
        all_logprobs[4 * keep_ids :] = logprobs or b""
    if tokenizer is None:
        return "".join(texts), None
    # A span has a log-probability for each id or none at all. The last flush decides if it has any.
    whole = bytes(all_logprobs) if len(all_logprobs) == len(all_ids) else None
    if partial is not None and partial[4] is None:
        whole = None
    return "".join(texts), unpack_span(tokenizer, bytes(all_ids), whole)


class Spans(Connection):
    """Read and write spans and turns."""

    def put_span(self, node_id: str, span: Span) -> None:
        """Write the span, log-probabilities as float32. It replaces that of the same node and tokenizer."""
        with self.transaction() as conn:
            write_spans(conn, [(node_id, span)])

    def put_spans(self, spans: Iterable[tuple[str, Span]]) -> None:
        """`put_span` for (node id, span) pairs, all or none."""
        with self.transaction() as conn:
            write_spans(conn, spans)

    def span(self, node_id: str, tokenizer: str) -> Span | None:
        """The node's span for that tokenizer; for a streaming reply, the ids flushed so far."""
        return self.spans([node_id], tokenizer).get(node_id)

    def spans(self, node_ids: Iterable[str], tokenizer: str) -> dict[str, Span]:
        """Spans by node id, without the nodes that have none for that tokenizer."""
        found: dict[str, Span] = {}
        with self.reading() as conn:
            for chunk, marks in chunks(node_ids):
                query = f"SELECT node_id, ids, logprobs FROM spans WHERE tokenizer = ? AND node_id IN ({marks})"
                for node_id, ids, logprobs in conn.execute(query, (tokenizer, *chunk)):
                    found[node_id] = unpack_span(tokenizer, ids, logprobs)
                query = f"SELECT node_id FROM streams WHERE tokenizer = ? AND node_id IN ({marks})"
                for (node_id,) in conn.execute(query, (tokenizer, *chunk)).fetchall():
                    _, span = read_flushed(conn, node_id)
                    if span is not None:
                        found[node_id] = span
        return found

    def all_spans(self, node_id: str) -> list[Span]:
        """The node's spans, one per tokenizer."""
        return self.spans_of([node_id]).get(node_id, [])

    def spans_of(self, node_ids: Iterable[str]) -> dict[str, list[Span]]:
        """`all_spans` by node id, without the nodes that have none."""
        found: dict[str, list[Span]] = {}
        ids = list(node_ids)
        with self.reading() as conn:
            tokenizers: set[str] = set()
            for chunk, marks in chunks(ids):
                query = (
                    f"SELECT tokenizer FROM spans WHERE node_id IN ({marks}) UNION"
                    f" SELECT tokenizer FROM streams WHERE node_id IN ({marks}) AND tokenizer IS NOT NULL"
                )
                tokenizers.update(row[0] for row in conn.execute(query, chunk + chunk))
            for tokenizer in sorted(tokenizers):
                for node_id, span in self.spans(ids, tokenizer).items():
                    found.setdefault(node_id, []).append(span)
        return found

    def token_counts(self, tokenizer: str) -> dict[str, int]:
        """Tokens of each visible conversation's spans for that tokenizer, hidden nodes included; by conversation id."""
        query = (
            "SELECT n.conversation_id, sum(length(s.ids)) / 4 FROM spans s JOIN nodes n ON n.id = s.node_id"
            " JOIN conversations c ON c.id = n.conversation_id WHERE s.tokenizer = ? AND NOT c.hidden"
            " GROUP BY n.conversation_id"
        )
        return dict(self.rows(query, (tokenizer,)))

    def beginnings(self, tokenizer: str) -> list[tuple[str, str, str | None, str, tuple[int, ...]]]:
        """Roots, then their children, if they have a span: conversation id, node id, parent id, role, token ids."""
        query = (
            "SELECT n.conversation_id, n.id, n.parent_id, n.role, s.ids FROM nodes n"
            " JOIN spans s ON s.node_id = n.id AND s.tokenizer = ? LEFT JOIN nodes p ON p.id = n.parent_id"
            " WHERE n.parent_id IS NULL OR p.parent_id IS NULL ORDER BY n.parent_id IS NOT NULL"
        )
        return [(*row[:4], unpack_ids(row[4])) for row in self.rows(query, (tokenizer,))]

    def turn(self, node_id: str) -> Turn | None:
        """The node's turn; None if it was not generated."""
        return self.turns([node_id]).get(node_id)

    def turns(self, node_ids: Iterable[str]) -> dict[str, Turn]:
        """Turns by node id, without the nodes that were not generated."""
        found: dict[str, Turn] = {}
        with self.reading() as conn:
            for chunk, marks in chunks(node_ids):
                query = f"SELECT node_id, {TURN_COLUMNS} FROM turns WHERE node_id IN ({marks})"
                found.update((row[0], turn_from(row[1:])) for row in conn.execute(query, chunk))
        return found
