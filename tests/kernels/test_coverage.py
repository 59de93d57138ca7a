"""Coverage curves: the definition, its bounds, and equal bits for equal inputs."""

import brute_force
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbkernels import coverage_curve
from sbkernels.testing import PackedInputs, assert_close, make_inputs

BACKENDS = ("torch", "reference")
LADDER = [1, 2, 3, 5, 8, 100]


def inputs_of(lengths, *, dtype=torch.float32, seed=0, family="correlated") -> PackedInputs:
    return make_inputs(
        lengths,
        num_heads=4,
        num_kv_heads=2,
        head_dim=12,
        family=family,
        seed=seed,
        dtype=dtype,
        device="cpu",
    )


def cover(inputs: PackedInputs, *, ladder=LADDER, block_size=8, row_stride=1, backend="torch"):
    return coverage_curve(
        inputs.q,
        inputs.k,
        inputs.cu_seqlens,
        block_size=block_size,
        max_seqlen=inputs.max_seqlen,
        ladder=ladder,
        row_stride=row_stride,
        backend=backend,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row_stride", [1, 7, 16, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_equals_the_row_by_row_definition(dtype, row_stride, backend):
    inputs = inputs_of((0, 50, 1, 64, 0, 7), dtype=dtype)
    curve = cover(inputs, row_stride=row_stride, backend=backend)
    exact = brute_force.coverage(inputs, block_size=8, ladder=LADDER, row_stride=row_stride)
    assert curve.dtype == torch.float32
    assert_close("coverage", curve, exact, tolerance=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    block_size=st.integers(1, 20),
    row_stride=st.integers(1, 9),
    seed=st.integers(0, 1000),
    backend=st.sampled_from(BACKENDS),
)
def test_rises_from_the_own_block_to_one(lengths, block_size, row_stride, seed, backend):
    inputs = inputs_of(lengths, seed=seed)
    ladder = list(range(1, 62))
    curve = cover(
        inputs, ladder=ladder, block_size=block_size, row_stride=row_stride, backend=backend
    )
    assert ((curve >= 0) & (curve <= 1)).all()
    assert (curve.diff(dim=1) >= 0).all()
    for n, length in enumerate(lengths):
        num_blocks = -(-length // block_size)
        assert (curve[n, max(0, num_blocks - 1) :] == 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_uniform_routing_covers_its_share(backend):
    inputs = inputs_of((32,))
    flat = PackedInputs(
        q=torch.zeros_like(inputs.q),
        k=inputs.k,
        v=inputs.v,
        grad_out=inputs.grad_out,
        cu_seqlens=inputs.cu_seqlens,
        max_seqlen=32,
    )
    # Rows of blocks 0, 1, 2, 3 see 1, 2, 3, 4 blocks of equal mass.
    wanted = torch.tensor([[(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, (1 + 1 + 2 / 3 + 2 / 4) / 4]])
    assert_close("coverage", cover(flat, ladder=[1, 2], backend=backend), wanted, tolerance=1e-6)


def test_the_own_block_comes_first_however_low_its_score():
    k = torch.tensor([8.0, 0.0]).view(2, 1, 1)
    q = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    curve = coverage_curve(
        q,
        k,
        torch.tensor([0, 2], dtype=torch.int32),
        block_size=1,
        max_seqlen=2,
        ladder=[1],
        row_stride=1,
        backend="torch",
    )
    own = 1 / (1 + torch.e**8)
    assert float(curve[0, 0]) == pytest.approx((1 + own) / 2, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_equals_one_by_one_and_repeats_bitwise(backend):
    lengths = (40, 0, 33, 70)
    inputs = inputs_of(lengths)
    packed = cover(inputs, row_stride=3, backend=backend)
    assert torch.equal(packed, cover(inputs, row_stride=3, backend=backend))
    queries, keys = inputs.q.split(lengths), inputs.k.split(lengths)
    for n, length in enumerate(lengths):
        cu_seqlens = torch.tensor([0, length], dtype=torch.int32)
        alone = coverage_curve(
            queries[n],
            keys[n],
            cu_seqlens,
            block_size=8,
            max_seqlen=length,
            ladder=LADDER,
            row_stride=3,
            backend=backend,
        )
        assert_close("coverage", alone[0], packed[n], tolerance=1e-6)


def test_long_sequences_in_bands_equal_the_reference():
    inputs = inputs_of((1500,))
    mine, wanted = (cover(inputs, row_stride=1, block_size=32, backend=b) for b in BACKENDS)
    assert_close("coverage", mine, wanted, tolerance=1e-6)


def test_correlated_routing_is_covered_by_fewer_blocks_than_random_routing():
    first, second = (
        cover(inputs_of((1024,), family=family), ladder=[8], block_size=16)
        for family in ("correlated", "iid")
    )
    assert float(first) > float(second)


@pytest.mark.parametrize(
    "lengths",
    [(900, 0, 40, 700, 1200, 3, 0, 0, 90), (2600, 5, 300), (0, 0), (2048, 8), (2048, 9, 99, 2000)],
)
def test_packs_of_more_blocks_than_go_together_equal_the_reference(lengths):
    mine, wanted = (cover(inputs_of(lengths), row_stride=32, backend=b) for b in BACKENDS)
    assert_close("coverage", mine, wanted, tolerance=1e-6)


def test_keys_that_are_no_numbers_give_no_curve():
    inputs = inputs_of((64, 40))
    inputs.k[70] = float("nan")
    assert not cover(inputs)[1].isfinite().all()
