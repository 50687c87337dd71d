"""Find, fetch, convert, list and remove models. Importing this package loads neither torch nor transformers."""

from treechat.models.files import (
    DEFAULT_MODEL,
    InstalledModel,
    ModelFiles,
    Progress,
    ProgressCallback,
    ignore_progress,
)
from treechat.models.library_output import silence_libraries
from treechat.models.recommended_sampling import is_greedy_first, recommended_sampling
from treechat.models.registry import installed
from treechat.models.removal import remove
from treechat.models.resolver import is_ready, resolve
from treechat.models.tokenizer import load_tokenizer

__all__ = [
    "DEFAULT_MODEL",
    "InstalledModel",
    "ModelFiles",
    "Progress",
    "ProgressCallback",
    "ignore_progress",
    "installed",
    "is_greedy_first",
    "is_ready",
    "load_tokenizer",
    "recommended_sampling",
    "remove",
    "resolve",
    "silence_libraries",
]
