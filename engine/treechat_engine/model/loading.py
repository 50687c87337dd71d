"""Load a model from a directory, a .gguf file or a hub id. Safetensors and GGUF, no remote code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from treechat_engine.api import EngineConfig, EngineError
from treechat_engine.attention.attention import register
from treechat_engine.model.gguf_config import check_all_read, dequantize_options, gguf_config
from treechat_engine.model.support import check_config

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
logger = logging.getLogger(__name__)


def choose_device(name: str | None) -> torch.device:
    """Return the device; None chooses cuda, then cpu. Raises EngineError for an unusable device."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise EngineError(f"the device {name!r} cannot be used: {reason}", "Choose cpu, or set no device") from error
    return device


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype; None is bfloat16 on CUDA and float32 elsewhere. Raises EngineError for an unknown name."""
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise EngineError(f"dtype {name!r} is unknown", f"Choose one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def load_model(source: str | Path, config: EngineConfig, progress: Callable[[str], None] | None = None) -> Any:
    """Return a transformers model in eval mode on the config's device.

    transformers reads and dequantises a .gguf file; convert a file that is loaded often (treechat.models). Raises
    UnsupportedModelError before any weight is read, and EngineError if files are missing, broken or incomplete.

    source: a directory, a .gguf file or a hub id.
    config: the engine's configuration.
    progress: receives one sentence per stage.
    """
    report = progress or logger.info
    device = choose_device(config.device)
    path, options = _locate(source)
    register()
    try:
        report(f"Reading the configuration of {source}")
        gguf = Path(path, options["gguf_file"]) if "gguf_file" in options else None
        model_config = gguf_config(gguf) if gguf else AutoConfig.from_pretrained(path, trust_remote_code=False)
        check_config(model_config, config.max_model_len)
        report(f"Loading weights of {source}")
        options |= dequantize_options() if gguf else {"use_safetensors": True}
        dtype = choose_dtype(config.dtype, device)
        model, found = AutoModelForCausalLM.from_pretrained(
            path, config=model_config, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options
        )
        _check_complete(found["missing_keys"])
        if gguf:
            check_all_read(gguf, model)
        report(f"Moving the model to {device}")
        return model.to(device).eval()
    except EngineError:
        raise
    except Exception as error:  # transformers raises many kinds of exceptions for broken files
        raise EngineError(f"the model {source} cannot be loaded: {str(error) or type(error).__name__}") from error


def _check_complete(missing: Collection[str]) -> None:
    """Refuse a model with missing weights: transformers would continue with random ones."""
    if missing:
        reason = f"{len(missing)} of the model's weights are missing from its files: {min(missing)}"
        raise EngineError(reason, "Its download may be incomplete: fetch it again")


def _locate(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the arguments of from_pretrained: a directory or hub id, and the name of a GGUF file in it."""
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise EngineError(f"there is no file {path}")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        return str(path), {}
    return str(source), {}
