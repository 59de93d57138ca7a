"""What only a CUDA device can show: no host synchronisation, no recompilation, graph replay."""

import pytest
import torch

from sbkernels import coverage_curve, moba_attention, select_blocks
from sbkernels.graphs import captured
from sbkernels.moba.triton import backward_gather, forward, forward_gather, forward_union, select
from sbkernels.testing import (
    PackedInputs,
    assert_close,
    assert_error_rule,
    attend_masked,
    make_inputs,
)

pytestmark = pytest.mark.gpu
LENGTHS = (900, 0, 1, 2000)
KERNELS = (
    backward_gather._backward_gather_kernel,
    forward_gather._forward_gather_kernel,
    forward_union._forward_union_kernel,
    select._select_kernel,
)


@pytest.fixture(autouse=True)
def both_layouts(monkeypatch) -> None:
    """Short as these sequences are, all kernels are launched."""
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)


@pytest.fixture
def inputs() -> PackedInputs:
    return make_inputs(
        LENGTHS,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        family="iid",
        seed=0,
        dtype=torch.bfloat16,
        device="cuda",
    )


def attend(inputs, top_k, q=None, k=None, v=None):
    return moba_attention(
        inputs.q if q is None else q,
        inputs.k if k is None else k,
        inputs.v if v is None else v,
        inputs.cu_seqlens,
        top_k,
        block_size=64,
        max_seqlen=2000,
    )


def leaves(inputs):
    return [x.detach().clone().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]


def run(inputs, top_k):
    q, k, v = leaves(inputs)
    out = attend(inputs, top_k, q, k, v)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))


def budget(top_k):
    return torch.full((len(LENGTHS),), top_k, dtype=torch.int32, device="cuda")


@pytest.mark.parametrize("family", ["iid", "correlated"])
@pytest.mark.parametrize(("head_dim", "block_size"), [(128, 256), (64, 256), (128, 128), (64, 64)])
def test_bfloat16_obeys_the_error_rule(head_dim, block_size, family):
    inputs = make_inputs(
        LENGTHS,
        num_heads=4,
        num_kv_heads=2,
        head_dim=head_dim,
        family=family,
        seed=0,
        dtype=torch.bfloat16,
        device="cuda",
    )
    sizes = {"block_size": block_size, "max_seqlen": 2000}
    selection = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, 3, **sizes)
    exact = attend_masked(inputs.to(torch.float64), selection, scale=head_dim**-0.5)
    plain = attend_masked(inputs, selection, scale=head_dim**-0.5)
    q, k, v = leaves(inputs)
    out = moba_attention(q, k, v, inputs.cu_seqlens, 3, **sizes)
    got = (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))
    for name, ours, true, baseline in zip(
        ("out", "dq", "dk", "dv"), got, exact, plain, strict=True
    ):
        assert_error_rule(name, ours, true, baseline)


def test_nothing_is_read_back_to_the_host(inputs):
    top_k = budget(5)
    run(inputs, top_k)
    ladder = {"block_size": 64, "max_seqlen": 2000, "ladder": (1, 4, 9)}
    coverage_curve(inputs.q, inputs.k, inputs.cu_seqlens, **ladder)  # copies the ladder once
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(inputs, top_k)
        coverage_curve(inputs.q, inputs.k, inputs.cu_seqlens, **ladder)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_budget_compiles_anew(inputs):
    def num_compiled():
        return sum(len(cache[0]) for kernel in KERNELS for cache in kernel.device_caches.values())

    run(inputs, budget(1))
    compiled = num_compiled()
    assert compiled >= len(KERNELS)
    for top_k in (2, 3, 7, 16, 31, 32, 33, 64, 1000):
        run(inputs, budget(top_k))
    assert num_compiled() == compiled


def test_one_graph_serves_every_budget(inputs):
    top_k = budget(4)
    q, k, v = leaves(inputs)

    def step():
        out = attend(inputs, top_k, q, k, v)
        return (out, *torch.autograd.grad(out, (q, k, v), inputs.grad_out))

    replay = captured(step)
    for value in (1, 9, 3, 1000):
        top_k.fill_(value)
        for ours, wanted in zip(replay(), run(inputs, value), strict=True):
            # The order of atomic additions moves the last bits of bfloat16.
            assert_close(f"top_k = {value}", ours.detach(), wanted, tolerance=0.01)


def test_offsets_beyond_31_bits():
    num_tokens = (1 << 31) // (64 * 128) + 512
    q = torch.zeros((num_tokens, 64, 128), dtype=torch.bfloat16, device="cuda")
    k = torch.zeros((num_tokens, 1, 128), dtype=torch.bfloat16, device="cuda")
    tail = slice(num_tokens - 512, num_tokens)
    generator = torch.Generator("cuda").manual_seed(0)
    for x in (q, k):
        x[tail].normal_(generator=generator)
    # Many short sequences: little work, far offsets.
    cu_seqlens = torch.arange(0, num_tokens + 1, 512, dtype=torch.int32, device="cuda")
    short = torch.tensor([0, 512], dtype=torch.int32, device="cuda")
    sizes = {"block_size": 128, "max_seqlen": 512}
    q.requires_grad_()
    out = moba_attention(q, k, k, cu_seqlens, 2, **sizes)
    grad = torch.zeros_like(out)
    grad[tail] = 1.0
    (dq,) = torch.autograd.grad(out, q, grad)
    last = q[tail].detach().clone().requires_grad_()
    wanted = moba_attention(last, k[tail], k[tail], short, 2, **sizes)
    (wanted_dq,) = torch.autograd.grad(wanted, last, grad[tail])
    assert_close("out", out[tail].detach(), wanted.detach(), tolerance=0.01)
    assert_close("dq", dq[tail], wanted_dq, tolerance=0.01)
