"""The reference against a second formulation, against dense attention, and its gradients."""

import brute_force
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from sbkernels import moba_attention, moba_attention_reference, select_blocks, testing
from sbkernels.testing import PackedInputs, assert_close, attend_masked, make_inputs

LENGTHS = (0, 19, 1, 8, 0, 0, 9, 33, 0)


def inputs_of(*, num_heads: int = 4, num_kv_heads: int = 2, seed: int = 0) -> PackedInputs:
    return make_inputs(
        LENGTHS,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=6,
        family="iid",
        seed=seed,
        dtype=torch.float64,
        device="cpu",
    )


def attend(inputs: PackedInputs, top_k: int | torch.Tensor, **options) -> torch.Tensor:
    return moba_attention_reference(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.cu_seqlens,
        top_k,
        block_size=8,
        max_seqlen=inputs.max_seqlen,
        **options,
    )


@pytest.mark.parametrize("num_heads_and_kv_heads", [(1, 1), (4, 2), (4, 1), (8, 1)])
@pytest.mark.parametrize("top_k", [1, 2, 3, 5, 100])
def test_equals_the_row_by_row_formulation(num_heads_and_kv_heads, top_k):
    num_heads, num_kv_heads = num_heads_and_kv_heads
    inputs = inputs_of(num_heads=num_heads, num_kv_heads=num_kv_heads, seed=top_k)
    budgets = [top_k] * len(LENGTHS)
    exact = brute_force.attention(inputs, budgets, block_size=8, scale=6**-0.5)
    assert_close("out", attend(inputs, top_k), exact, tolerance=1e-12)


def test_takes_a_budget_per_sequence():
    inputs = inputs_of()
    budgets = [3, 2, 1, 4, 1, 2, 1, 3, 5]
    exact = brute_force.attention(inputs, budgets, block_size=8, scale=0.3)
    out = attend(inputs, torch.tensor(budgets, dtype=torch.int32), scale=0.3)
    assert_close("out", out, exact, tolerance=1e-12)


def test_one_budget_may_be_an_int_or_a_tensor_of_one():
    inputs = inputs_of()
    same = [attend(inputs, 2), attend(inputs, torch.tensor([2], dtype=torch.int32))]
    assert torch.equal(*same)


def test_budget_one_is_the_own_block_and_not_full_attention():
    inputs = inputs_of()
    changed = inputs.k.clone()
    changed[:8] += 5  # the first block of a sequence of 8 + 8 + 3 tokens
    other = moba_attention_reference(
        inputs.q, changed, inputs.v, inputs.cu_seqlens, 1, block_size=8, max_seqlen=33
    )
    out = attend(inputs, 1)
    assert torch.equal(out[8:], other[8:])
    assert not torch.equal(out[1:8], other[1:8])


@pytest.mark.parametrize("top_k", [5, 6, 1000])
def test_a_budget_of_all_blocks_is_dense_causal_attention(top_k):
    inputs = inputs_of()
    dense = []
    for q, k, v in zip(*(x.split(LENGTHS) for x in (inputs.q, inputs.k, inputs.v)), strict=True):
        k, v = (x.repeat_interleave(2, dim=1).transpose(0, 1) for x in (k, v))
        out = scaled_dot_product_attention(q.transpose(0, 1), k, v, is_causal=True)
        dense.append(out.transpose(0, 1))
    assert_close("out", attend(inputs, top_k), torch.cat(dense), tolerance=1e-12)


@pytest.mark.parametrize("rows_at_once", [7, 4096])
def test_gradients_equal_those_of_one_masked_softmax(rows_at_once, monkeypatch):
    monkeypatch.setattr(testing, "ROWS_AT_ONCE", rows_at_once)
    inputs = inputs_of()
    selection = select_blocks(
        inputs.q, inputs.k, inputs.cu_seqlens, 2, block_size=8, max_seqlen=33, backend="reference"
    )
    leaves = [x.clone().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    out = moba_attention(
        *leaves, inputs.cu_seqlens, 2, block_size=8, max_seqlen=33, backend="reference"
    )
    mine = (out, *torch.autograd.grad(out, leaves, inputs.grad_out))
    exact = attend_masked(inputs, selection, scale=6**-0.5)
    for name, got, wanted in zip(("out", "dq", "dk", "dv"), mine, exact, strict=True):
        assert_close(name, got, wanted, tolerance=1e-12)


def test_gradients_equal_finite_differences():
    inputs = make_inputs(
        (7, 0, 3),
        num_heads=2,
        num_kv_heads=1,
        head_dim=3,
        family="iid",
        seed=1,
        dtype=torch.float64,
        device="cpu",
    )
    leaves = [x.clone().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]

    def attend_leaves(q, k, v):
        return moba_attention_reference(q, k, v, inputs.cu_seqlens, 2, block_size=2, max_seqlen=7)

    assert torch.autograd.gradcheck(attend_leaves, leaves)


def test_all_sequences_may_be_empty():
    empty = torch.zeros(0, 2, 4)
    cu_seqlens = torch.zeros(4, dtype=torch.int32)
    out = moba_attention_reference(empty, empty, empty, cu_seqlens, 2, block_size=4, max_seqlen=0)
    assert out.shape == (0, 2, 4)
