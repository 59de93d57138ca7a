"""What a call asks of memory: as much as the formulas say, and no more than was promised."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from triton.runtime import interpreter

from sbkernels import moba_attention
from sbkernels.moba.triton import forward, windows
from sbkernels.moba.triton.memory import CallSize, backward_bytes, forward_bytes, saved_bytes
from sbkernels.testing import make_inputs

GIB = 2**30
SIZES = {
    "grouped": CallSize(
        num_tokens=4096, num_heads=8, num_kv_heads=2, head_dim=64, block_size=128, max_top_k=6
    ),
    "each its own": CallSize(
        num_tokens=2048, num_heads=6, num_kv_heads=6, head_dim=128, block_size=64, max_top_k=100
    ),
}
MHA_64K = CallSize(
    num_tokens=65536, num_heads=16, num_kv_heads=16, head_dim=128, block_size=128, max_top_k=8
)
GQA_64K = CallSize(
    num_tokens=65536, num_heads=16, num_kv_heads=2, head_dim=128, block_size=256, max_top_k=32
)


def peak_of(call):
    """Returns what the call gave and the most bytes that it held of new ones."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return result, most, held


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts in the interpreter")
@pytest.mark.parametrize("sums_mib", [1024, 3])  # one window of heads, and several
@pytest.mark.parametrize("name", list(SIZES))
def test_a_call_asks_for_what_the_formulas_say(name, sums_mib, monkeypatch):
    # Nothing runs, so values are what memory held.
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda *_a, **_o: None)
    monkeypatch.setattr(windows, "SUMS_BYTES", sums_mib << 20)
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)
    size = SIZES[name]
    inputs = make_inputs(
        (size.num_tokens,),
        num_heads=size.num_heads,
        num_kv_heads=size.num_kv_heads,
        head_dim=size.head_dim,
        family="iid",
        seed=0,
        dtype=torch.bfloat16,
        device="cpu",
    )
    leaves = [x.requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    top_k = torch.tensor([2], dtype=torch.int32)

    def attend():
        return moba_attention(
            *leaves,
            inputs.cu_seqlens,
            top_k,
            block_size=size.block_size,
            max_seqlen=size.num_tokens,
            max_top_k=size.max_top_k,
            backend="triton",
        )

    out, most, kept = peak_of(attend)
    assert kept == size.out_bytes + saved_bytes(size)
    assert most == forward_bytes(size)
    gradients, most, _ = peak_of(lambda: torch.autograd.grad(out, leaves, inputs.grad_out))
    assert most == backward_bytes(size) - kept
    assert sum(x.nbytes for x in gradients) == size.gradient_bytes


@pytest.mark.parametrize(("size", "bound"), [(MHA_64K, 1.4), (GQA_64K, 1.05)])
def test_64k_tokens_stay_within_what_was_promised(size, bound):
    assert forward_bytes(size) < backward_bytes(size) < bound * GIB
    results = size.out_bytes + size.gradient_bytes
    assert backward_bytes(size) - results < 0.5 * GIB
