"""The torch backend: values, gradients, edges, repeatability, and how much it computes."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sbkernels import moba_attention, select_blocks
from sbkernels.moba import tiles, torch_backend
from sbkernels.moba.packing import past_blocks_of_pack
from sbkernels.moba.pairs import tile_pairs
from sbkernels.moba.selection import RankedSelection
from sbkernels.testing import (
    PackedInputs,
    assert_close,
    assert_error_rule,
    attend_masked,
    make_inputs,
)

NAMES = ("out", "dq", "dk", "dv")
EDGES = {
    "one token": (1,),
    "shorter than a block": (15,),
    "one block": (16,),
    "one block and a token": (17,),
    "whole blocks": (96,),
    "ragged": (16 * 6 - 3,),
    "packed": (0, 1, 90, 0, 16, 33, 0, 17, 0),
}


@pytest.fixture(params=["tiles", "mask"], autouse=True)
def _way(request, monkeypatch):
    """Sends all sequences that the budget does not cover through tiles, or all through a mask."""
    masked = request.param == "mask"
    monkeypatch.setattr(torch_backend, "_masks", lambda *_args, **_options: masked)


def inputs_of(
    lengths, *, num_heads=4, num_kv_heads=2, head_dim=8, family="iid", seed=0, dtype=torch.float32
) -> PackedInputs:
    return make_inputs(
        lengths,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        family=family,
        seed=seed,
        dtype=dtype,
        device="cpu",
    )


def run(inputs: PackedInputs, top_k, *, block_size: int = 16, **options) -> tuple:
    """Returns out, dq, dk, dv of the torch backend."""
    leaves = [x.detach().clone().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    out = moba_attention(
        *leaves,
        inputs.cu_seqlens,
        top_k,
        block_size=block_size,
        max_seqlen=inputs.max_seqlen,
        backend="torch",
        **options,
    )
    return out.detach(), *torch.autograd.grad(out, leaves, inputs.grad_out)


def select(inputs: PackedInputs, top_k, *, block_size: int = 16) -> RankedSelection:
    return select_blocks(
        inputs.q,
        inputs.k,
        inputs.cu_seqlens,
        top_k,
        block_size=block_size,
        max_seqlen=inputs.max_seqlen,
        backend="torch",
    )


def check(inputs: PackedInputs, top_k, *, block_size: int = 16) -> None:
    """Holds the torch backend to the error rule, at its own selection."""
    selection = select(inputs, top_k, block_size=block_size)
    scale = inputs.q.shape[2] ** -0.5
    exact = attend_masked(inputs.to(torch.float64), selection, scale=scale)
    baseline = attend_masked(inputs, selection, scale=scale)
    for name, *three in zip(
        NAMES, run(inputs, top_k, block_size=block_size), exact, baseline, strict=True
    ):
        assert_error_rule(name, *three)


@pytest.mark.parametrize("top_k", [1, 2, 3, 6, 50])
@pytest.mark.parametrize("lengths", EDGES.values(), ids=EDGES.keys())
def test_edges_of_length_and_budget(lengths, top_k):
    check(inputs_of(lengths, seed=top_k), top_k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["iid", "correlated"])
@pytest.mark.parametrize("num_heads_and_kv_heads", [(1, 1), (3, 3), (4, 2), (8, 1)])
def test_heads_families_and_dtypes(num_heads_and_kv_heads, family, dtype):
    num_heads, num_kv_heads = num_heads_and_kv_heads
    inputs = inputs_of(
        (150, 70), num_heads=num_heads, num_kv_heads=num_kv_heads, family=family, dtype=dtype
    )
    check(inputs, 3)


@pytest.mark.parametrize("block_size", [1, 3, 32, 128])
@pytest.mark.parametrize("head_dim", [5, 64])
def test_block_sizes_and_head_dims(block_size, head_dim):
    check(inputs_of((260, 40), head_dim=head_dim), 2, block_size=block_size)


def test_a_budget_per_sequence():
    top_k = torch.tensor([1, 2, 3, 9, 1, 2, 4, 1, 2], dtype=torch.int32)
    check(inputs_of(EDGES["packed"]), top_k)


@pytest.mark.parametrize("sign", [1, -1])
def test_large_logits_of_both_signs(sign):
    # Integers and a scale of 1/4 make the logits exact, up to +-3,000: exp overflows from 89 on.
    inputs = inputs_of((120,))
    large = PackedInputs(
        q=(inputs.q * 16).round(),
        k=(inputs.k * 16 * sign).round(),
        v=inputs.v,
        grad_out=inputs.grad_out,
        cu_seqlens=inputs.cu_seqlens,
        max_seqlen=120,
    )
    selection = select(large, 3)
    exact = attend_masked(large.to(torch.float64), selection, scale=0.25)
    baseline = attend_masked(large, selection, scale=0.25)
    out, dq, dk, dv = run(large, 3, scale=0.25)
    assert_error_rule("out", out, exact[0], baseline[0])
    # The backward pass has its weights from a log-sum-exp of 3,000 in float32: 2e-4 off at most.
    assert_close("dv", dv, exact[3], tolerance=2e-4)
    # The softmax is saturated: dq and dk are what is left of terms of this size.
    term = float(large.k.abs().max() * inputs.v.abs().max() * inputs.grad_out.abs().max())
    for got, wanted in ((dq, exact[1]), (dk, exact[2])):
        assert (got.double() - wanted).abs().max() < 1e-6 * term


def test_blocks_that_all_choose_and_blocks_that_none_chooses():
    inputs = inputs_of((160,), num_heads=1, num_kv_heads=1)
    q, k = inputs.q.abs(), inputs.k.clone()
    k[:16] = k[:16].abs() + 1  # every row wants block 0
    k[16:32] = -k[16:32].abs() - 1  # no row wants block 1 unless it must
    sink = PackedInputs(
        q=q, k=k, v=inputs.v, grad_out=inputs.grad_out, cu_seqlens=inputs.cu_seqlens, max_seqlen=160
    )
    member = select(sink, 2).membership()
    assert member[:, 16:, 0].all()
    assert not member[:, 32:, 1].any()
    check(sink, 2)


def test_float64_is_exact_and_the_gradient_that_of_finite_differences():
    inputs = inputs_of((90, 33), dtype=torch.float64)
    exact = attend_masked(inputs, select(inputs, 3), scale=8**-0.5)
    for name, got, wanted in zip(NAMES, run(inputs, 3), exact, strict=True):
        assert_close(name, got, wanted, tolerance=1e-13)

    small = inputs_of((7, 3), num_heads=2, num_kv_heads=1, head_dim=3, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (small.q, small.k, small.v)]

    def attend(q, k, v):
        return moba_attention(
            q, k, v, small.cu_seqlens, 2, block_size=2, max_seqlen=7, backend="torch"
        )

    assert torch.autograd.gradcheck(attend, leaves)


def test_scale_is_used_and_defaults_to_the_root_of_the_head_dim():
    inputs = inputs_of((90,), dtype=torch.float64)
    selection = select(inputs, 3)
    for scale in (8**-0.5, 0.05):
        exact = attend_masked(inputs, selection, scale=scale)
        for name, got, wanted in zip(NAMES, run(inputs, 3, scale=scale), exact, strict=True):
            assert_close(name, got, wanted, tolerance=1e-13)
    assert torch.equal(run(inputs, 3)[0], run(inputs, 3, scale=8**-0.5)[0])


def test_packed_equals_one_by_one():
    lengths = EDGES["packed"]
    inputs = inputs_of(lengths, dtype=torch.float64)
    packed = run(inputs, 2)
    tensors = (inputs.q, inputs.k, inputs.v, inputs.grad_out)
    for n, parts in enumerate(zip(*(x.split(lengths) for x in tensors), strict=True)):
        cu_seqlens = torch.tensor([0, lengths[n]], dtype=torch.int32)
        alone = PackedInputs(
            q=parts[0],
            k=parts[1],
            v=parts[2],
            grad_out=parts[3],
            cu_seqlens=cu_seqlens,
            max_seqlen=lengths[n],
        )
        for name, got, whole in zip(NAMES, run(alone, 2), packed, strict=True):
            assert_close(name, got, whole.split(lengths)[n], tolerance=1e-13)


def test_all_sequences_may_be_empty():
    out, *gradients = run(inputs_of((0, 0)), 2)
    assert out.shape == (0, 4, 8)
    assert [g.shape[0] for g in gradients] == [0, 0, 0]


def test_strides_do_not_matter():
    inputs = inputs_of((90, 33))
    dense = run(inputs, 2)
    scattered = PackedInputs(
        q=inputs.q.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        k=torch.stack([inputs.k, inputs.v], dim=-1)[..., 0],
        v=torch.stack([inputs.k, inputs.v], dim=-1)[..., 1],
        grad_out=inputs.grad_out.transpose(0, 1).contiguous().transpose(0, 1),
        cu_seqlens=inputs.cu_seqlens,
        max_seqlen=90,
    )
    assert not scattered.q.is_contiguous()
    for got, wanted in zip(run(scattered, 2), dense, strict=True):
        assert torch.equal(got, wanted)


def test_a_selection_is_reused_as_it_is():
    inputs = inputs_of((160, 40))
    selection = select(inputs, 3)
    for got, wanted in zip(run(inputs, 3, selection=selection), run(inputs, 3), strict=True):
        assert torch.equal(got, wanted)
    # Another choice than the inputs would make, and another budget than the argument's.
    other = select(inputs_of((160, 40), seed=1), 2)
    exact = attend_masked(inputs, other, scale=8**-0.5)
    for name, got, wanted in zip(NAMES, run(inputs, 7, selection=other), exact, strict=True):
        assert_close(name, got, wanted, tolerance=1e-5)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("keep_selection", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(use_reentrant, keep_selection):
    inputs = inputs_of((160, 40))
    selection = select(inputs, 2) if keep_selection else None
    leaves = [x.clone().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]

    def attend(q, k, v):
        return moba_attention(
            q,
            k,
            v,
            inputs.cu_seqlens,
            2,
            block_size=16,
            max_seqlen=160,
            selection=selection,
            backend="torch",
        )

    out = checkpoint(attend, *leaves, use_reentrant=use_reentrant)
    out.backward(inputs.grad_out)
    mine = (out.detach(), *(x.grad for x in leaves))
    for got, wanted in zip(mine, run(inputs, 2), strict=True):
        assert torch.equal(got, wanted)


@pytest.fixture
def _poisoned_memory():
    """Fills memory that nothing has written yet with NaN, and refuses unordered operations."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_poisoned_memory")
