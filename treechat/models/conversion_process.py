"""Convert a GGUF to safetensors once, in a separate process, so that later starts load in a fraction of the time.

The conversion is half a minute of Python. In this process it would hold the interpreter lock and stop the screen. Its
memory is freed when the separate process ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from treechat.errors import ModelError
from treechat.models.files import Progress, ProgressCallback
from treechat.models.gguf_header import read_header
from treechat.models.process import run_watched

CONVERSION = 1
"""Version of the conversion, part of the directory name. Raise it when the result for the same GGUF changes."""

_NUM_STEPS = 3
_LOG = "conversion.log"


def convert_gguf(gguf: Path, into: Path, progress: ProgressCallback) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer's files into a directory.

    gguf: the file to convert.
    into: an existing directory. After an error its content is undefined; the caller removes it.
    progress: called several times a second.

    Raises ModelError if the file is damaged, transformers cannot read its architecture, or memory runs out. Raises
    OSError if the disk is full or cannot be written.
    """
    header = read_header(gguf)
    log = into / _LOG
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "PYTHONUTF8": "1",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
    }

    def watch() -> None:
        steps = [message["step"] for message in _messages(log) if "step" in message]
        text = steps[-1] if steps else f"Converting {gguf.name}"
        progress(Progress("convert", max(0, len(steps) - 1), _NUM_STEPS, text))

    command = [sys.executable, "-m", "treechat.models.conversion", str(gguf.absolute()), str(into.absolute())]
    exit_status = run_watched(command, cwd=into, environment=environment, output=log, watch=watch)
    if exit_status != 0:
        raise conversion_error(gguf, header.num_params, exit_status, log)
    log.unlink()
    progress(Progress("convert", _NUM_STEPS, _NUM_STEPS, f"Converted {gguf.name}"))


def _messages(log: Path) -> list[dict[str, Any]]:
    """The JSON messages of the process so far, without the lines that libraries print."""
    messages = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{"):
            try:
                messages.append(json.loads(line))
            except ValueError:
                continue
    return messages


def conversion_error(gguf: Path, num_params: int, exit_status: int, log: Path) -> Exception:
    """The error for a failed process."""
    for message in _messages(log):
        if message.get("errno") is not None:
            return OSError(message["errno"], message["error"])
        if "error" in message:
            return ModelError(message["error"], message.get("hint", ""))
    if exit_status < 0:
        return ModelError(
            f"{gguf.name} cannot be converted: the conversion was killed (signal {-exit_status})",
            f"The usual cause is lack of memory: it needs about {num_params * 8 / 1e9:.0f} GB",
        )
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["no output"]
    return ModelError(f"{gguf.name} cannot be converted: {last[0][:200]}")
