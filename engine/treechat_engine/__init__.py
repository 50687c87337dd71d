"""treechat's engine: token ids in, token ids out, with the KV of every branch in a radix cache.

Importing the package loads no torch; using `Engine` does.
"""

from typing import TYPE_CHECKING, Any

from treechat_engine.api import (
    Completion,
    EngineClosedError,
    EngineConfig,
    EngineError,
    EngineStats,
    Finished,
    Priority,
    PromptTooLongError,
    RequestFailedError,
    Residency,
    SamplingParams,
    Token,
    UnsupportedModelError,
    Usage,
)

if TYPE_CHECKING:
    from treechat_engine.engine import Engine

__all__ = [
    "Completion",
    "Engine",
    "EngineClosedError",
    "EngineConfig",
    "EngineError",
    "EngineStats",
    "Finished",
    "Priority",
    "PromptTooLongError",
    "RequestFailedError",
    "Residency",
    "SamplingParams",
    "Token",
    "UnsupportedModelError",
    "Usage",
]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from treechat_engine.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
