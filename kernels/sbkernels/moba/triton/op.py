"""The triton backend: the three functions that the table of backends asks for.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences.
"""

import torch

from sbkernels.moba.budget import TopKRange
from sbkernels.moba.dense import attend_dense
from sbkernels.moba.selection import BlockSelection
from sbkernels.moba.triton.blocks import BlockTable
from sbkernels.moba.triton.operators import coverage_op, forward_op, select_op
from sbkernels.moba.triton.selection import PackedSelection, pack_selection
from sbkernels.moba.triton.supported import check_supported, widen

# First rows of a sequence that attend to all blocks are left to the library's dense attention
# where they are this share of the rows and so many: the parts cost a dozen launches more.
DENSE_SHARE = 0.5
MIN_DENSE_ROWS = 4096


@torch.no_grad()
def select(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    top_k_range: TopKRange,
    means: torch.Tensor | None = None,
) -> PackedSelection:
    """Returns the chosen blocks as words on the device."""
    del means  # the operator pools the keys itself
    check_supported(q, block_size=block_size, max_seqlen=max_seqlen)
    words, entries, first_block = select_op(
        widen(q), widen(k), cu_seqlens, top_k, block_size, max_seqlen
    )
    return PackedSelection(
        top_k=top_k,
        block_size=block_size,
        max_seqlen=max_seqlen,
        top_k_range=top_k_range,
        words=words,
        table=BlockTable(entries=entries, first_block=first_block, block_size=block_size),
        num_tokens=q.shape[0],
    )


@torch.no_grad()
def cover(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    ladder: tuple[int, ...],
    row_stride: int,
) -> torch.Tensor:
    """Returns the coverage, float32 [N, len(ladder)]."""
    check_supported(q, block_size=block_size, max_seqlen=max_seqlen)
    return coverage_op(
        widen(q),
        widen(k),
        cu_seqlens,
        block_size,
        max_seqlen,
        list(ladder),
        row_stride,
        q.shape[2] ** -0.5,
    )


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    top_k_range: TopKRange,
    scale: float,
    selection: BlockSelection | None,
    deterministic: bool,
) -> torch.Tensor:
    """Returns the attention output [T, H, D], differentiable in q, k and v."""
    check_supported(q, block_size=block_size, max_seqlen=max_seqlen)
    if scale <= 0:
        # Row maxima are taken before scaling.
        raise ValueError(f"sbkernels: scale: got {scale}, wanted a positive number (triton).")
    num_dense = 0
    if not deterministic and cu_seqlens.shape[0] == 2:
        num_dense = count_dense_rows(q.shape[0], top_k_range, block_size=block_size)
    if num_dense and num_dense == q.shape[0]:
        return attend_dense(q, k, v, scale=scale)
    if selection is None:
        packed = select(
            q,
            k,
            cu_seqlens,
            top_k,
            block_size=block_size,
            max_seqlen=max_seqlen,
            top_k_range=top_k_range,
        )
    else:
        packed = pack_selection(selection, cu_seqlens)
    covered, others = q.split([num_dense, q.shape[0] - num_dense]) if num_dense else (None, q)
    out, _ = forward_op(
        widen(others),
        widen(k),
        widen(v),
        packed.words,
        packed.table.entries,
        packed.table.first_block,
        block_size,
        *packed.top_k_range,
        scale,
        deterministic,
    )
    out = out[..., : q.shape[2]]
    if covered is None:
        return out
    return torch.cat([attend_dense(covered, k[:num_dense], v[:num_dense], scale=scale), out])


def count_dense_rows(num_tokens: int, top_k_range: TopKRange, *, block_size: int) -> int:
    """Returns how many first rows of one sequence the library's dense attention shall do.

    They are those that attend to all blocks whatever top_k is within its range; none where they
    are too few to be worth a call of their own.
    """
    num_rows = min(num_tokens, top_k_range.least * block_size)
    worth = num_rows >= max(MIN_DENSE_ROWS, DENSE_SHARE * num_tokens)
    return num_rows if worth or num_rows == num_tokens else 0
