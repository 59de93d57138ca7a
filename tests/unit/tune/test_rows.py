"""A curve of 512 rows is near that of all rows: within a tenth of what p allows by default."""

import pytest
import torch

from sbcore.tune.ladder import make_ladder
from sbcore.tune.layer_clamp import ROWS_OF_LONGEST, row_stride
from sbkernels import coverage_curve
from sbkernels.testing import make_inputs

LENGTH, BLOCK_SIZE = 16_384, 64  # 256 blocks, as 64K tokens have at 256


@pytest.mark.parametrize("family", ["iid", "correlated"])
def test_rows_left_out_change_a_curve_by_less_than_a_point(family):
    inputs = make_inputs(
        (LENGTH,),
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        family=family,
        seed=0,
        dtype=torch.float32,
        device="cpu",
    )
    sizes = {"block_size": BLOCK_SIZE, "max_seqlen": LENGTH, "backend": "torch"}
    sizes["ladder"] = make_ladder(LENGTH // BLOCK_SIZE, 32).tolist()
    few, many = (
        coverage_curve(inputs.q, inputs.k, inputs.cu_seqlens, row_stride=stride, **sizes)
        for stride in (LENGTH // ROWS_OF_LONGEST, 4)
    )
    assert (few - many).abs().max() < 0.01


def test_the_stride_grows_with_the_longest_sequence_and_stays_a_power_of_two():
    strides = {length: row_stride(length) for length in (1, 4096, 16_384, 16_385, 65_536, 10**6)}
    assert strides == {1: 32, 4096: 32, 16_384: 32, 16_385: 64, 65_536: 128, 10**6: 128}
