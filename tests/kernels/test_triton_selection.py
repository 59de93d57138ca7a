"""Selection and coverage of the triton backend against the reference."""

import pytest
import torch

from sbkernels import coverage_curve, select_blocks
from sbkernels.moba.budget import ANY_TOP_K
from sbkernels.moba.selection import num_blocks_of
from sbkernels.moba.triton.blocks import build_block_table
from sbkernels.moba.triton.lists import build_union_lists, choose_layout
from sbkernels.moba.triton.op import select
from sbkernels.moba.triton.rows import build_row_lists
from sbkernels.moba.triton.selection import pack_selection
from sbkernels.testing import PackedInputs, make_inputs

LENGTHS = [(300,), (0, 1, 130, 0, 260, 64, 65, 0), (1, 1, 1)]


def integer_inputs(lengths, *, span, device, dtype=torch.float32, head_dim=16, seed=0):
    """Returns inputs whose scores are exact in float32: a choice is right or wrong."""
    generator = torch.Generator().manual_seed(seed)

    def integers(heads):
        shape = (sum(lengths), heads, head_dim)
        return torch.randint(-span, span + 1, shape, generator=generator).to(device, dtype)

    q, k = integers(4), integers(2)
    # One key per block would do; equal keys within a block keep the mean an integer.
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
    return PackedInputs(q=q, k=k, v=k, grad_out=q, cu_seqlens=cu_seqlens, max_seqlen=max(lengths))


def members(inputs, top_k, *, block_size, backend, max_seqlen=None):
    selection = select_blocks(
        inputs.q,
        inputs.k,
        inputs.cu_seqlens,
        top_k,
        block_size=block_size,
        max_seqlen=max_seqlen or inputs.max_seqlen,
        backend=backend,
    )
    return selection.membership()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("span", [1, 6])  # 1: many equal scores
@pytest.mark.parametrize("lengths", LENGTHS)
def test_chooses_what_the_reference_chooses(lengths, span, dtype, device):
    inputs = integer_inputs(lengths, span=span, device=device, dtype=dtype)
    top_k = torch.arange(len(lengths), device=device, dtype=torch.int32) % 5 + 1
    kwargs = {"block_size": 64}
    wanted = members(inputs, top_k, backend="reference", **kwargs)
    assert torch.equal(members(inputs, top_k, backend="triton", **kwargs), wanted)


@pytest.mark.parametrize("top_k", [1, 2, 5, 100])
def test_equal_scores_go_to_the_lower_block(top_k, device):
    inputs = integer_inputs((700,), span=0, device=device)
    chosen = members(inputs, top_k, block_size=64, backend="triton")[0, -1]
    assert chosen.nonzero().flatten().tolist() == sorted({*range(min(top_k - 1, 10)), 10})


def test_zero_and_minus_zero_are_equal(device):
    inputs = integer_inputs((400,), span=0, device=device)
    q = torch.full_like(inputs.q, -1.0)  # -1 * 0 is -0.0
    q[::2] = 1.0
    inputs = PackedInputs(**{**vars(inputs), "q": q})
    chosen = members(inputs, 3, block_size=64, backend="triton")
    assert chosen[:, -64:].sum() == 4 * 64 * 3
    assert chosen[:, -1, :2].all()


@pytest.mark.parametrize("max_num_blocks", [100, 500, 600, 1100])
def test_every_width_of_the_score_tile_chooses_alike(max_num_blocks, device):
    inputs = integer_inputs((400,), span=2, device=device)
    wanted = members(inputs, 4, block_size=64, backend="reference")
    got = members(inputs, 4, block_size=64, backend="triton", max_seqlen=64 * max_num_blocks)
    assert torch.equal(got[..., : wanted.shape[2]], wanted)
    assert not got[..., wanted.shape[2] :].any()


@pytest.mark.parametrize("family", ["iid", "correlated"])
def test_random_scores_are_chosen_up_to_rounding(family, device):
    inputs = make_inputs(
        (900, 200),
        num_heads=4,
        num_kv_heads=1,
        head_dim=64,
        family=family,
        seed=0,
        dtype=torch.float32,
        device=device,
    )
    wanted = members(inputs, 4, block_size=64, backend="reference")
    got = members(inputs, 4, block_size=64, backend="triton")
    # Sums in another order may swap blocks whose scores agree to seven digits: rare.
    assert (got != wanted).any(-1).sum() <= 2
    assert torch.equal(got.sum(-1), wanted.sum(-1))


def test_a_choice_is_part_of_every_larger_one(device):
    inputs = integer_inputs((400, 90), span=2, device=device)
    smaller = members(inputs, 1, block_size=64, backend="triton")
    for top_k in range(2, 9):
        larger = members(inputs, top_k, block_size=64, backend="triton")
        assert (larger | ~smaller).all()
        smaller = larger


