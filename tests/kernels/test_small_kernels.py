"""The small kernels agree with their references in float64, on odd lengths and views."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from treechat_kernels import reference
from treechat_kernels.gather_scatter import gather_slots, scatter_slots
from treechat_kernels.linear import linear_row
from treechat_kernels.rms_norm import rms_norm
from treechat_kernels.rotary import rotary
from treechat_kernels.sample import pick
from treechat_kernels.silu_mul import ACTIVATIONS, gate_mul, silu_mul
from treechat_kernels.write_kv import rotate_and_write, write_kv

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# One unit in the last place: a result is rounded once, but the interpreter truncates to bfloat16.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture
def rand(device):
    generator = torch.Generator().manual_seed(5)
    return lambda *shape, dtype=torch.float32: torch.randn(*shape, generator=generator).to(dtype).to(device)


def close(out, expected):
    torch.testing.assert_close(out.double(), expected.double(), atol=TOLERANCE[out.dtype], rtol=TOLERANCE[out.dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [15, 128, 576])
@pytest.mark.parametrize(("weighted", "plus_one"), [(True, False), (True, True), (False, False)])
def test_rms_norm(rand, dtype, dim, weighted, plus_one):
    x, weight = rand(3, dim, dtype=dtype), rand(dim, dtype=dtype) if weighted else None
    out, summed = rms_norm(x, weight, 1e-5, plus_one=plus_one)
    expected, _ = reference.rms_norm(x.double(), weight.double() if weighted else None, 1e-5, plus_one=plus_one)
    close(out, expected)
    assert summed is x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rms_norm_adds_the_residual_first_and_returns_the_sum(rand, dtype):
    x, residual, weight = rand(5, 129, dtype=dtype), rand(5, 129, dtype=dtype), rand(129, dtype=dtype)
    out, summed = rms_norm(x, weight, 1e-5, residual=residual)
    close(summed, x.double() + residual.double())
    close(out, reference.rms_norm(summed.double(), weight.double(), 1e-5)[0])


def test_rms_norm_by_head_of_a_view(rand):
    x, weight = rand(7, 9, 80)[:, 2:7], rand(5, 80)
    assert not x.is_contiguous()
    close(rms_norm(x, weight, 1e-6)[0], reference.rms_norm(x.double(), weight.double(), 1e-6)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "width"), [(64, 64), (80, 32), (96, 96)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_of_a_view_whole_and_partial(rand, dtype, dim, width, interleaved):
    x = rand(15, 11, dim, dtype=dtype)[:, :9]
    table = rand(15, 2, width, dtype=dtype)
    cos, sin = table[:, 0], table[:, 1]
    out = rotary(x, cos, sin, interleaved=interleaved)
    close(out, reference.rotary(x.double(), cos.double(), sin.double(), interleaved=interleaved))
    assert torch.equal(out[..., width:], x[..., width:])


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("table", ["whole", "half"])
def test_rotary_by_tables_without_the_sign(rand, interleaved, table):
    x, theta = rand(3, 5, 24), rand(3, 8)
    double = (lambda t: t.repeat_interleave(2, -1)) if interleaved else (lambda t: torch.cat([t, t], -1))
    cos, sin = (t if table == "half" else double(t) for t in (theta.cos(), theta.sin()))
    sign = (
        torch.tensor([-1.0, 1.0]).to(x).repeat(8)
        if interleaved
        else torch.tensor([-1.0, 1.0]).to(x).repeat_interleave(8)
    )
    folded = double(theta.cos()), double(theta.sin()) * sign
    expected = reference.rotary(x.double(), *(t.double() for t in folded), interleaved=interleaved)
    for rotate in (rotary, reference.rotary):
        close(rotate(x, cos, sin, interleaved=interleaved, table=table), expected)


def test_the_rotary_reference_is_a_rotation_by_the_angle(rand):
    x, theta = rand(4, 2, 8).double(), rand(4, 3).double()
    pairs = torch.complex(x[..., :3], x[..., 3:6]) * torch.exp(1j * theta).unsqueeze(1)
    cos, sin = torch.cat([theta.cos()] * 2, -1), torch.cat([-theta.sin(), theta.sin()], -1)
    expected = torch.cat([pairs.real, pairs.imag, x[..., 6:]], -1)
    torch.testing.assert_close(reference.rotary(x, cos, sin), expected)
    pairs = torch.complex(x[..., 0:6:2], x[..., 1:6:2]) * torch.exp(1j * theta).unsqueeze(1)
    cos, sin = theta.cos().repeat_interleave(2, -1), torch.stack([-theta.sin(), theta.sin()], -1).flatten(1)
    expected = torch.cat([torch.view_as_real(pairs).flatten(-2), x[..., 6:]], -1)
    torch.testing.assert_close(reference.rotary(x, cos, sin, interleaved=True), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("dim", [15, 1100])
def test_silu_mul(rand, dtype, activation, dim):
    gate_up = rand(3, 2 * dim, dtype=dtype) * 3
    close(silu_mul(gate_up, activation), reference.silu_mul(gate_up.double(), activation))


def test_gate_mul_of_views_of_two_tensors(rand):
    gate, up = rand(3, 40)[:, :33], rand(3, 33, 2)[..., 0]
    close(gate_mul(gate, up, "gelu"), reference.gate_mul(gate.double(), up.double(), "gelu"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_write_kv_fills_its_slots_and_no_other(rand, device, dtype):
    pools = [torch.full((50, 3, dim), float("nan"), dtype=dtype, device=device) for dim in (20, 12)]
    k, v = rand(3, 17, 20, dtype=dtype).transpose(0, 1), rand(17, 3, 12, dtype=dtype)
    slots = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:17].to(device)
    write_kv(*pools, k, v, slots)
    for pool, new in zip(pools, (k, v), strict=True):
        assert torch.equal(pool[slots], new)
        assert pool.isnan().all(dim=(1, 2)).sum() == 33


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gathered_rows_are_scattered_to_other_slots(rand, device, dtype):
    pools = [rand(40, 2, 24, dtype=dtype) for _ in range(3)]
    before = [pool.clone() for pool in pools]
    picked, to = torch.randperm(40, generator=torch.Generator().manual_seed(1)).to(device).split([15, 25])
    block = gather_slots(pools, picked)
    assert torch.equal(block, reference.gather_slots(pools, picked))
    scatter_slots(pools, to[:15], block)
    for pool, old, rows in zip(pools, before, block, strict=True):
        assert torch.equal(pool[to[:15]], rows)
        assert torch.equal(pool[to[15:]], old[to[15:]]) and torch.equal(pool[picked], old[picked])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab_size", [17, 4097, 9000])
def test_pick_returns_the_first_of_the_most_likely_tokens(rand, dtype, vocab_size):
    logits = rand(3, vocab_size, dtype=dtype) * 4
    logits[1, vocab_size // 2] = logits[1, vocab_size - 1] = 30.0
    logits[2, : vocab_size // 3] = float("-inf")
    token, logprob = pick(logits)
    expected, expected_logprob = reference.pick(logits.double())
    assert torch.equal(token, expected) and token[1] == vocab_size // 2
    torch.testing.assert_close(logprob.double(), expected_logprob, atol=2e-5, rtol=0)


@pytest.mark.parametrize("gate", [None, "silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize(("out_len", "in_len"), [(6, 48), (34, 1100), (2, 2048)])
def test_a_linear_layer_of_one_row(device, gate, out_len, in_len):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, in_len), torch.randn(out_len, in_len) / in_len**0.5, torch.randn(out_len)
    residual = torch.randn(1, out_len // (2 if gate else 1))
    args = [each.to(device) for each in (x, weight, bias)]
    for biased, added in ((False, False), (True, True)):
        out = linear_row(*args[: 3 if biased else 2], residual=residual.to(device) if added else None, gate=gate)
        exact = [each.double() for each in (x, weight, bias)][: 3 if biased else 2]
        expected = reference.linear_row(*exact, residual=residual.double() if added else None, gate=gate)
        torch.testing.assert_close(out.cpu().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_linear_layer_of_one_row_that_is_normed_first(device, weighted):
    torch.manual_seed(0)
    x, weight, norm = torch.randn(1, 576), torch.randn(34, 576) / 24, torch.randn(576)
    out = linear_row(x.to(device), weight.to(device), norm=(norm.to(device) if weighted else None, 1e-5), gate="silu")
    expected = reference.linear_row(
        x.double(), weight.double(), norm=(norm.double() if weighted else None, 1e-5), gate="silu"
    )
    torch.testing.assert_close(out.cpu().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dim", "width"), [(64, 64), (80, 32)])
def test_rotating_and_writing_in_one_launch(device, dim, width):
    torch.manual_seed(0)
    qkv = torch.randn(5, 6 + 2 + 2, dim)
    qk, v = qkv[:, :8], qkv[:, 8:]
    cos, sin = torch.randn(5, 2, width).unbind(1)
    slots = torch.tensor([7, 0, 3, 9, 4])
    pools = [torch.full((10, 2, dim), float("nan")) for _ in range(2)]
    expected_pools = [pool.clone() for pool in pools]
    on_device = [each.to(device) for each in (qkv, *pools, cos, sin, slots)]
    q = rotate_and_write(*on_device[1:3], on_device[0][:, :8], on_device[0][:, 8:], *on_device[3:])
    expected = reference.rotate_and_write(*expected_pools, qk, v, cos, sin, slots)
    torch.testing.assert_close(q.cpu(), expected)
    for pool, expected_pool in zip(on_device[1:3], expected_pools, strict=True):
        torch.testing.assert_close(pool.cpu(), expected_pool, equal_nan=True)
