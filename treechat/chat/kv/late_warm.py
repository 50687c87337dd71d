"""Warm a path whose spans are not made yet."""

from __future__ import annotations

import threading

from treechat.chat.engine_protocol import ChatEngine, WarmHandle, engine_request
from treechat.chat.tokens.path_spans import SpanBook
from treechat.errors import TreechatError
from treechat.tree import Tree


class LateWarm:
    """Make the spans of a path in a thread, then warm the path."""

    def __init__(self, engine: ChatEngine, spans: SpanBook, tree: Tree, path: list[str]) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._handle: WarmHandle | None = None
        threading.Thread(target=self._run, args=(engine, spans, tree, path), name="make-spans", daemon=True).start()

    def _run(self, engine: ChatEngine, spans: SpanBook, tree: Tree, path: list[str]) -> None:
        try:
            spans.ensure(tree, path, stopped=self._stopped)
            with self._lock:
                if not self._stopped.is_set():
                    with engine_request():
                        self._handle = engine.warm(spans.ids(tree, path))
        except TreechatError:
            # No caller waits for the result. Sending below this path raises the same error.
            return

    def cancel(self) -> None:
        """Stop; the spans and the KV made so far are kept."""
        with self._lock:
            self._stopped.set()
            if self._handle is not None:
                self._handle.cancel()
