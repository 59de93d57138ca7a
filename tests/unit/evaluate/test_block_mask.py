"""Newly decoded tokens see the blocks that the kernels choose for a sequence's last token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbcore.evaluate.block_mask import visible_positions
from sbkernels import select_blocks

BLOCK_SIZE = 4


@given(
    seed=st.integers(0, 999),
    length=st.integers(1, 40),
    later=st.integers(0, 9),
    top_k=st.integers(1, 12),
    reach=st.sampled_from([1, 200]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_choice_is_that_of_the_kernels(seed, length, later, top_k, reach, dtype):
    """Keys of few values make ties, those of many are rounded with their dtype; sums are exact.

    What lies behind the row's end changes nothing.
    """
    draw = torch.Generator().manual_seed(seed)
    q = torch.randint(-2, 3, (length, 4, 8), generator=draw).to(dtype)
    keys = torch.randint(-reach, reach + 1, (length + later, 2, 8), generator=draw).to(dtype)
    ends = torch.tensor([0, length], dtype=torch.int32)
    chosen = select_blocks(
        q, keys[:length], ends, top_k,
        block_size=BLOCK_SIZE, max_seqlen=length, backend="reference",
    )  # fmt: skip
    expected = chosen.membership()[:, -1].repeat_interleave(BLOCK_SIZE, -1)[:, :length]
    visible = visible_positions(
        q[-1].unflatten(0, (2, 2))[None], keys.transpose(0, 1)[None], torch.tensor([length - 1]),
        block_size=BLOCK_SIZE, top_k=top_k,
    )  # fmt: skip
    assert visible.shape == (1, 2, 2, length + later)
    assert torch.equal(visible[..., :length].flatten(0, 2), expected)


@pytest.mark.parametrize("num_blocks", [5, 200])
def test_of_equal_blocks_the_earlier_are_seen(num_blocks):
    keys = torch.ones(1, 1, BLOCK_SIZE * num_blocks, 8)
    last = torch.tensor([keys.shape[2] - 1])
    visible = visible_positions(
        torch.ones(1, 1, 1, 8), keys, last, block_size=BLOCK_SIZE, top_k=3
    ).flatten()
    assert visible.nonzero().flatten().tolist() == [*range(8), *range(int(last) - 3, int(last) + 1)]


@pytest.mark.parametrize(("dtype", "best"), [(torch.bfloat16, 0), (torch.float32, 1)])
def test_means_are_rounded_to_the_dtype_of_keys_before_they_are_compared(dtype, best):
    keys = torch.tensor([*[200.0] * 4, 200.0, 200.0, 201.0, 201.0, *[0.0] * 4], dtype=dtype)
    visible = visible_positions(
        torch.ones(1, 1, 1, 1, dtype=dtype), keys[None, None, :, None], torch.tensor([11]),
        block_size=BLOCK_SIZE, top_k=2,
    )  # fmt: skip
    assert visible.flatten().unflatten(0, (3, 4)).any(1).nonzero().flatten().tolist() == [best, 2]
