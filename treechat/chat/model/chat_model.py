"""A model for the chat layer: an engine, and the template that converts messages to its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from treechat.chat.engine_protocol import ChatEngine
from treechat.chat.tokens.template import Template
from treechat.config import Sampling


@dataclass(frozen=True)
class ChatModel:
    """A loaded model. Close it to free the engine's memory.

    name: the name that the user reads.
    engine: runs the model.
    template: converts messages to spans.
    sampling: the parameters that the model's authors recommend.
    before_close: called before the engine is closed.
    greedy_first: the first reply to a message is greedy, its siblings are sampled; for models too small to sample well.
    """

    name: str
    engine: ChatEngine
    template: Template
    sampling: Sampling = field(default_factory=Sampling)
    before_close: Callable[[], None] | None = None
    greedy_first: bool = False

    @property
    def fingerprint(self) -> str:
        """Identifies the tokenizer and the template of this model's spans."""
        return self.template.fingerprint

    @property
    def is_text(self) -> bool:
        """Whether there is no chat template: each node continues the text of its parent."""
        return self.template.is_text

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply, besides the end tokens of the engine's model."""
        return self.template.stop_ids

    def close(self) -> None:
        """Close the engine; idempotent."""
        if self.before_close is not None:
            self.before_close()
        self.engine.close()
