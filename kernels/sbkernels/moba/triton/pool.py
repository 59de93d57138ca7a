"""Centroids: the mean of the keys really in each block.

Shapes: T packed tokens, G key heads, D head dim (a power of two), S padded blocks.
"""

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block


def pool_keys(k: torch.Tensor, table: BlockTable) -> torch.Tensor:
    """Returns the centroids [G, S, D] in the dtype of k, zero in unused blocks.

    Summed in float32 and rounded once (MoBA, arXiv 2502.13189, equation 6).
    """
    _, num_kv_heads, head_dim = k.shape
    centroids = k.new_empty((num_kv_heads, table.num_blocks, head_dim))
    _pool_kernel[(table.num_blocks, num_kv_heads)](
        k,
        centroids,
        table.entries,
        k.stride(0),
        k.stride(1),
        k.stride(2),
        table.num_blocks,
        BLOCK_SIZE=table.block_size,
        D=head_dim,
        num_warps=4,
    )
    return centroids


@triton.jit(do_not_specialize=["num_blocks"])
def _pool_kernel(
    k_ptr,
    centroids_ptr,
    table_ptr,
    stride_kt,
    stride_kg,
    stride_kd,
    num_blocks,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
):
    block, kv_head = tl.program_id(0), tl.program_id(1)
    _, token, length, first = load_block(table_ptr, block)
    row = (block - first) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    dim = tl.arange(0, D)
    address = (token + row).to(tl.int64)[:, None] * stride_kt + dim[None, :] * stride_kd
    keys = tl.load(
        k_ptr + kv_head.to(tl.int64) * stride_kg + address, mask=row[:, None] < length, other=0.0
    )
    # Without the cast Triton 3.6 keeps a bfloat16 sum: 0.3-0.6 % of the rows chose other blocks.
    total = tl.sum(keys.to(tl.float32), axis=0)
    num_keys = tl.minimum(length - (block - first) * BLOCK_SIZE, BLOCK_SIZE)
    mean = tl.div_rn(total, tl.maximum(num_keys, 1).to(tl.float32) + tl.zeros_like(total))
    out = centroids_ptr + (kv_head.to(tl.int64) * num_blocks + block) * D + dim
    tl.store(out, mean.to(centroids_ptr.dtype.element_ty))