def test_repeats_bitwise_and_reads_no_unwritten_memory():
    assert torch.empty(3).isnan().all()
    inputs = inputs_of((500, 0, 70))
    first = run(inputs, 3)
    assert all(x.isfinite().all() for x in first)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        second, third = run(inputs, 3), run(inputs, 3)
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(second, third, strict=True):
        assert torch.equal(one, other)
    for name, one, other in zip(NAMES, first, second, strict=True):
        assert_close(name, one, other, tolerance=1e-5)


def test_work_falls_with_the_budget():
    length, block_size, num_heads = 640, 16, 2
    inputs = inputs_of((length,), num_heads=num_heads, num_kv_heads=1)
    own = torch.arange(length) // block_size
    computed = []
    for top_k in (1, 2, 4, 8, 16, 32):
        ranked = select(inputs, top_k, block_size=block_size).blocks
        past = past_blocks_of_pack([ranked], block_size=block_size)
        plan = tile_pairs(past, num_kv_heads=1, num_blocks=40, rows_per_tile=8)
        assert plan.num_pairs == num_heads * int(own.clamp(max=top_k - 1).sum())
        # Padding is less than a tile for each key block.
        assert plan.rows.numel() - plan.num_pairs < 8 * 40
        computed.append(plan.rows.numel())
    assert computed == sorted(set(computed))
    assert computed[0] == 0  # budget 1: own blocks only
    assert computed[2] < computed[-1] / 5


