"""A tiny random llama as a GGUF, a wheel that contains it, and a separate cache directory."""

import fcntl
import hashlib
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from treechat import models
from treechat.models import Progress, resolver
from treechat.models.files import ProgressCallback
from treechat.models.wheel import PinnedWheel

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, MLP_WIDTH, NUM_LAYERS, NUM_HEADS, NUM_KV_HEADS = 64, 128, 2, 4, 2


def byte_tokens() -> list[str]:
    """The 256 printable characters that byte-level BPE uses for bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    table = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [table[b] for b in range(256)]


def write_tokenizer(writer: gguf.GGUFWriter) -> int:
    """Add a byte-level tokenizer of the smollm kind; returns the size of its vocabulary."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = ["Ġ Ġ", "Ġ t", "h e", "Ġt he"]
    tokens = specials + byte_tokens() + [merge.replace(" ", "") for merge in merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(specials) + [1] * (len(tokens) - len(specials)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def write_gguf(path: Path, seed: int = 0, architecture: str = "llama") -> Path:
    """A llama of two layers: linears in Q8_0, norms and the tied embedding in float32."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("Tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(NUM_LAYERS)
    writer.add_feed_forward_length(MLP_WIDTH)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // NUM_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    vocab_size = write_tokenizer(writer)
    writer.add_vocab_size(vocab_size)

    def linear(name: str, *shape: int) -> None:
        weights = rng.normal(0, 0.1, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    writer.add_tensor("token_embd.weight", rng.normal(0, 0.5, (vocab_size, WIDTH)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    kv_width = WIDTH // NUM_HEADS * NUM_KV_HEADS
    for layer in range(NUM_LAYERS):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        writer.add_tensor(block + "ffn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        linear(block + "attn_q.weight", WIDTH, WIDTH)
        linear(block + "attn_k.weight", kv_width, WIDTH)
        linear(block + "attn_v.weight", kv_width, WIDTH)
        linear(block + "attn_output.weight", WIDTH, WIDTH)
        linear(block + "ffn_gate.weight", MLP_WIDTH, WIDTH)
        linear(block + "ffn_up.weight", MLP_WIDTH, WIDTH)
        linear(block + "ffn_down.weight", WIDTH, MLP_WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory):
    """Path of the tiny GGUF. Tests must not change the file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "Tiny-Chat.Q8_0.gguf")


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    """An empty cache directory, used during this test."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(directory))
    return directory


@pytest.fixture(scope="session")
def converted(tiny_gguf, tmp_path_factory):
    """The tiny GGUF, converted once per test run: (ModelFiles, the reported progress)."""
    folder = tmp_path_factory.getbasetemp()
    # Under xdist all workers share the parent folder. The first worker converts, the others wait for it.
    shared = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "converted"
    shared.mkdir(exist_ok=True)
    report = shared / "report.pickle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREECHAT_CACHE_DIR", str(shared))
        with (shared / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not report.exists():
                seen: list[Progress] = []
                report.write_bytes(pickle.dumps((models.resolve(str(tiny_gguf), seen.append), seen)))
    return pickle.loads(report.read_bytes())


@pytest.fixture
def conversion_by_copy(converted, tiny_gguf, monkeypatch):
    """Copy the result of the one conversion, for a test of another stage that fetches the tiny GGUF."""
    files, seen = converted
    original = tiny_gguf.read_bytes()

    def convert(gguf: Path, into: Path, progress: ProgressCallback) -> None:
        assert gguf.read_bytes() == original
        shutil.copytree(files.path, into, dirs_exist_ok=True)
        for each in seen:
            progress(each)

    monkeypatch.setattr(resolver, "convert_gguf", convert)


@pytest.fixture
def tiny_wheel(tiny_gguf, tmp_path, monkeypatch):
    """A wheel with the tiny GGUF, in a local index for the real pip. No network."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_model-1.0-py3-none-any.whl"
    metadata = "tiny_model-1.0.dist-info/"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tiny_gguf, "tiny_model/tiny.gguf")
        archive.writestr(metadata + "METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(metadata + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(metadata + "RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return PinnedWheel(
        package="tiny-model",
        version="1.0",
        filename=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        member="tiny_model/tiny.gguf",
        member_bytes=tiny_gguf.stat().st_size,
    )


@pytest.fixture
def other_wheel(tiny_wheel):
    """Make a copy of the pinned wheel with some fields replaced."""
    return lambda **facts: replace(tiny_wheel, **facts)
