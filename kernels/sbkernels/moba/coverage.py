"""Coverage: the share of routing mass that the first blocks in rank order hold.

All short sequences of a pack go through together, rows against all their blocks, since a pack
would otherwise cost more calls than arithmetic; a long one goes through alone. In the middle of a
step a call costs the processor 5 to 40 us before it does anything, so what the layers of a pack
share is found once (`coverage_layout`).

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, n of them in a group,
R their sampled rows, B their blocks, C tokens in a block, W blocks of the longest of them, K rungs
of the ladder.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sbkernels.moba.coverage_layout import Pieces, RowGroup, row_groups
from sbkernels.moba.ranking import block_means

Floats = NDArray[np.floating]


class PackCurves:
    """The curves of a pack, layer after layer: rows 0, row_stride, 2 * row_stride ... count."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        block_size: int,
        ladder: tuple[int, ...],
        row_stride: int,
    ) -> None:
        self._shape, self._block_size = (len(lengths), len(ladder)), block_size
        self._groups = row_groups(
            lengths, block_size=block_size, ladder=ladder, row_stride=row_stride
        )

    @torch.no_grad()
    def measure(self, q: torch.Tensor, k: torch.Tensor) -> NDArray[np.float64]:
        """Returns C(k) of each sequence for each k of the ladder, [N, K]; 1 where empty.

        q is [T, H, D], k [T, G, D]. Summed in a fixed order, so equal inputs give equal bits.
        """
        curves = np.ones(self._shape)
        for group in self._groups:
            scores = _scores(q.index_select(0, group.row_token), self._means(k, group))
            curves[group.members] = _mean_share(_routing_mass(scores, group, q.shape[2]), group)
        return curves

    def _means(self, k: torch.Tensor, group: RowGroup) -> torch.Tensor:
        """Returns the mean key of each block, [B, G, D]: float32 sums, rounded to the dtype."""
        if group.pieces is None:
            return block_means(k[group.tokens], block_size=self._block_size)
        return _gathered_means(k, group.pieces)


def _gathered_means(k: torch.Tensor, pieces: Pieces) -> torch.Tensor:
    # One product over gathered blocks: half of the time of a sum over ragged ones.
    blocks = k.flatten(1).index_select(0, pieces.tokens)
    wide = blocks if k.dtype == torch.float64 else blocks.float()
    wide = wide.view(len(pieces.sizes), -1, wide.shape[1])
    sums = (pieces.counted.to(wide.dtype) @ wide)[:, 0]
    return sums.div_(pieces.sizes).view(-1, *k.shape[1:]).to(k.dtype)


def _scores(rows: torch.Tensor, means: torch.Tensor) -> Floats:
    """Returns the scores of rows [R, H, D] with all blocks of the group, [H, R, B]."""
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    grouped = rows.to(wide).unflatten(1, (means.shape[1], -1)).permute(1, 2, 0, 3)
    scores = grouped.flatten(1, 2) @ means.to(wide).permute(1, 2, 0)  # [G, H / G * R, B]
    array: Floats = scores.view(rows.shape[1], rows.shape[0], -1).numpy()
    return array


def _routing_mass(scores: Floats, group: RowGroup, head_dim: int) -> Floats:
    """Returns the softmax of each row over its past blocks and its own, by rank, [H, R, W].

    Last comes the own block, which has rank 0 whatever its mass, before it the others by falling
    mass. Equal scores are interchangeable, so they are sorted without their indices.
    """
    if group.pieces is not None:
        scores = scores.reshape(len(scores), -1).take(group.pieces.place, axis=1)
        scores = scores.reshape(-1, *group.future.shape)
    np.copyto(scores, -np.inf, where=group.future)
    of_own = (slice(None), *group.own)
    own = scores[of_own]
    scores[of_own] = np.inf
    scores.sort(axis=-1)
    scores[..., -1] = own
    scores *= scores.dtype.type(head_dim**-0.5)
    mass: Floats = torch.softmax(torch.from_numpy(scores), dim=-1).numpy()
    return mass


def _mean_share(mass: Floats, group: RowGroup) -> NDArray[np.float64]:
    """Returns the mean over rows and heads of the first blocks' mass, [n, K]."""
    by_rank = np.add.reduceat(mass.sum(axis=0, dtype=np.float64)[:, ::-1], group.first_row, axis=0)
    share = np.cumsum(by_rank, axis=1) / (group.num_rows * len(mass))
    at_rung = np.minimum(share, 1.0)[:, group.rank]
    at_rung[group.whole] = 1.0
    return at_rung
