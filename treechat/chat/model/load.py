"""Load a model for a chat: files, tokenizer, engine. Blocking: call it in a thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from treechat.chat.model.chat_model import ChatModel
from treechat.chat.model.kv_files import KVFiles
from treechat.chat.tokens.template import Template
from treechat.errors import ModelError, UnsupportedModel
from treechat.models import Progress, is_greedy_first, load_tokenizer, recommended_sampling, resolve
from treechat_engine import EngineConfig, EngineError, UnsupportedModelError


def _ignore(_: Progress) -> None:
    """No-op callback."""


def load_chat_model(
    spec: str | None,
    *,
    engine_config: EngineConfig | None = None,
    progress: Callable[[Progress], None] = _ignore,
    kv_disk_mb: int = 0,
) -> ChatModel:
    """Fetch, convert and load a model as far as needed. The first call imports torch.

    Raises ModelError (Offline, UnsupportedModel) with a hint.

    spec: None for the default model, a directory, a .gguf file or a hub id.
    engine_config: None takes the defaults.
    progress: called with each step.
    kv_disk_mb: the KV that is saved on disk when the model is closed and loaded here, in megabytes; 0 does neither.
    """
    files = resolve(spec, progress)
    progress(Progress("load", 0, None, f"reading the tokenizer of {files.name}"))
    template = Template(load_tokenizer(files))
    template.check()
    progress(Progress("load", 0, None, f"loading {files.name}"))
    # Imported here because it imports torch.
    from treechat_engine import Engine

    try:
        engine = Engine.load(
            str(files.path),
            engine_config or EngineConfig(),
            progress=lambda text: progress(Progress("load", 0, None, text)),
        )
    except UnsupportedModelError as error:
        raise UnsupportedModel(error.message, error.hint) from error
    except EngineError as error:
        raise ModelError(error.message, error.hint) from error
    sampling = recommended_sampling(files)
    if not kv_disk_mb:
        return ChatModel(files.name, engine, template, sampling, greedy_first=is_greedy_first(files))
    kv_files = KVFiles(str(files.path), kv_disk_mb * 1_000_000)
    kv_files.load(engine)
    return ChatModel(files.name, engine, template, sampling, partial(kv_files.save, engine), is_greedy_first(files))
