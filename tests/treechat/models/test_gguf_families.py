"""GGUF files of other families give their source models, including parameters that transformers drops."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
import transformers

from tests.treechat.models.gguf_families import FAMILIES, VOCAB_SIZE, build, write
from treechat.errors import ModelError
from treechat.models.conversion import convert_here
from treechat_engine import Engine, EngineConfig, SamplingParams, UnsupportedModelError
from treechat_engine.model.gguf_config import check_all_read, gguf_config

# Longer than the attention windows and original contexts of these families.
IDS = torch.randint(VOCAB_SIZE, (1, 100), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gguf_of_the_family_gives_the_logits_of_its_source_model(name, tmp_path):
    family = FAMILIES[name]
    original = build(family)
    path = write(tmp_path / "Tiny-Family.F32.gguf", family, original)
    into = tmp_path / "converted"
    into.mkdir()
    convert_here(path, into, lambda text: None)
    converted = transformers.AutoModelForCausalLM.from_pretrained(into, dtype=torch.float32)
    with torch.inference_mode():
        expected, actual = original(IDS).logits, converted(IDS).logits
    assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()
    assert converted.config.max_position_embeddings == 256


def test_the_engine_reads_a_gguf_of_another_family(tmp_path):
    family = FAMILIES["gemma2"]
    original = build(family)
    path = write(tmp_path / "gemma.gguf", family, original)
    ids = IDS[0, :30].tolist()
    expected = original.generate(torch.tensor([ids]), max_new_tokens=6, min_new_tokens=6, do_sample=False)
    with Engine.load(path, EngineConfig(device="cpu", kv_tokens=64)) as engine:
        (done,) = engine.generate([ids], SamplingParams(max_tokens=6, ignore_eos=True))
    assert list(done.token_ids) == expected[0, 30:].tolist()


def test_a_file_with_longrope_is_refused_by_the_engine_before_its_weights_are_read(tmp_path):
    family = FAMILIES["phi3, longrope"]
    path = write(tmp_path / "phi.gguf", family, build(family))
    with pytest.raises(UnsupportedModelError, match=r"longrope.*max_model_len to at most 64"):
        Engine.load(path, EngineConfig(device="cpu"))


def test_frequencies_that_no_rope_type_expresses_are_refused(tmp_path):
    family = FAMILIES["llama, linear"]
    path = write(tmp_path / "odd.gguf", family, build(family))
    odd = tmp_path / "copy.gguf"
    _copy_with(path, odd, "rope_freqs.weight", np.array([1, 5, 2, 9], dtype=np.float32))
    with pytest.raises(UnsupportedModelError, match="frequencies"):
        gguf_config(odd)
    with pytest.raises(ModelError, match="frequencies"):
        convert_here(odd, tmp_path, lambda text: None)


def test_a_file_with_unused_weights_is_refused(tmp_path):
    family = FAMILIES["llama 3"]
    model = build(family)
    path = write(tmp_path / "whole.gguf", family, model)
    check_all_read(path, model)
    more = tmp_path / "more.gguf"
    _copy_with(path, more, "blk.0.attn_q.bias", np.ones(32, dtype=np.float32))
    with pytest.raises(UnsupportedModelError, match="32 weights"):
        check_all_read(more, model)
    with pytest.raises(ModelError, match="32 weights"):
        convert_here(more, tmp_path, lambda text: None)


def _copy_with(path, into, name, tensor):
    """The same GGUF with one more tensor."""
    reader = gguf.GGUFReader(str(path))
    writer = gguf.GGUFWriter(str(into), reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(
                field.name, field.contents(), field.types[0], *field.types[-1:] if len(field.types) > 1 else ()
            )
    for each in reader.tensors:
        writer.add_tensor(each.name, each.data)
    writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
