"""Coverage: the share of routing mass that the first blocks in rank order hold.

Shapes: L tokens, H query heads, G key heads, D head dim, B blocks of the sequence, K rungs of
the ladder, l rows of a band.
"""

import torch

from sbkernels.moba.ranking import ROWS_PER_BAND, block_means, score_blocks


def sequence_coverage(
    q: torch.Tensor, k: torch.Tensor, *, block_size: int, ladder: tuple[int, ...], row_stride: int
) -> torch.Tensor:
    """Returns C(k) of one sequence for each k of the ladder, float64 [K]; 1 if it is empty.

    q [L, H, D], k [L, G, D]; rows 0, row_stride, 2 * row_stride ... count. Summed in float64 in
    a fixed order, so equal inputs give equal bits.
    """
    curve = torch.ones(len(ladder), dtype=torch.float64)
    rows = torch.arange(0, q.shape[0], row_stride)
    if rows.numel() == 0:
        return curve
    means = block_means(k, block_size=block_size)
    total = torch.zeros(means.shape[0], dtype=torch.float64)
    for band in rows.split(ROWS_PER_BAND):
        mass = _ranked_mass(q[band], means, band // block_size)
        total += mass.cumsum(dim=-1).sum(dim=(0, 1))
    share = (total / (rows.numel() * q.shape[1])).clamp_(max=1.0)
    for column, rung in enumerate(ladder):
        if rung < share.numel():
            curve[column] = share[rung - 1]
    return curve


def _ranked_mass(q: torch.Tensor, means: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Returns the routing mass [H, l, B] of rows q [l, H, D]: own block first, then falling."""
    scores = score_blocks(q, means, own).double()
    mass = (scores * q.shape[-1] ** -0.5).softmax(dim=-1)
    column = own.expand(mass.shape[:2])[..., None]
    own_mass = mass.gather(2, column)
    # Equal scores have equal mass, so their order does not matter here.
    past = mass.scatter_(2, column, -1.0).sort(dim=-1, descending=True).values[..., :-1]
    return torch.cat([own_mass, past], dim=-1)
