"""Convert a GGUF to safetensors; `conversion_process` runs this module in a separate process.

A weight of a quantized file is a small integer times a float16 scale; float16 cannot hold the product. Weights are
stored as float32, which reproduces the logits of the GGUF bit for bit, if that takes at most `MAX_EXACT_BYTES`. A
larger model is stored as bfloat16, or as float16 if the file is float16 throughout.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treechat.errors import ModelError
from treechat.models.gguf_header import GGUFHeader, read_header
from treechat.models.library_output import silence_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_EXACT_BYTES = 4 << 30

_FTYPE_FLOAT16 = 1
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<|end|>", "<|end_of_text|>", "<|endoftext|>")
_SPECIAL_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_DIGIT_SPLITTING = ("smollm", "starcoder", "refact", "command-r", "codeshell")
"""Values of tokenizer.ggml.pre whose tokenizer splits numbers into digits (llama.cpp, llama-vocab.cpp)."""


def convert_here(gguf: Path, into: Path, report: Callable[[str], None]) -> None:
    """Convert in this process. Loads torch and transformers.

    gguf: the file to convert.
    into: an empty directory for the result.
    report: called with the text of each step when the step begins.

    Raises as `conversion_process.convert_gguf`.
    """
    header = read_header(gguf)
    report(f"Reading {gguf.name}")
    silence_libraries()
    try:
        model = _read_model(gguf, dtype_name(header))
        tokenizer = _read_tokenizer(gguf, header)
    except ModelError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreadable(gguf, header, error) from error
    # On an unknown file, transformers passes on any exception of its readers; all mean the same.
    except Exception as error:
        raise _unreadable(gguf, header, error) from error
    report("Writing safetensors")
    _write_model(model, tokenizer, header, into)
    report("Writing the tokenizer")
    tokenizer.save_pretrained(into)


def _unreadable(gguf: Path, header: GGUFHeader, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return ModelError(
        f"{gguf.name} ({header.architecture}) cannot be converted: {reason}",
        "Use the safetensors version of this model: a directory or a hub id",
    )


def dtype_name(header: GGUFHeader) -> str:
    """The dtype of the converted weights, by the name that torch uses."""
    if header.num_params * 4 <= MAX_EXACT_BYTES:
        return "float32"
    return "float16" if header.metadata.get("general.file_type") == _FTYPE_FLOAT16 else "bfloat16"


def _read_model(gguf: Path, dtype: str) -> PreTrainedModel:
    import torch
    import transformers

    from treechat_engine.model.gguf_config import check_all_read, dequantize_options, gguf_config

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        config=gguf_config(gguf),
        dtype=getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **dequantize_options(),
    )
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ModelError(f"{gguf.name} lacks {len(missing)} of the model's weights, {missing[0]} first")
    check_all_read(gguf, model)
    return model


def _read_tokenizer(gguf: Path, header: GGUFHeader) -> PreTrainedTokenizerBase:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )
    if header.metadata.get("tokenizer.ggml.pre") in _DIGIT_SPLITTING:
        # transformers drops the split into digits, and then joins white space before numbers differently.
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        )
    for name, key in _SPECIAL_KEYS.items():
        # Older versions of transformers confuse the tokens for end and start of a turn; the file has the right ones.
        token_id = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None and 0 <= int(token_id) < len(tokenizer):
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(int(token_id)))
    context_len = header.metadata.get(f"{header.architecture}.context_length")
    if context_len:
        tokenizer.model_max_length = int(context_len)
    return tokenizer


def _write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, header: GGUFHeader, into: Path) -> None:
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    # `save_pretrained` refuses a model read from a GGUF, although its weights are dequantised.
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config._name_or_path = ""
    config.save_pretrained(into)
    eos_ids = turn_end_ids(tokenizer, header)
    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=eos_ids or None, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(into)
    save_file(_unshared(model.state_dict()), into / "model.safetensors", metadata={"format": "pt"})


def turn_end_ids(tokenizer: PreTrainedTokenizerBase, header: GGUFHeader) -> list[int]:
    """Ids that end a reply: those of the file, and the turn-ending tokens in the chat template."""
    ids = [header.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    ids.append(tokenizer.eos_token_id)
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    vocab = tokenizer.get_vocab()
    ids += [vocab[token] for token in _TURN_ENDS if token in template and token in vocab]
    return sorted({int(token_id) for token_id in ids if token_id is not None})


def _unshared(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors without second names of shared ones (a tied output head), which safetensors refuses."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    unique = {}
    for name, tensor in tensors.items():
        identity = (tensor.data_ptr(), tuple(tensor.shape))
        if identity not in seen:
            seen.add(identity)
            unique[name] = tensor.contiguous()
    return unique


def _cache_gguf_reads() -> None:
    """Halve the time: transformers reads the file three times and builds a name table for each submodule.

    Only `main` calls this, because it replaces two names of the gguf package for the rest of the process.
    """
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)


def main(gguf: str, into: str) -> int:
    """Entry point of the process: print one line of JSON on stdout per step, and one for an error."""

    def send(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    _cache_gguf_reads()
    try:
        convert_here(Path(gguf), Path(into), lambda text: send(step=text))
    except ModelError as error:
        send(error=error.message, hint=error.hint)
    except OSError as error:
        send(errno=error.errno, error=error.strerror or str(error))
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
