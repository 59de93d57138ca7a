"""Coverage: the share of routing mass that the first blocks in rank order hold.

Short sequences are padded to one another and go through together, since a pack of them would
otherwise cost more calls than arithmetic; long ones go through alone, where padding would cost.

Shapes: L tokens, H query heads, G key heads, J query heads per key head, D head dim, n sequences
of a group, R sampled rows, B blocks of the longest of them, K rungs of the ladder.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

SHORT_BLOCKS = 32
"""Sequences of at most this many blocks share a group."""


def pack_coverage(
    queries: Sequence[torch.Tensor],
    keys: Sequence[torch.Tensor],
    *,
    block_size: int,
    ladder: tuple[int, ...],
    row_stride: int,
) -> torch.Tensor:
    """Returns C(k) of each sequence for each k of the ladder, float64 [N, K]; 1 where empty.

    queries are [L, H, D], keys [L, G, D]; rows 0, row_stride, 2 * row_stride ... count. Summed in
    float64 in a fixed order, so equal inputs give equal bits.
    """
    curves = torch.ones((len(queries), len(ladder)), dtype=torch.float64)
    for members in _groups([q.shape[0] for q in queries], block_size):
        curves[members] = _group_coverage(
            [queries[i][::row_stride] for i in members],
            [keys[i] for i in members],
            block_size=block_size,
            ladder=torch.tensor(ladder),
            row_stride=row_stride,
        )
    return curves


def _groups(lengths: Sequence[int], block_size: int) -> list[list[int]]:
    """Returns the sequences of more than one block: the short ones, then each long one."""
    many = [i for i, length in enumerate(lengths) if length > block_size]
    short = [i for i in many if lengths[i] <= SHORT_BLOCKS * block_size]
    return ([short] if short else []) + [[i] for i in many if i not in short]


def _group_coverage(
    rows: list[torch.Tensor],
    keys: list[torch.Tensor],
    *,
    block_size: int,
    ladder: torch.Tensor,
    row_stride: int,
) -> torch.Tensor:
    """Returns float64 [n, K]; rows are the sampled queries of each sequence."""
    num_rows = torch.tensor([row.shape[0] for row in rows])
    num_blocks = torch.tensor([-(-key.shape[0] // block_size) for key in keys])
    own = torch.arange(int(num_rows.max())) * row_stride // block_size  # [R]
    mass = _ranked_mass(pad_sequence(rows, batch_first=True), _means(keys, block_size), own)
    real = torch.arange(own.numel()) < num_rows[:, None]  # [n, R]
    counted = mass.cumsum(dim=-1).sum(dim=1).mul_(real[..., None]).sum(dim=1)  # [n, B]
    share = (counted / (num_rows[:, None] * mass.shape[1])).clamp_(max=1.0)
    at_rung = share[:, (ladder - 1).clamp(max=share.shape[1] - 1)]
    return at_rung.masked_fill_(ladder >= num_blocks[:, None], 1.0)


def _means(keys: list[torch.Tensor], block_size: int) -> torch.Tensor:
    """Returns the mean key of each block, [n, B, G, D]: float32 sums, rounded once to the dtype.

    Blocks that a sequence does not have are zero; no row of its own sees them.
    """
    lengths = torch.tensor([key.shape[0] for key in keys])
    padded = pad_sequence(keys, batch_first=True)
    padded = torch.nn.functional.pad(padded, (0, 0, 0, 0, 0, -padded.shape[1] % block_size))
    wide = padded if padded.dtype == torch.float64 else padded.float()
    sums = wide.unflatten(1, (-1, block_size)).sum(dim=2)
    starts = torch.arange(sums.shape[1]) * block_size
    sizes = (lengths[:, None] - starts).clamp(min=1, max=block_size)
    return (sums / sizes[..., None, None]).to(padded.dtype)


def _ranked_mass(rows: torch.Tensor, means: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Returns the routing mass [n, H, R, B] of rows [n, R, H, D]: own block first, then falling."""
    num_sequences, _, num_heads, head_dim = rows.shape
    num_kv_heads = means.shape[2]
    grouped = rows.float().unflatten(2, (num_kv_heads, -1)).permute(0, 2, 3, 1, 4)  # [n,G,J,R,D]
    keys = means.float().permute(0, 2, 3, 1).unsqueeze(2)  # [n, G, 1, D, B]
    scores = (grouped @ keys).reshape(num_sequences, num_heads, own.numel(), -1)
    future = torch.arange(scores.shape[-1]) > own[:, None]
    logits = scores.masked_fill_(future, -torch.inf).double() * head_dim**-0.5
    mass = logits.detach().softmax(dim=-1)
    column = own.expand(mass.shape[:3])[..., None]
    own_mass = mass.gather(3, column)
    # Equal scores have equal mass, so their order does not matter, and numpy, which sorts values
    # without their indices, is 40 times faster than torch at this size.
    rising = np.sort(mass.scatter_(3, column, -1.0).numpy(), axis=-1)[..., 1:]
    past = torch.from_numpy(rising).flip(-1)
    return torch.cat([own_mass, past], dim=-1)
