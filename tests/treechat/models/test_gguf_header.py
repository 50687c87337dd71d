"""The GGUF header: its content, and a ModelError for any damage."""

import random

import pytest

from treechat.errors import ModelError
from treechat.models.gguf_header import read_header


def test_the_header_gives_metadata_and_the_number_of_parameters(tiny_gguf):
    header = read_header(tiny_gguf)
    assert header.architecture == "llama"
    assert header.metadata["tokenizer.ggml.pre"] == "smollm"
    assert header.metadata["tokenizer.ggml.eos_token_id"] == 0
    per_layer = 2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128
    assert header.num_params == 263 * 64 + 64 + 2 * per_layer


def test_a_truncated_file_is_refused_with_both_sizes(tiny_gguf, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="is cut off"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04 a zip", b"GGUF" + b"\xff" * 100])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    path = tmp_path / "no.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_header(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_header(tmp_path / "missing.gguf")


def test_a_damaged_header_is_read_or_raises_a_model_error(tiny_gguf, tmp_path):
    whole, path = tiny_gguf.read_bytes()[:9000], tmp_path / "damaged.gguf"
    rng = random.Random(7)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(ModelError):
            read_header(path)
