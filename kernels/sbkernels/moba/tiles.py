"""Attention whose time on a CPU follows the budget: dense algebra over tiles of chosen pairs.

Own blocks are one batched product over all blocks (`own_blocks`). Past blocks are (row, key
block) pairs gathered in tiles (`pairs`, `past_blocks`) and merged per row. The backward pass
recomputes the weights instead of keeping them, so memory is linear in the number of pairs times
the head dim. Sequences come padded to whole blocks: a padding key lies after every real row of
its block, where the causal mask hides it.

Shapes: H query heads, G key heads, D head dim, B blocks of all sequences, C tokens in a block,
Q = H * B * C query rows, R past blocks per row, S slots of the tiles.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from sbkernels.moba.own_blocks import attend_own, own_gradients
from sbkernels.moba.packing import cut_from_blocks, pad_to_blocks, past_blocks_of_pack
from sbkernels.moba.pairs import PairTiles, tile_pairs
from sbkernels.moba.past_blocks import attend_past, past_gradients

# Measured best or within 5 % for block_size 16 to 128, top_k 4 to 16, 1K to 4K tokens: lower tiles
# copy more keys, higher ones compute more padding.
ROWS_PER_TILE = 64


def attend_tiles(
    sequences: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    ranked: Sequence[torch.Tensor],
    *,
    block_size: int,
    scale: float,
) -> list[torch.Tensor]:
    """Returns the outputs [L, H, D] of sequences (q, k, v), each with its ranked blocks.

    q [L, H, D], k and v [L, G, D], not empty; ranked int32 [H, L, W] in rank order, -1 behind.
    """
    q, k, v = (pad_to_blocks(part, block_size=block_size) for part in zip(*sequences, strict=True))
    tiles = tile_pairs(
        past_blocks_of_pack(ranked, block_size=block_size),
        num_kv_heads=k.shape[0],
        num_blocks=k.shape[1],
        rows_per_tile=ROWS_PER_TILE,
    )
    out: torch.Tensor = TilesAttention.apply(q, k, v, tiles, scale)
    return cut_from_blocks(out, [queries.shape[0] for queries, _, _ in sequences])


class TilesAttention(torch.autograd.Function):
    """Softmax attention over own blocks (causal) and the past blocks listed in tiles."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        tiles: PairTiles,
        scale: float,
    ) -> torch.Tensor:
        """Returns the output [H, B, C, D] for q [H, B, C, D] and k, v [G, B, C, D]."""
        q = q * scale
        own_sums, own_top, own_total = attend_own(q, k, v)
        slot_sums, slot_top, slot_total = attend_past(q, k, v, tiles)
        past_top = slot_top[tiles.slots].masked_fill_(tiles.absent, -torch.inf)  # [Q, R]
        tops = torch.cat([own_top.view(-1, 1), past_top], dim=1)  # [Q, 1 + R]
        totals = torch.cat([own_total.view(-1, 1), slot_total[tiles.slots]], dim=1)
        top = tops.amax(dim=1, keepdim=True)
        # Relative to the largest top, not to the log-sum-exp: that loses digits as logits grow.
        shares = tops.sub_(top).exp_()
        total = (shares * totals).sum(dim=1, keepdim=True)
        shares /= total
        out = own_sums * shares[:, 0].view_as(own_top)[..., None]
        _add_slots(out, slot_sums, tiles, weights=shares[:, 1:])
        lse = top.add_(total.log_()).view_as(own_top)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, out, lse, *tiles)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Returns the gradients of q, k and v."""
        q, k, v, out, lse, *lists = ctx.saved_tensors
        tiles = PairTiles(*lists)
        grad_out = grad_out.contiguous()
        delta = (grad_out * out).sum(dim=-1)
        grad_q, own_grad_k, own_grad_v = own_gradients(q, k, v, grad_out, lse, delta)
        slot_grad_q, grad_k, grad_v = past_gradients(q, k, v, grad_out, lse, delta, tiles)
        _add_slots(grad_q, slot_grad_q, tiles, weights=(~tiles.absent).to(q.dtype))
        return grad_q.mul_(ctx.scale), grad_k.add_(own_grad_k), grad_v.add_(own_grad_v), None, None


def _add_slots(
    rows: torch.Tensor, slot_values: torch.Tensor, tiles: PairTiles, *, weights: torch.Tensor
) -> None:
    """Adds to each row [..., D] the weighted values [S, D] of its slots, in rank order."""
    if slot_values.shape[0] == 0:
        return
    # One pass over the slots of a row: neither a gathered copy nor atomics.
    added = embedding_bag(
        tiles.slots, slot_values, per_sample_weights=weights.contiguous(), mode="sum"
    )
    rows.view(-1, rows.shape[-1]).add_(added)
