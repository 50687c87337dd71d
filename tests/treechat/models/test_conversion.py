"""GGUF to safetensors: the model equals the GGUF read directly; the conversion runs once and is all or nothing."""

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from treechat import models
from treechat.errors import ModelError
from treechat.models import conversion, conversion_process, registry


def test_the_converted_model_gives_the_same_logits_as_the_gguf(converted, tiny_gguf):
    files, _ = converted
    models.silence_libraries()
    direct = AutoModelForCausalLM.from_pretrained(str(tiny_gguf.parent), gguf_file=tiny_gguf.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(files.path)
    ids = torch.arange(3, 67)[None]
    with torch.no_grad():
        expected, actual = direct(ids).logits, ours(ids).logits
    assert expected.std() > 0.1
    assert torch.equal(expected, actual)


def test_a_tied_head_is_stored_once_in_float32(converted):
    files, _ = converted
    with safe_open(files.path / "model.safetensors", "pt") as tensors:
        assert "model.embed_tokens.weight" in tensors.keys()  # noqa: SIM118
        assert "lm_head.weight" not in tensors.keys()  # noqa: SIM118
        assert {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()} == {"F32"}  # noqa: SIM118
    config = json.loads((files.path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_the_end_of_turn_token_is_known_if_the_file_has_another_eos(converted):
    files, _ = converted
    generation = json.loads((files.path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 2]
    tokenizer = models.load_tokenizer(files)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0, 2)


def test_the_tokenizer_splits_digits_and_white_space_as_in_training(converted):
    tokenizer = models.load_tokenizer(converted[0])
    assert tokenizer.convert_ids_to_tokens(tokenizer("the  12").input_ids) == ["t", "he", "ĠĠ", "1", "2"]
    assert tokenizer.decode(tokenizer("näher 🙂").input_ids) == "näher 🙂"
    assert tokenizer.model_max_length == 256


def test_the_tokenizer_has_the_chat_template_of_the_file(converted):
    tokenizer = models.load_tokenizer(converted[0])
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer(text).input_ids[0] == 1


def test_the_steps_are_reported_in_order(converted):
    files, seen = converted
    assert {progress.stage for progress in seen} == {"convert"}
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].done == seen[-1].total
    assert not list(files.path.glob("*.log"))


def test_a_second_start_does_not_convert_even_if_the_file_moved(converted, tiny_gguf, tmp_path, monkeypatch):
    files, _ = converted
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(files.path.parents[1]))
    moved = Path(shutil.copy(tiny_gguf, tmp_path / tiny_gguf.name))
    seen = []
    assert models.is_ready(str(moved))
    assert models.resolve(str(moved), seen.append) == files
    assert seen == []
    assert models.resolve(files.name).path == files.path


def test_another_fine_tune_of_the_same_size_is_another_model(tiny_gguf, tmp_path, monkeypatch, converted):
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(converted[0].path.parents[1]))
    content = bytearray(tiny_gguf.read_bytes())
    content[-100:] = bytes(100)
    other = tmp_path / tiny_gguf.name
    other.write_bytes(content)
    assert not models.is_ready(str(other))


def test_an_unknown_architecture_is_refused_and_leaves_no_files(tiny_gguf, tmp_path, cache_dir):
    path = tmp_path / "odd.gguf"
    path.write_bytes(tiny_gguf.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0xyzzy"))
    with pytest.raises(ModelError, match=r"odd.gguf \(xyzzy\) cannot be converted") as caught:
        models.resolve(str(path))
    assert "safetensors" in caught.value.hint
    assert models.installed() == []
    assert [p.name for p in registry.models_dir().iterdir()] == [".locks"]


def test_a_cancelled_conversion_leaves_no_files_and_those_of_a_killed_one_are_removed(tiny_gguf, cache_dir):
    def cancel(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.resolve(str(tiny_gguf), cancel)
    assert [p.name for p in registry.models_dir().iterdir()] == [".locks"]
    (lock,) = (registry.models_dir() / ".locks").iterdir()
    abandoned = registry.models_dir() / f".building-{lock.name}-killed"
    abandoned.mkdir()
    with pytest.raises(KeyboardInterrupt):
        models.resolve(str(tiny_gguf), cancel)
    assert not abandoned.exists()


def test_of_two_concurrent_conversions_the_second_waits(cache_dir):
    waiting, released = threading.Event(), threading.Event()

    def second():
        with registry.lock_of("m", lambda progress: waiting.set()):
            released.wait(10)

    with registry.lock_of("m", lambda progress: None):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        assert thread.is_alive()
    released.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_waiting_conversion_can_be_cancelled(cache_dir):
    def give_up(progress):
        assert "another treechat" in progress.text
        raise TimeoutError

    with registry.lock_of("m", lambda progress: None), pytest.raises(TimeoutError), registry.lock_of("m", give_up):
        pass


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ('{"error": "x is damaged", "hint": "h"}\n', "x is damaged"),
        ("Traceback\nRuntimeError: broken\n", "RuntimeError: broken"),
        ("{not json\n", "not json"),
    ],
)
def test_the_last_output_of_the_process_becomes_the_error(tmp_path, log, message):
    path = tmp_path / "log"
    path.write_text(log)
    error = conversion_process.conversion_error(tmp_path / "m.gguf", 10**9, 1, path)
    assert isinstance(error, ModelError)
    assert message in error.message


def test_the_error_for_a_killed_conversion_names_memory(tmp_path):
    path = tmp_path / "log"
    path.write_text("")
    error = conversion_process.conversion_error(tmp_path / "m.gguf", 10**9, -9, path)
    assert "about 8 GB" in str(error)


def test_a_large_model_is_stored_in_half_precision():
    header = conversion.GGUFHeader({"general.file_type": 2}, 7 * 10**9)
    assert conversion.dtype_name(header) == "bfloat16"
    assert conversion.dtype_name(conversion.GGUFHeader({"general.file_type": 1}, 7 * 10**9)) == "float16"
    assert conversion.dtype_name(conversion.GGUFHeader({}, 135 * 10**6)) == "float32"
