"""Keeps transformers and huggingface_hub off the terminal, which belongs to the screen that is drawn there."""

from __future__ import annotations


def hush() -> None:
    """No progress bars and no warnings from either library, for the rest of this process.

    Imports both. Not undone afterwards: their later loads would write over the screen just the same.
    """
    import logging

    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