def test_tiles_hold_each_pair_once_and_lead_back_to_it():
    inputs = inputs_of((90, 33, 70))
    lengths = (90, 33, 70)
    ranked = select(inputs, 4).blocks.split(lengths, dim=1)
    past = past_blocks_of_pack(ranked, block_size=16)
    num_blocks = past.shape[1] // 16
    plan = tile_pairs(past, num_kv_heads=2, num_blocks=num_blocks, rows_per_tile=8)
    wanted = {
        (head * past.shape[1] + row, head // 2 * num_blocks + int(block))
        for head in range(4)
        for row in range(past.shape[1])
        for block in past[head, row]
        if block >= 0
    }
    key = plan.keys[:, None].expand_as(plan.rows)
    real = ~plan.padding
    assert plan.num_pairs == len(wanted)
    assert set(zip(plan.rows[real].tolist(), key[real].tolist(), strict=True)) == wanted
    row = torch.arange(plan.slots.shape[0])[:, None].expand_as(plan.slots)
    assert torch.equal(plan.rows.flatten()[plan.slots][~plan.absent], row[~plan.absent])


@pytest.mark.parametrize("refused", ["attend_tiles", "attend_dense_masked"])
def test_covered_sequences_take_the_dense_kernel(refused, monkeypatch):
    inputs = inputs_of((64, 20))
    wanted = run(inputs, 4)

    def refuse(*_args, **_options):
        raise AssertionError(refused)

    monkeypatch.setattr(torch_backend, refused, refuse)
    for got, same in zip(run(inputs, 4), wanted, strict=True):
        assert torch.equal(got, same)


def test_dense_kernel_and_tiles_meet_where_the_budget_covers_all():
    inputs = inputs_of((64,), dtype=torch.float64)
    ranked = select(inputs, 4).blocks
    sequence = (inputs.q, inputs.k, inputs.v)
    (out,) = tiles.attend_tiles([sequence], [ranked], block_size=16, scale=8**-0.5)
    assert_close("out", out, run(inputs, 4)[0], tolerance=1e-13)


def test_a_selection_may_hold_nothing_but_own_blocks():
    inputs = inputs_of((96,))
    blocks = select(inputs, 3).blocks.clone()
    blocks[..., 1:] = -1
    top_k = torch.tensor([3], dtype=torch.int32)
    alone = RankedSelection(top_k=top_k, block_size=16, max_seqlen=96, blocks=blocks)
    mine = run(inputs, 3, selection=alone)
    for name, got, wanted in zip(NAMES, mine, run(inputs, 1), strict=True):
        assert_close(name, got, wanted, tolerance=1e-6)


def test_no_gradient_passes_through_the_choice():
    inputs = inputs_of((96,), dtype=torch.float64)
    kept = run(inputs, 2, selection=select(inputs, 2))
    for name, got, wanted in zip(NAMES, run(inputs, 2), kept, strict=True):
        assert_close(name, got, wanted, tolerance=1e-13)
