"""Models are loaded from a directory; missing or refused ones are reported before any weight is read."""

from __future__ import annotations

import json

import pytest

from treechat_engine import Engine, EngineConfig, EngineError, SamplingParams, UnsupportedModelError


def test_a_directory_is_loaded_with_progress_and_generates_the_same(models, greedy, prompt, tmp_path):
    models("llama").save_pretrained(tmp_path)
    texts: list[str] = []
    with Engine.load(tmp_path, EngineConfig(device="cpu", kv_tokens=128), texts.append) as engine:
        (done,) = engine.generate([prompt(20)], SamplingParams(max_tokens=6))
        assert engine.stats().dtype == "float32"
    assert list(done.token_ids) == greedy("llama", prompt(20), 6)
    assert texts[-1] == "Ready"
    assert any("weights" in text for text in texts)


def test_a_missing_file_or_an_unknown_dtype_is_an_error_with_its_name(models, tmp_path):
    with pytest.raises(EngineError, match=r"nowhere\.gguf"):
        Engine.load(tmp_path / "nowhere.gguf")
    with pytest.raises(EngineError, match="cannot be loaded"):
        Engine.load(tmp_path)
    models("llama").save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="int3"):
        Engine.load(tmp_path, EngineConfig(device="cpu", dtype="int3"))


def test_a_model_that_cannot_run_is_refused_before_its_weights_are_read(models, tmp_path):
    models("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = (tmp_path / "config.json").read_text()
    changed = config.replace('"rope_type": "default"', '"rope_type": "dynamic", "factor": 2.0')
    assert changed != config
    (tmp_path / "config.json").write_text(changed)
    with pytest.raises(UnsupportedModelError, match="dynamic"):
        Engine.load(tmp_path, EngineConfig(device="cpu"))


DAMAGES = {
    "weights cut off": ("model.safetensors", lambda data: data[:-10]),
    "weights of five bytes": ("model.safetensors", lambda data: data[:5]),
    "weights that are none": ("model.safetensors", lambda _: b"\xff" * 100),
    "config that is no JSON": ("config.json", lambda data: data[:-10]),
    "config of bytes": ("config.json", lambda _: b"\xff\xfe\x00"),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_an_error_with_the_models_name(models, tmp_path, name, damage):
    models("llama").save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(EngineError, match=f"the model {tmp_path} cannot be loaded"):
        Engine.load(tmp_path, EngineConfig(device="cpu"))


WRONG = [
    {"hidden_size": "x"},
    {"hidden_size": 64},
    {"num_attention_heads": 0},
    {"vocab_size": 10},
    {"rope_parameters": "x"},
    {"num_hidden_layers": 3},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_a_config_that_does_not_fit_the_weights_is_an_error(models, tmp_path, values):
    """The config has three layers and the weights have two; transformers would initialise the third randomly."""
    models("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(EngineError, match=r"cannot be loaded|missing from its files: model\.layers\.2"):
        Engine.load(tmp_path, EngineConfig(device="cpu"))


@pytest.mark.parametrize("device", ["no such device", "meta"])
def test_a_missing_device_is_an_error_with_its_name(models, tmp_path, device):
    with pytest.raises(EngineError, match=device):
        Engine.load(tmp_path, EngineConfig(device=device))


NONSENSE = ["max_batch", "prefill_chunk", "kv_tokens", "num_threads", "max_model_len"]


@pytest.mark.parametrize(("name", "value"), [*((name, 0) for name in NONSENSE), ("host_tokens", -1)])
def test_an_invalid_number_is_refused_by_its_name(name, value):
    with pytest.raises(EngineError, match=name):
        EngineConfig(**{name: value})


@pytest.mark.parametrize("name", ["kv_tokens", "host_tokens"])
def test_too_much_memory_is_refused_by_its_name_and_the_model_is_unchanged(models, name):
    model = models("llama")
    before = model.config._attn_implementation
    with pytest.raises(EngineError, match=name):
        Engine(model, EngineConfig(**({"kv_tokens": 64} | {name: 10**13})))
    assert model.config._attn_implementation == before


def test_an_eviction_policy_of_another_name_is_refused(models):
    with pytest.raises(EngineError, match=r"mru.*tree"):
        Engine(models("llama"), EngineConfig(kv_tokens=64, eviction="mru"))
