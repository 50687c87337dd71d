"""Keep transformers and huggingface_hub from writing to the terminal, where they would damage the screen."""

from __future__ import annotations


def silence_libraries() -> None:
    """Turn off progress bars and warnings of both libraries for the rest of this process. Imports both.

    Never turned on again: later loads would write to the screen, too.
    """
    import logging

    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
