"""Groups (query row, past key block) pairs by key block, in tiles that a bmm can take.

The choice of blocks is per token and per head, so rows that want the same block lie scattered.
A stable sort by key block brings them together; each group is cut into tiles of equal height,
the last one padded. Ordered, hence deterministic; linear in the number of pairs.

Shapes: H query heads, G key heads, P padded tokens (a whole number of blocks per sequence),
B blocks of all sequences, R past blocks per row, X tiles, S slots = X * rows per tile.
A row is head * P + token, a key is key head * B + block, a slot is a place in a tile.
"""

from typing import NamedTuple

import torch


class PairTiles(NamedTuple):
    """Which row each slot reads, which key block each tile reads, and the way back.

    A tuple of tensors, so that autograd can save it.

    Attributes:
        rows: int64 [X, rows per tile]; row 0 in padding slots.
        padding: bool [X, rows per tile]; slots that stand for no pair.
        keys: int64 [X].
        slots: int64 [H * P, R]; slot of each pair of the row, 0 where it has none.
        absent: bool [H * P, R]; where the row has no such pair.
    """

    rows: torch.Tensor
    padding: torch.Tensor
    keys: torch.Tensor
    slots: torch.Tensor
    absent: torch.Tensor

    @property
    def num_pairs(self) -> int:
        """Number of (row, past block) pairs: the work, apart from own blocks and padding."""
        return int((~self.padding).sum())


def tile_pairs(
    past_blocks: torch.Tensor, *, num_kv_heads: int, num_blocks: int, rows_per_tile: int
) -> PairTiles:
    """Returns the pairs of past_blocks int [H, P, R] (block of the pack, -1 = none) in tiles."""
    num_heads = past_blocks.shape[0]
    key_head = torch.arange(num_heads) // (num_heads // num_kv_heads)
    if (past_blocks < 0).all():
        past_blocks = past_blocks[..., :0]
    keys = (past_blocks + key_head[:, None, None] * num_blocks).flatten(0, 1)  # [H * P, R]
    absent = past_blocks.flatten(0, 1) < 0
    row, rank = (~absent).nonzero(as_tuple=True)
    # Radix sort: int32 takes half the time of int64.
    sorted_keys, order = keys[row, rank].int().sort(stable=True)
    counts = torch.bincount(sorted_keys, minlength=num_kv_heads * num_blocks)
    num_tiles = -(-counts // rows_per_tile)
    shift = (_exclusive_sum(num_tiles) * rows_per_tile - _exclusive_sum(counts))[sorted_keys]
    slot = torch.arange(order.numel()) + shift

    rows = torch.zeros(int(num_tiles.sum()) * rows_per_tile, dtype=torch.int64)
    padding = torch.ones(rows.numel(), dtype=torch.bool)
    slots = torch.zeros(keys.shape, dtype=torch.int64)
    rows[slot] = row[order]
    padding[slot] = False
    slots[row[order], rank[order]] = slot
    return PairTiles(
        rows=rows.view(-1, rows_per_tile),
        padding=padding.view(-1, rows_per_tile),
        keys=torch.arange(num_tiles.numel()).repeat_interleave(num_tiles),
        slots=slots,
        absent=absent,
    )


def _exclusive_sum(counts: torch.Tensor) -> torch.Tensor:
    return counts.cumsum(0) - counts
