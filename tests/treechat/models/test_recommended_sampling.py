"""The recommendation of a model's authors is read, and invalid values are ignored."""

import json
from pathlib import Path

import pytest

from treechat.config import Sampling
from treechat.models import DEFAULT_MODEL, ModelFiles, recommended_sampling


def files(path: Path, name: str = "some") -> ModelFiles:
    return ModelFiles(name, path, "dir:some")


def test_generation_config_is_read(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_k": 20, "eos_token_id": 2}))
    assert recommended_sampling(files(tmp_path)) == Sampling(temperature=0.6, top_k=20)


@pytest.mark.parametrize("text", ["", "[]", '{"temperature": "hot", "top_p": null, "min_p": -1}'])
def test_invalid_values_are_ignored(tmp_path, text):
    (tmp_path / "generation_config.json").write_text(text)
    assert recommended_sampling(files(tmp_path)) == Sampling()


def test_the_default_model_uses_the_values_of_its_card(tmp_path):
    assert recommended_sampling(files(tmp_path, DEFAULT_MODEL)) == Sampling(temperature=0.2, top_p=0.9)
