"""Mean keys of a pack's blocks, made once for the choice of blocks and for coverage."""

import pytest
import torch

from sbkernels import select_blocks
from sbkernels.moba.key_blocks import KeyBlocks
from sbkernels.testing import make_inputs

LENGTHS, BLOCK_SIZE = (0, 50, 1, 64, 0, 7), 8


def inputs_of(dtype):
    return make_inputs(
        LENGTHS,
        num_heads=4,
        num_kv_heads=2,
        head_dim=12,
        family="correlated",
        seed=0,
        dtype=dtype,
        device="cpu",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_blocks_are_averaged_each_with_the_tokens_that_it_has(dtype):
    k = inputs_of(dtype).k
    wide = k if dtype == torch.float64 else k.float()
    blocks = [block for each in wide.split(LENGTHS) for block in each.split(BLOCK_SIZE)]
    wanted = torch.stack([block.mean(dim=0) for block in blocks if len(block)]).to(dtype)
    means = KeyBlocks(LENGTHS, block_size=BLOCK_SIZE).means(k)
    assert means.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(means, wanted, atol=4 * eps, rtol=eps)


def test_packs_without_tokens_have_no_blocks():
    assert KeyBlocks((0, 0), block_size=8).means(torch.zeros(0, 2, 12)).shape == (0, 2, 12)


def test_keys_need_not_be_dense():
    k = inputs_of(torch.float32).k
    strided = k.transpose(0, 1).contiguous().transpose(0, 1)
    blocks = KeyBlocks(LENGTHS, block_size=BLOCK_SIZE)
    assert torch.equal(blocks.means(strided), blocks.means(k))


@pytest.mark.parametrize("means", ["theirs", "others"])
def test_the_choice_of_blocks_goes_by_the_means_that_it_is_given(means):
    """Given those of other keys it must choose other blocks: they are not computed anew."""
    inputs, blocks = inputs_of(torch.float32), KeyBlocks(LENGTHS, block_size=BLOCK_SIZE)
    keys = inputs.k if means == "theirs" else -inputs.k
    plain, given = (
        select_blocks(
            inputs.q,
            inputs.k,
            inputs.cu_seqlens,
            3,
            block_size=BLOCK_SIZE,
            max_seqlen=inputs.max_seqlen,
            means=known,
            backend="torch",
        ).membership()
        for known in (None, blocks.means(keys))
    )
    assert torch.equal(plain, given) == (means == "theirs")
