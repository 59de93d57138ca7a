"""The public functions: check the arguments once, choose a backend, hand over."""

from collections.abc import Sequence

import torch

from sbkernels.moba.backends import load_backend
from sbkernels.moba.budget import normalize_range, normalize_top_k
from sbkernels.moba.selection import BlockSelection
from sbkernels.moba.validate import (
    check_boundaries,
    check_ladder,
    check_query_key,
    check_selection,
    check_value,
)


def select_blocks(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: int | torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    min_top_k: int | None = None,
    max_top_k: int | None = None,
    means: torch.Tensor | None = None,
    backend: str = "auto",
) -> BlockSelection:
    """Returns the key blocks of each query token and head: the own one and the best past ones.

    The score of a block is q . mean(keys of the block) in float32, the mean rounded once to
    the dtype of k; only blocks wholly in the past compete; ties go to the lower block index
    (MoBA, arXiv 2502.13189, section 2.2). No gradient passes through the choice.

    Args:
        q: [T, H, D], float32, float64, bfloat16 or float16.
        k: [T, G, D] with H a multiple of G.
        cu_seqlens: int32 [N+1] on the same device; sequences may be empty.
        top_k: Blocks per query, own block counted: an int, or int32 [N] or [1] on the device.
        block_size: Tokens in a key block, counted from the start of each sequence.
        max_seqlen: At least the length of the longest sequence.
        min_top_k: A promise that no value of top_k is below: where it covers the longest sequence
            attention is the library's dense one. None promises nothing; an int `top_k` is known.
        max_top_k: A promise that none is above: buffers shrink with it. Values outside the
            promise are clamped on the device, and refused where they can be seen.
        means: The mean key of each block of the pack, [B, G, D], where the caller has them
            (`sbkernels.moba.key_blocks`): backend torch uses them, others compute their own.
        backend: "auto", "triton", "torch" or "reference".

    Raises:
        ValueError: An argument does not fit; the message names it, what came, what is wanted.
    """
    check_query_key(q, k)
    check_boundaries(cu_seqlens, q, block_size=block_size, max_seqlen=max_seqlen)
    known = normalize_range(top_k, min_top_k=min_top_k, max_top_k=max_top_k)
    return load_backend(backend, q.device).select(
        q,
        k,
        cu_seqlens,
        normalize_top_k(top_k, cu_seqlens, known),
        block_size=block_size,
        max_seqlen=max_seqlen,
        top_k_range=known,
        means=means,
    )


def coverage_curve(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    ladder: Sequence[int],
    row_stride: int = 16,
    backend: str = "auto",
) -> torch.Tensor:
    """Returns the coverage C(k) of each sequence for each k of the ladder, float32 [N, K].

    The routing mass of a row is the softmax of its block scores times D**-0.5 over the past
    blocks and the own one (by its centroid). C(k) is the mean over rows and heads of the mass
    of the first k blocks in rank order: own block, then score descending, then lower index.
    Rows 0, row_stride, 2 * row_stride ... of each sequence count; where k is at least the
    number of blocks, and for an empty sequence, C is 1. Equal inputs give equal bits.

    Args as for `select_blocks`; `ladder` holds strictly ascending values of top_k.

    Raises:
        ValueError: An argument does not fit; the message names it, what came, what is wanted.
    """
    check_query_key(q, k)
    check_boundaries(cu_seqlens, q, block_size=block_size, max_seqlen=max_seqlen)
    rungs = check_ladder(ladder, row_stride=row_stride)
    return load_backend(backend, q.device).cover(
        q,
        k,
        cu_seqlens,
        block_size=block_size,
        max_seqlen=max_seqlen,
        ladder=rungs,
        row_stride=row_stride,
    )


def moba_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: int | torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    min_top_k: int | None = None,
    max_top_k: int | None = None,
    scale: float | None = None,
    selection: BlockSelection | None = None,
    deterministic: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """Returns the attention of q over the selected key blocks, [T, H, D] in the dtype of q.

    Softmax over the keys of the chosen blocks that are not later than the query, per sequence
    and query head. `top_k >= num_blocks` equals dense causal attention, `top_k = 1` is the own
    block only. Differentiable in q, k and v; the choice carries no gradient.

    Args as for `select_blocks`, and:
        v: Like k.
        scale: Factor of the logits; None means D**-0.5.
        selection: What `select_blocks` returned for the same inputs; it is used as it is and
            neither `top_k` nor its bounds are read. None selects anew.
        deterministic: Asks for bitwise repeatable gradients. The CPU backends always are.

    Raises:
        ValueError: An argument does not fit; the message names it, what came, what is wanted.
    """
    check_query_key(q, k)
    check_value(v, k)
    check_boundaries(cu_seqlens, q, block_size=block_size, max_seqlen=max_seqlen)
    if selection is None:
        known = normalize_range(top_k, min_top_k=min_top_k, max_top_k=max_top_k)
        budget_blocks = normalize_top_k(top_k, cu_seqlens, known)
    else:
        check_selection(selection, q, cu_seqlens, block_size=block_size, max_seqlen=max_seqlen)
        known, budget_blocks = selection.top_k_range, selection.top_k
    return load_backend(backend, q.device).attend(
        q,
        k,
        v,
        cu_seqlens,
        budget_blocks,
        block_size=block_size,
        max_seqlen=max_seqlen,
        top_k_range=known,
        scale=q.shape[2] ** -0.5 if scale is None else scale,
        selection=selection,
        deterministic=deterministic,
    )
