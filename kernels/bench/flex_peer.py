"""FlexAttention over the union of a tile's blocks as a peer.

Shapes: T tokens of one sequence, H query heads, M blocks, W words of 32 rows, Q tiles of rows.
"""

from collections.abc import Callable

import torch
from peers import batched
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from sbkernels.testing import PackedInputs

TILE = 128


def flex_call(
    inputs: PackedInputs, words: torch.Tensor, *, block_size: int, backward: bool
) -> Callable[[], object]:
    """Returns a call of FlexAttention with the union of the tiles and the rows' own choice.

    The selection and the mask are made beforehand and not timed.
    """
    q, k, v, grad_out = batched(inputs, requires_grad=backward)
    mask = union_mask(words, block_size=block_size, num_tokens=q.shape[2])
    attend = torch.compile(flex_attention)

    def call() -> object:
        out = attend(q, k, v, block_mask=mask, enable_gqa=True)
        return torch.autograd.grad(out, (q, k, v), grad_out) if backward else out

    return call


def union_mask(words: torch.Tensor, *, block_size: int, num_tokens: int) -> BlockMask:
    """Returns the mask in tiles of 128 x 128 of the selection words int32 [H, M, W].

    Tiles below the diagonal that all of their rows chose are full: they run without the mask.
    """
    by_tile = words.view(*words.shape[:2], -1, TILE // 32)
    chosen, whole = (
        tiles.transpose(1, 2).repeat_interleave(block_size // TILE, dim=2)  # [H, Q, Q]
        for tiles in ((by_tile != 0).any(3), (by_tile == -1).all(3))
    )
    tile = torch.arange(chosen.shape[1], device=words.device)
    full = whole & (tile < tile[:, None])
    partial = chosen & (tile <= tile[:, None]) & ~full

    def allowed(
        _batch: torch.Tensor, head: torch.Tensor, row: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        bit = (words[head, key // block_size, row // 32] >> (row % 32)) & 1
        return (bit != 0) & (key <= row)

    return BlockMask.from_kv_blocks(
        *_list(partial),
        *_list(full),
        BLOCK_SIZE=TILE,
        mask_mod=allowed,
        seq_lengths=(num_tokens, num_tokens),
    )


def _list(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns how many of the key tiles bool [H, Q, Q] each row has, and which: with a batch."""
    order = tiles.int().argsort(dim=2, descending=True, stable=True).int()
    return tiles.sum(2).int()[None], order[None]
