"""The custom operators: opaque to torch.compile, differentiable, safe to capture in a graph.

Saved for backward are q, k, v, out, lse and the selection words. Nothing is read back to the
host, and no launch depends on the values of top_k or of the boundaries.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, M blocks of the
longest sequence, S padded blocks, W words. The block table is passed as its two tensors.
"""

from typing import Any

import torch

from sbkernels.moba.budget import TopKRange
from sbkernels.moba.selection import num_blocks_of
from sbkernels.moba.triton.backward import run_backward, split_gradients
from sbkernels.moba.triton.blocks import BlockTable, bound_num_blocks, build_block_table
from sbkernels.moba.triton.coverage import compute_coverage
from sbkernels.moba.triton.forward import run_forward
from sbkernels.moba.triton.select import select_words


@torch.library.custom_op("sbkernels::moba_select", mutates_args=())
def select_op(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: torch.Tensor,
    block_size: int,
    max_seqlen: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the selection words int32 [H, M, W] and the block table, int32 [S, 4] and [N+1]."""
    if q.shape[0] == 0:
        return _empty_words(q, k, cu_seqlens, top_k, block_size, max_seqlen)
    table = build_block_table(cu_seqlens, q.shape[0], block_size=block_size)
    words = select_words(q, k, top_k, table, max_num_blocks=num_blocks_of(max_seqlen, block_size))
    return words, table.entries, table.first_block


@select_op.register_fake
def _empty_words(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: torch.Tensor,
    block_size: int,
    max_seqlen: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    num_blocks = bound_num_blocks(q.shape[0], cu_seqlens.shape[0] - 1, block_size=block_size)
    shape = (q.shape[1], num_blocks_of(max_seqlen, block_size), num_blocks * block_size // 32)
    return (
        q.new_empty(shape, dtype=torch.int32),
        cu_seqlens.new_empty((num_blocks, 4)),
        cu_seqlens.new_empty(cu_seqlens.shape),
    )


@torch.library.custom_op("sbkernels::moba_coverage", mutates_args=())
def coverage_op(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    block_size: int,
    max_seqlen: int,
    ladder: list[int],
    row_stride: int,
    scale: float,
) -> torch.Tensor:
    """Returns the coverage float32 [N, len(ladder)]."""
    if q.shape[0] == 0:
        return q.new_ones((cu_seqlens.shape[0] - 1, len(ladder)), dtype=torch.float32)
    return compute_coverage(
        q,
        k,
        cu_seqlens,
        build_block_table(cu_seqlens, q.shape[0], block_size=block_size),
        max_num_blocks=num_blocks_of(max_seqlen, block_size),
        ladder=tuple(ladder),
        row_stride=row_stride,
        scale=scale,
    )


@coverage_op.register_fake
def _empty_coverage(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    block_size: int,
    max_seqlen: int,
    ladder: list[int],
    row_stride: int,
    scale: float,
) -> torch.Tensor:
    return q.new_empty((cu_seqlens.shape[0] - 1, len(ladder)), dtype=torch.float32)


@torch.library.custom_op("sbkernels::moba_forward", mutates_args=())
def forward_op(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    words: torch.Tensor,
    entries: torch.Tensor,
    first_block: torch.Tensor,
    block_size: int,
    min_top_k: int,
    max_top_k: int,
    scale: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the output [T, H, D] and the log2-sum-exp2 float32 [H, T].

    q may lack the first rows of the one sequence, whole blocks of them.
    """
    if q.shape[0] == 0:
        return _empty_output(
            q,
            k,
            v,
            words,
            entries,
            first_block,
            block_size,
            min_top_k,
            max_top_k,
            scale,
            deterministic,
        )
    return run_forward(
        q,
        k.contiguous(),
        v.contiguous(),
        words,
        BlockTable(entries=entries, first_block=first_block, block_size=block_size),
        top_k_range=TopKRange(min_top_k, max_top_k),
        scale=scale,
        deterministic=deterministic,
    )


@forward_op.register_fake
def _empty_output(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    words: torch.Tensor,
    entries: torch.Tensor,
    first_block: torch.Tensor,
    block_size: int,
    min_top_k: int,
    max_top_k: int,
    scale: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("sbkernels::moba_backward", mutates_args=())
def backward_op(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    words: torch.Tensor,
    entries: torch.Tensor,
    first_block: torch.Tensor,
    block_size: int,
    min_top_k: int,
    max_top_k: int,
    scale: float,
    deterministic: bool,
) -> torch.Tensor:
    """Returns dQ [T, H, D], dK and dV [T, G, D] one behind the other, flat."""
    if q.shape[0] == 0:
        return q.new_empty(2 * k.numel())
    return run_backward(
        dout,
        q,
        k.contiguous(),
        v.contiguous(),
        out,
        lse,
        words,
        BlockTable(entries=entries, first_block=first_block, block_size=block_size),
        max_top_k=max_top_k,
        scale=scale,
        deterministic=deterministic,
    )


@backward_op.register_fake
def _empty_gradients(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    words: torch.Tensor,
    entries: torch.Tensor,
    first_block: torch.Tensor,
    block_size: int,
    min_top_k: int,
    max_top_k: int,
    scale: float,
    deterministic: bool,
) -> torch.Tensor:
    return q.new_empty(q.numel() + 2 * k.numel())


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, words, entries, first_block, *constants = inputs
    ctx.save_for_backward(q, k, v, *output, words, entries, first_block)
    ctx.constants = constants
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, dout: torch.Tensor, dlse: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    assert dlse is None, "the log-sum-exp is not an output that users see"
    q, k, *others = ctx.saved_tensors
    gradients = backward_op(dout, q, k, *others, *ctx.constants)
    # Outside the operator: its outputs may not share memory.
    return (*split_gradients(gradients, q, k), *(None,) * 8)


forward_op.register_autograd(_differentiate, setup_context=_save)
