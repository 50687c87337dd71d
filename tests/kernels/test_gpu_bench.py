"""The GPU bench runs to its end on a CPU, with tiny models and lengths, and fakes in place of a device."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch

pytest.importorskip("triton")

from tests.bench import gpu, gpu_common, gpu_engine, gpu_kernels, gpu_models, gpu_rivals
from treechat_kernels import prefix_sharing
from treechat_kernels.tuning import tuning
from treechat_kernels.tuning.candidates import candidates
from treechat_kernels.tuning.cases import Scale

TINY = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "tie_word_embeddings": True,
}  # fmt: skip
SIZES = {
    gpu_kernels: {
        "HEADS": ((16, 1, 16),), "DECODES": ((2, 150),), "EXTENDS": ((5, 20),), "SHARED": ((2, 128),),
        "LINEARS": ((6, 24), (8, 40)), "GATED": {(6, 24)}, "FLEX": {(2, 150), (5, 20)},
    },
    gpu_engine: {
        "VOCABULARY": 128, "DECODES": ((1, 20), (2, 20)), "COMPARED": ((2, 20),), "RESUMED": (300,), "SWARM": 40,
        "REPLY": 4, "NEW_TOKENS": 6,
    },
    gpu_models: {"SHAPES": {"0.5B": ("Llama", TINY)}},
    gpu_common: {"DEVICE": "cpu"},
    gpu_rivals: {"MEMORY_SHARE": 0.02},
}  # fmt: skip


def dense(q, k, v, block_mask, enable_gqa):
    """Stand in for a compiled FlexAttention."""
    assert enable_gqa and (block_mask is None) == (q.shape[2] == 1)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def timed(run):
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


@pytest.fixture
def no_device(monkeypatch, tmp_path):
    """Fake all answers of a device, and shrink the sizes."""
    for module, sizes in SIZES.items():
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(gpu, "SHAPES", gpu_models.SHAPES)
    monkeypatch.setattr(gpu_kernels, "CHOSEN_TILES", {})
    prefix_sharing.use_rates(prefix_sharing.H100)
    monkeypatch.setenv("TREECHAT_TUNE", "")
    scale = Scale(context=144, num_new=2, cold_bytes=1, prefixes=(128,), num_siblings=(2,), spare=16)
    monkeypatch.setattr(tuning, "Scale", lambda: scale)
    # The interpreter is slow, and test_tuning runs all candidates.
    monkeypatch.setattr(tuning, "candidates", lambda key: candidates(key)[:2])
    monkeypatch.setattr(gpu, "ceilings", lambda: gpu_common.Ceilings(1e9, 1e9))
    monkeypatch.setattr(gpu_common, "seconds", timed)
    monkeypatch.setattr(gpu_rivals, "compiled_flex", lambda: dense)
    monkeypatch.setattr(gpu_common, "device_name", lambda: "no device")
    monkeypatch.setattr(gpu_common, "free_bytes", lambda: 1 << 30)
    monkeypatch.setattr(gpu_common, "finish", lambda: None)
    monkeypatch.setattr(gpu_common, "release", lambda: None)
    yield tmp_path / "out.json"
    prefix_sharing.use_rates(prefix_sharing.H100)


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["gpu", *args])
    return gpu.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here, and take no tensors of the CPU")
@pytest.mark.filterwarnings("ignore")
def test_every_part_of_the_kernels_prints_its_rows(no_device, monkeypatch, capsys):
    assert run(monkeypatch, "--json", str(no_device), "--only", "kernels", "--models", "") == 0, capsys.readouterr().err
    data = json.loads(no_device.read_text())
    notes = [note for note in data.get("notes", []) if "no time for" not in note]
    assert not notes, notes
    names = {row["key"].split("/")[0] for row in data["tuning"]}
    assert names == {"split", "merge", "extend", "linear", "launch"}
    for part in ("decode attention", "extend attention"):
        (row,) = data[part]
        assert row["us"] > 0 and row["fixed_us"] > 0 and row["faster"] > 0 and row["flex_us"] > 0
        assert isinstance(row["flash_us"], str) and "flash_attn" in row["flash_us"], row
    assert data["shared prefix"][0]["chosen"] in (True, False)
    assert len(data["linear of one row"]) == 2


@pytest.mark.filterwarnings("ignore")
def test_every_part_of_the_engine_prints_its_rows(no_device, monkeypatch, capsys):
    assert run(monkeypatch, "--json", str(no_device), "--only", "decode,resume,swarm,others") == 0
    data = json.loads(no_device.read_text())
    assert len(data["notes"]) == 1 and "0.5B: fused forward" in data["notes"][0], capsys.readouterr()
    assert [row["batch"] for row in data["decode"]] == [1, 2] and data["decode"][1]["eager_tokens_per_s"] > 0
    assert data["resume"][0]["jump_ms"] > 0 and data["resume"][0]["restore_ms"] > 0
    assert data["swarm"][0]["shared_slots"] < data["swarm"][0]["separate_slots"]
    (row,) = data["generate"]
    for way in ("generate_dynamic", "generate_static", "continuous_batching"):
        assert isinstance(row[way], float) and row[way] > 0, row


def test_a_part_that_fails_is_a_note_and_the_others_still_run(no_device, monkeypatch):
    def fails(*_args):
        raise RuntimeError("no such kernel\nand more")

    def prints(report, _limits):
        report.row("last", works=True)

    monkeypatch.setattr(gpu_kernels, "PARTS", (fails, prints))
    assert run(monkeypatch, "--json", str(no_device), "--only", "kernels", "--models", "0.5B", "--minutes", "0") == 0
    data = json.loads(no_device.read_text())
    assert data["notes"] == ["failed: RuntimeError: no such kernel", "no time for 0.5B"] and data["last"]
    assert [row["of"] for row in data["seconds"]] == ["kernels: fails", "kernels: prints"]
    assert data["machine"] == "no device"


@pytest.mark.filterwarnings("ignore")
def test_parts_without_time_are_skipped_and_reported(no_device, monkeypatch):
    monkeypatch.setattr(gpu_common.Report, "left_s", 0.0)
    assert run(monkeypatch, "--json", str(no_device)) == 0
    data = json.loads(no_device.read_text())
    notes = [note.partition(": no time")[0] for note in data["notes"] if "no time" in note]
    parts = ["tuning", "decode attention", "extend attention", "shared prefix", "linear of one row"]
    assert notes == [*parts, "0.5B: decode", "0.5B: decode", "0.5B", "0.5B", "0.5B"]
    assert len(data["decode"]) == 1 and len(data["seconds"]) == 9


def test_a_share_of_the_time_ends_with_its_part(tmp_path):
    report = gpu_common.Report(None, time.monotonic() + 60)
    with report.within(0), report.within(30):
        assert report.is_over("kernels") and report.left_s == 0
    assert not report.is_late and 0 < report.left_s <= 60


def test_without_a_device_the_bench_asks_for_one(monkeypatch, capsys):
    monkeypatch.setattr(gpu_common, "device_name", lambda: None)
    assert run(monkeypatch) == 1 and "there is no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("num_new", [1, 5])
def test_the_other_implementations_compute_the_same_attention(num_new, monkeypatch):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, num_new, 16), torch.randn(1, 2, 40, 16), torch.randn(1, 2, 40, 16)
    called = []

    def spy(*args, **kwargs):
        called.append(kwargs)
        return args[0]

    monkeypatch.setattr(gpu_rivals, "compiled_flex", lambda: spy)
    gpu_rivals.flex(q, k, v)()
    mask = called[0]["block_mask"]
    seen = torch.arange(40)[None] <= torch.arange(num_new)[:, None] + 40 - num_new
    if num_new > 1:
        shown = torch.tensor([[bool(mask.mask_mod(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(40)]
                              for i in range(num_new)])  # fmt: skip
        assert torch.equal(shown, seen)
    scores = (q.view(1, 2, 2, num_new, 16) @ k[:, :, None].transpose(-1, -2)) / 4
    expected = (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v[:, :, None]).view(1, 4, num_new, 16)
    torch.testing.assert_close(gpu_rivals.sdpa(q, k, v)(), expected)


def test_a_rival_that_fails_gives_its_reason(monkeypatch):
    monkeypatch.setattr(gpu_common, "seconds", timed)

    def broken():
        raise ValueError("x" * 500 + "\nmore")

    found = gpu_rivals.microseconds({"a": lambda: lambda: None, "b": broken})
    assert found["a_us"] >= 0 and found["b_us"].startswith("ValueError: xx")
    assert len(found["b_us"]) == gpu_rivals.MAX_REASON
