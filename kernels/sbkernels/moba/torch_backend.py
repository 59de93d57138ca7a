"""The CPU backend: three exact ways to the same result, the cheapest for each sequence.

Covered sequences (at most top_k blocks) go to the library's fused dense kernel; short ones of
which the budget leaves out little go to the same kernel with a mask; all others go through tiles
together, where time follows the budget. bfloat16 and float16 are computed in float32 and rounded
once.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, L tokens and
B blocks of a sequence, C tokens in a block, W ranks kept.
"""

import torch

from sbkernels.moba.budget import TopKRange
from sbkernels.moba.coverage import PackCurves
from sbkernels.moba.dense import allowed_keys, attend_dense, attend_dense_masked
from sbkernels.moba.key_blocks import KeyBlocks
from sbkernels.moba.ranking import rank_blocks
from sbkernels.moba.selection import BlockSelection, RankedSelection, num_blocks_of
from sbkernels.moba.tiles import attend_tiles

# Measured with 1 x 64 and 4 x 32 heads, block_size 16 to 64: up to 512 tokens the mask costs 1.1 to
# 1.6 times dense attention, and tiles more than that once the budget is a third of the length
# (256 tokens, block_size 32, top_k 4: dense 22, mask 34, tiles 46 ms a pack). From 1K on tiles win.
MASKED_TOKENS = 512
MASKED_SHARE = 1 / 3


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
    lengths = cu_seqlens.diff().tolist()
    ranks = _num_ranks(lengths, top_k, block_size=block_size)
    if means is None:
        means = KeyBlocks(lengths, block_size=block_size).means(k)
    width = min(int(top_k.max()), max(1, num_blocks_of(max_seqlen, block_size)))
    blocks = rank_blocks(q, means, lengths, ranks, block_size=block_size, width=width)
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
    lengths = cu_seqlens.diff().tolist()
    curves = torch.ones(len(lengths), len(ladder))
    means = KeyBlocks(lengths, block_size=block_size).means(k)
    pack = PackCurves(lengths, block_size=block_size, ladder=ladder, row_stride=row_stride)
    pack.write(q, means, curves=curves)
    return curves


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
    """Returns the attention output [T, H, D] in the dtype of q."""
    del deterministic  # sums run in a fixed order in any case
    del top_k_range  # top_k itself can be read here
    lengths = cu_seqlens.diff().tolist()
    ranks = _num_ranks(lengths, top_k, block_size=block_size)
    sparse = [n for n, length in enumerate(lengths) if ranks[n] < num_blocks_of(length, block_size)]
    if selection is None:
        ranked = _rank(q, k, lengths, ranks, sparse, block_size=block_size)
    else:
        ranked = _stored(selection, lengths, ranks, sparse)
    # `split`, not slices: the backward pass of a slice writes a full-size tensor of zeros.
    parts = [_widen(tensor).split(lengths) for tensor in (q, k, v)]
    sequences = list(zip(*parts, strict=True))
    outs = {}
    for n, (queries, keys, values) in enumerate(sequences):
        if n not in ranked:
            outs[n] = attend_dense(queries, keys, values, scale=scale)
        elif _masks(lengths[n], ranks[n], block_size=block_size):
            mask = allowed_keys(ranked.pop(n), lengths[n], block_size=block_size)
            outs[n] = attend_dense_masked(queries, keys, values, mask, scale=scale)
    if ranked:
        chosen = [sequences[n] for n in ranked]
        tiled = attend_tiles(chosen, list(ranked.values()), block_size=block_size, scale=scale)
        outs.update(zip(ranked, tiled, strict=True))
    return torch.cat([outs[n] for n in range(len(lengths))]).to(q.dtype)


@torch.no_grad()
def _rank(
    q: torch.Tensor,
    k: torch.Tensor,
    lengths: list[int],
    ranks: list[int],
    wanted: list[int],
    *,
    block_size: int,
) -> dict[int, torch.Tensor]:
    """Returns the ranked blocks of the wanted sequences alone, int32 [H, L, W] each."""
    if not wanted:
        return {}
    means = KeyBlocks(lengths, block_size=block_size).means(k)
    few = [ranks[n] if n in wanted else 0 for n in range(len(lengths))]
    width = max(few)
    blocks = rank_blocks(q, means, lengths, few, block_size=block_size, width=width)
    return _cut(blocks, lengths, ranks, wanted)


def _stored(
    selection: BlockSelection, lengths: list[int], ranks: list[int], wanted: list[int]
) -> dict[int, torch.Tensor]:
    """Returns what the selection holds for the wanted sequences, int32 [H, L, W] each."""
    if not isinstance(selection, RankedSelection):
        raise ValueError(
            f"sbkernels: selection: got {type(selection).__name__}, wanted RankedSelection: "
            "backend torch reads ranked blocks only."
        )
    return _cut(selection.blocks, lengths, ranks, wanted)


def _cut(
    blocks: torch.Tensor, lengths: list[int], ranks: list[int], wanted: list[int]
) -> dict[int, torch.Tensor]:
    rows = blocks.split(lengths, dim=1)
    return {n: rows[n][..., : ranks[n]] for n in wanted}


def _masks(length: int, num_ranks: int, *, block_size: int) -> bool:
    return length <= MASKED_TOKENS and num_ranks * block_size > MASKED_SHARE * length


def _num_ranks(lengths: list[int], top_k: torch.Tensor, *, block_size: int) -> list[int]:
    """Returns how many blocks a row of each sequence attends to at most."""
    budgets = zip(lengths, top_k.tolist(), strict=True)
    return [min(num_blocks_of(length, block_size), budget) for length, budget in budgets]


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