@pytest.mark.parametrize("head_dim", [24, 128])
def test_padded_heads_and_strided_inputs_choose_alike(head_dim, device):
    inputs = integer_inputs((300, 70), span=3, device=device, head_dim=head_dim)
    strided = PackedInputs(
        **{
            **vars(inputs),
            "q": inputs.q.transpose(0, 2).contiguous().transpose(0, 2),
            "k": inputs.k.repeat(1, 1, 2)[..., :head_dim],
        }
    )
    wanted = members(inputs, 3, block_size=64, backend="reference")
    assert torch.equal(members(strided, 3, block_size=64, backend="triton"), wanted)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_packing_the_selection_of_another_backend_keeps_it(lengths, device):
    inputs = integer_inputs(lengths, span=2, device=device)
    other = select_blocks(
        inputs.q,
        inputs.k,
        inputs.cu_seqlens,
        3,
        block_size=64,
        max_seqlen=inputs.max_seqlen,
        backend="reference",
    )
    packed = pack_selection(other, inputs.cu_seqlens)
    assert torch.equal(packed.membership(), other.membership())


@pytest.mark.parametrize("lengths", LENGTHS)
def test_lists_hold_the_selection(lengths, device):
    inputs = integer_inputs(lengths, span=3, device=device)
    top_k = torch.full((len(lengths),), 3, device=device, dtype=torch.int32)
    options = {"block_size": 64, "max_seqlen": inputs.max_seqlen, "top_k_range": ANY_TOP_K}
    selection = select(inputs.q, inputs.k, inputs.cu_seqlens, top_k, **options)
    member = selection.membership()
    table = build_block_table(inputs.cu_seqlens, sum(lengths), block_size=64)
    lists = build_row_lists(selection.words, table, None, max_top_k=1000, num_skipped=0)
    ends, counts = lists.ends.tolist(), lists.counts.tolist()
    rows = lists.rows.int() & 0xFFFF
    num_blocks = table.num_blocks
    seen = 0
    for n, length in enumerate(lengths):
        start = int(inputs.cu_seqlens[n])
        for head in range(4):
            for block in range(num_blocks_of(length, 64)):
                later = (block + 1) * 64
                wanted = member[head, start + later : start + length, block].nonzero().flatten()
                index = head * num_blocks + seen + block
                got = rows[ends[index] - counts[index] : ends[index]]
                assert got.tolist() == (wanted + later).tolist()
        seen += num_blocks_of(length, 64)
    assert ends[-1] == int(member.sum()) - member.shape[0] * member.shape[1]


def test_the_table_finds_more_sequences_than_one_pass_looks_at(device):
    lengths = [i % 5 * 37 for i in range(300)]
    ends = torch.tensor([0, *lengths], device=device).cumsum(0).int()
    table = build_block_table(ends, sum(lengths), block_size=64)
    wanted, first_block = [], [0]
    for n, length in enumerate(lengths):
        entry = [n, sum(lengths[:n]), length, first_block[-1]]
        wanted += [entry] * num_blocks_of(length, 64)
        first_block.append(len(wanted))
    assert table.first_block.tolist() == first_block
    assert table.entries[: len(wanted)].tolist() == wanted
    assert not table.entries[len(wanted) :, 2].any()


def test_the_layout_follows_the_union_inflation(device):
    inputs = integer_inputs((256, 640), span=3, device=device)
    top_k = torch.tensor([100, 2], device=device, dtype=torch.int32)
    options = {"block_size": 64, "max_seqlen": 640, "top_k_range": ANY_TOP_K}
    selection = select(inputs.q, inputs.k, inputs.cu_seqlens, top_k, **options)
    table = build_block_table(inputs.cu_seqlens, 896, block_size=64)
    lists = build_union_lists(selection.words, table, tile_rows=64, num_skipped=0)
    assert lists.layout.tolist() == [[0, 0]] * 4
    # All past blocks chosen: inflation 1. One of up to nine: nearly all of them per tile.
    overflow = choose_layout(lists, table, max_inflation=1.5)
    assert lists.layout.tolist() == [[0, 1]] * 4
    assert not overflow.any()
    choose_layout(lists, table, max_inflation=50.0)
    assert not lists.layout.any()


@pytest.mark.parametrize("row_stride", [5, 16])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_coverage_is_that_of_the_reference(lengths, row_stride, device):
    inputs = make_inputs(
        lengths,
        num_heads=2,
        num_kv_heads=1,
        head_dim=24,
        family="correlated",
        seed=0,
        dtype=torch.float32,
        device=device,
    )
    curves = [
        coverage_curve(
            inputs.q,
            inputs.k,
            inputs.cu_seqlens,
            block_size=64,
            max_seqlen=inputs.max_seqlen,
            ladder=(1, 2, 3, 5, 9, 40),
            row_stride=row_stride,
            backend=backend,
        )
        for backend in ("triton", "triton", "reference")
    ]
    assert torch.equal(curves[0], curves[1])
    torch.testing.assert_close(curves[0], curves[2], atol=2e-6, rtol=0)
