"""Scores of a tile of query rows against the centroids of their sequence, in registers.

Shapes: R rows, B blocks (a power of two), D head dim.
"""

import triton
import triton.language as tl

# The widest dot whose centroid tile (bf16, D = 128: 128 KB) still fits shared memory.
MAX_DOT_WIDTH = tl.constexpr(512)


@triton.jit
def score_blocks(
    q,
    centroids_ptr,
    num_seen,
    D: tl.constexpr,
    B: tl.constexpr,
    FIRST: tl.constexpr,
    STEP: tl.constexpr,
):
    """Returns q [R, D] . centroids FIRST, FIRST + STEP, ... as [R, B] float32, in block order.

    `centroids_ptr` is the first centroid of the sequence; from `num_seen` on they count as 0.
    Widths beyond one dot are halved into even and odd blocks, whose join is in order again.
    """
    fits: tl.constexpr = MAX_DOT_WIDTH * 16 // q.dtype.primitive_bitwidth >= B
    if fits:
        block = FIRST + STEP * tl.arange(0, B)
        dim = tl.arange(0, D)
        means = tl.load(
            centroids_ptr + block[None, :] * D + dim[:, None],
            mask=block[None, :] < num_seen,
            other=0.0,
        )
        scores = tl.dot(q, means, input_precision="ieee")
    else:
        even = score_blocks(q, centroids_ptr, num_seen, D, B // 2, FIRST, STEP * 2)
        odd = score_blocks(q, centroids_ptr, num_seen, D, B // 2, FIRST + STEP, STEP * 2)
        scores = tl.join(even, odd).reshape(q.shape[0], B)
    return scores
