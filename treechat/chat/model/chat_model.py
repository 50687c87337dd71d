"""A model as the chat layer uses it: an engine, and the template that turns messages into its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from treechat.chat.engine_protocol import ChatEngine
from treechat.chat.tokens.template import Template
from treechat.config import Sampling


@dataclass(frozen=True)
class ChatModel:
    """`name` is what the user sees; `sampling` what its authors recommend (temperature, top_p, top_k, min_p).
    `greedy_first`: a message's first reply is the most likely one, its siblings are sampled; for a model too small to
    sample well. `before_close` is called before the engine is closed.

    Close it to give the engine's memory back.
    """

    name: str
    engine: ChatEngine
    template: Template
    sampling: Sampling = field(default_factory=Sampling)
    before_close: Callable[[], None] | None = None
    greedy_first: bool = False

    @property
    def fingerprint(self) -> str:
        """Names the tokenizer and template that this model's spans belong to."""
        return self.template.fingerprint

    @property
    def is_text(self) -> bool:
        """No chat template: the tree is one of continuations, text going on from text."""
        return self.template.is_text

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply, beside those the engine's model names itself."""
        return self.template.stop_ids

    def close(self) -> None:
        """Close the engine; idempotent."""
        if self.before_close is not None:
            self.before_close()
        self.engine.close()
