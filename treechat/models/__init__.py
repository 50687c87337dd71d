"""Which model, where from, how it gets here. Importing this loads neither torch nor transformers."""

from treechat.models.files import (
    DEFAULT_MODEL,
    InstalledModel,
    ModelFiles,
    Progress,
    ProgressCallback,
    ignore,
)
from treechat.models.quiet import hush
from treechat.models.recommended_sampling import is_greedy_first, recommended_sampling
from treechat.models.registry import installed, remove
from treechat.models.resolver import is_ready, resolve
from treechat.models.tokenizer import load_tokenizer

__all__ = [
    "DEFAULT_MODEL",
    "InstalledModel",
    "ModelFiles",
    "Progress",
    "ProgressCallback",
    "hush",
    "ignore",
    "installed",
    "is_greedy_first",
    "is_ready",
    "load_tokenizer",
    "recommended_sampling",
    "remove",
    "resolve",
]
