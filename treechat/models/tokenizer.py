"""Load the tokenizer of a model on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treechat.errors import ModelError
from treechat.models.files import ModelFiles
from treechat.models.library_output import silence_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """Load the tokenizer and its chat template. Imports transformers.

    Does not use the network and runs no code of the model. Raises ModelError if transformers cannot read the tokenizer.
    """
    silence_libraries()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(files.path), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the tokenizer of {files.name} cannot be read: {reason}",
            "The directory needs a tokenizer.json that transformers can read without running code of the model",
        ) from error
