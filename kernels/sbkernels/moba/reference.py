"""MoBA written to be read: loops over sequences and heads, one mask each, autograd through it.

The definition that every backend is tested against (arXiv 2502.13189, section 2.2; in its
public code top_k = 1 is full attention, here it is the own block). It holds a score matrix of
length x length per head: a few thousand tokens, not more.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, M max_num_blocks,
L tokens and B blocks of the sequence at hand.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch

from sbkernels.moba.budget import ANY_TOP_K, TopKRange, normalize_top_k
from sbkernels.moba.selection import BlockSelection, RankedSelection, num_blocks_of
from sbkernels.moba.validate import (
    check_boundaries,
    check_query_key,
    check_selection,
    check_value,
)


def moba_attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    top_k: int | torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
    scale: float | None = None,
    selection: BlockSelection | None = None,
    deterministic: bool = False,
) -> torch.Tensor:
    """Returns what `moba_attention` returns, [T, H, D], by plain torch on any device."""
    check_query_key(q, k)
    check_value(v, k)
    check_boundaries(cu_seqlens, q, block_size=block_size, max_seqlen=max_seqlen)
    if selection is not None:
        check_selection(selection, q, cu_seqlens, block_size=block_size, max_seqlen=max_seqlen)
    return attend(
        q,
        k,
        v,
        cu_seqlens,
        normalize_top_k(top_k, cu_seqlens, ANY_TOP_K),
        block_size=block_size,
        max_seqlen=max_seqlen,
        top_k_range=ANY_TOP_K,
        scale=q.shape[2] ** -0.5 if scale is None else scale,
        selection=selection,
        deterministic=deterministic,
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
    """Returns the attention output [T, H, D]; computes in float32, or float64 if q is that."""
    del deterministic  # plain loops repeat bitwise in any case
    if selection is None:
        selection = select(
            q,
            k,
            cu_seqlens,
            top_k,
            block_size=block_size,
            max_seqlen=max_seqlen,
            top_k_range=top_k_range,
        )
    member = selection.membership()  # [H, T, M]
    queries, keys, values = (_widen(tensor) for tensor in (q, k, v))
    group = q.shape[1] // k.shape[1]
    out = [q.new_zeros(0, *q.shape[1:])]
    for start, end in _sequences(cu_seqlens):
        if start == end:
            continue
        position = torch.arange(end - start, device=q.device)
        past = position[:, None] >= position[None, :]  # [L, L]
        heads = []
        for head in range(q.shape[1]):
            allowed = past & member[head, start:end, position // block_size]
            logits = queries[start:end, head] @ keys[start:end, head // group].T * scale
            weights = logits.masked_fill(~allowed, -torch.inf).softmax(dim=1)
            heads.append(weights @ values[start:end, head // group])
        out.append(torch.stack(heads, dim=1).to(q.dtype))
    return torch.cat(out)


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
) -> RankedSelection:
    """Returns the chosen blocks in rank order, at most top_k of them, -1 behind."""
    del means  # what is compared with computes its own
    group = q.shape[1] // k.shape[1]
    width = min(int(top_k.max()), max(1, num_blocks_of(max_seqlen, block_size)))
    blocks = torch.full((q.shape[1], q.shape[0], width), -1, dtype=torch.int32, device=q.device)
    for n, (start, end) in enumerate(_sequences(cu_seqlens)):
        if start == end:
            continue
        for head in range(q.shape[1]):
            keys = k[start:end, head // group]
            _, order = _rank_blocks(q[start:end, head], keys, block_size=block_size)
            own = torch.arange(end - start, device=q.device)[:, None] // block_size
            kept = order.masked_fill(order > own, -1)[:, : min(width, int(top_k[n]))]
            blocks[head, start:end, : kept.shape[1]] = kept.int()
    return RankedSelection(
        top_k=top_k,
        block_size=block_size,
        max_seqlen=max_seqlen,
        top_k_range=top_k_range,
        blocks=blocks,
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
    """Returns the coverage curve, float32 [N, len(ladder)]."""
    del max_seqlen  # the boundaries say it
    group = q.shape[1] // k.shape[1]
    curve = torch.ones(cu_seqlens.numel() - 1, len(ladder), dtype=torch.float64)
    for n, (start, end) in enumerate(_sequences(cu_seqlens)):
        num_blocks = num_blocks_of(end - start, block_size)
        if num_blocks == 0:
            continue
        heads = []
        for head in range(q.shape[1]):
            keys = k[start:end, head // group]
            scores, order = _rank_blocks(q[start:end, head], keys, block_size=block_size)
            mass = (scores[::row_stride].double() * q.shape[2] ** -0.5).softmax(dim=1)
            heads.append(mass.gather(1, order[::row_stride]).cumsum(dim=1).mean(dim=0))
        share = torch.stack(heads).mean(dim=0).clamp(max=1.0).cpu()  # [B]
        for column, rung in enumerate(ladder):
            curve[n, column] = share[rung - 1] if rung < num_blocks else 1.0
    return curve.float().to(q.device)


def _rank_blocks(
    queries: torch.Tensor, keys: torch.Tensor, *, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the scores [L, B], -inf for later blocks, and the block ids in rank order."""
    own = torch.arange(queries.shape[0], device=queries.device)[:, None] // block_size
    block = torch.arange(int(own[-1]) + 1, device=queries.device)
    means = [_widen(part).mean(dim=0).to(keys.dtype) for part in keys.split(block_size)]
    scores = queries.float() @ torch.stack(means).float().T
    scores = scores.masked_fill(block > own, -torch.inf)
    first = scores.masked_fill(block == own, torch.inf)
    # The sort is stable: equal scores stay in the order of their index.
    return scores, first.sort(dim=1, descending=True, stable=True).indices


def _sequences(cu_seqlens: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yields the first token and the end of each sequence."""
    return pairwise(cu_seqlens.tolist())


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the tensor in the dtype of the sums: float32, or float64 if it is that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
