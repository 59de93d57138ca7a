"""Scores, rank order and coverage of key blocks, for whole sequences at a time.

Rows go through in bands, against the blocks that a band can see: half of the scores are never
computed, and those of a band stay in the cache.

Shapes: L tokens, H query heads, G key heads, J query heads per key head, D head dim,
B blocks of the sequence, W ranks kept, l rows of a band.
"""

import torch

ROWS_PER_BAND = 512


def rank_blocks(
    q: torch.Tensor, means: torch.Tensor, *, block_size: int, num_ranks: int
) -> torch.Tensor:
    """Returns the first blocks of each row in rank order, int32 [H, L, W], -1 behind the last.

    q is [L, H, D], means [B, G, D] of the keys of each block.
    Rank order: own block, then past blocks by score descending, then by lower index.
    """
    num_tokens, num_heads, _ = q.shape
    blocks = torch.full((num_heads, num_tokens, num_ranks), -1, dtype=torch.int32)
    for rows in torch.arange(num_tokens).split(ROWS_PER_BAND):
        own = rows // block_size
        blocks[:, rows, 0] = own.int()
        num_past = min(num_ranks - 1, int(own[-1]))
        if num_past:
            scores = score_blocks(q[rows], means[: int(own[-1])], own - 1)
            best = best_columns(scores.flatten(0, 1), num_past).view(num_heads, -1, num_past)
            best = best.masked_fill_(best >= own[:, None], -1)
            blocks[:, rows, 1 : 1 + num_past] = best.int()
    return blocks


def score_blocks(q: torch.Tensor, means: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Returns the float32 scores [H, l, B] of rows q [l, H, D], -inf where block > last [l]."""
    num_rows, num_heads, head_dim = q.shape
    num_blocks, num_kv_heads, _ = means.shape
    rows = q.float().transpose(0, 1).reshape(num_kv_heads, -1, head_dim)  # [G, J * l, D]
    scores = torch.bmm(rows, means.float().permute(1, 2, 0)).view(num_heads, num_rows, num_blocks)
    return scores.masked_fill_(torch.arange(num_blocks) > last[:, None], -torch.inf)


def best_columns(scores: torch.Tensor, num_columns: int) -> torch.Tensor:
    """Returns the columns of the largest scores per row [rows, num_columns], ties to the lower.

    `topk` leaves the order of equal values open, so rows with equal finite values among the
    best (one more than asked, for a tie at the edge) are sorted again, stably.
    """
    width = min(num_columns + 1, scores.shape[1])
    values, columns = scores.topk(width, dim=1)
    tied = (values[:, 1:] == values[:, :-1]) & ~values[:, 1:].isneginf()
    repeat = tied.any(dim=1).nonzero()[:, 0]
    columns = columns[:, :num_columns]
    if repeat.numel():
        order = scores[repeat].sort(dim=1, descending=True, stable=True).indices
        columns[repeat] = order[:, :num_columns]
    return columns
