"""A model comes from a directory; what is missing or refused is said before any weight is read."""

from __future__ import annotations

import pytest

from treechat_engine import Engine, EngineConfig, EngineError, SamplingParams, UnsupportedModelError


def test_a_directory_is_loaded_with_progress_and_generates_the_same(models, greedy, prompt, tmp_path):
    models("llama").save_pretrained(tmp_path)
    told: list[str] = []
    with Engine.load(tmp_path, EngineConfig(device="cpu", kv_tokens=128), told.append) as engine:
        (done,) = engine.generate([prompt(20)], SamplingParams(max_tokens=6))
        assert engine.stats().dtype == "float32"
    assert list(done.token_ids) == greedy("llama", prompt(20), 6)
    assert told[-1] == "Ready"
    assert any("weights" in text for text in told)


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
