"""Coverage: the share of routing mass that the first blocks in rank order hold.

Neighbours of a pack go through together, rows against all blocks of the group, since in the middle
of a step a call costs the processor 5 to 40 us before it does anything. So what the layers of a
pack share is found once (`coverage_layout`), and nothing is computed that follows from the rest: a
budget of k blocks holds all but the past blocks behind the k - 1 largest, whatever the own one is.

What it gives up: keys that are no numbers spoil the curves of the whole group, not of their
sequence alone.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, n of them in a group,
R rows of a group (each sampled token for each query head of a key head), B its blocks, K rungs of
the ladder.
"""

from collections.abc import Sequence
from functools import partial

import torch

from sbkernels.moba.coverage_layout import RowGroup, Sampling, row_groups


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
        self._lengths, self._one = lengths, torch.ones(())
        self._sampling = partial(Sampling, block_size, row_stride, ladder)
        self._groups: list[RowGroup] | None = None

    @torch.no_grad()
    def write(self, q: torch.Tensor, means: torch.Tensor, *, curves: torch.Tensor) -> None:
        """Writes C(k) of each sequence with tokens for each k of the ladder, float32 [N, K].

        q is [T, H, D], means of the keys of all blocks [B, G, D]. Summed in a fixed order, so equal
        inputs give equal bits.
        """
        if self._groups is None:
            sampling = self._sampling(num_heads=q.shape[1], num_kv_heads=means.shape[1])
            self._groups = row_groups(self._lengths, sampling)
        for group in self._groups:
            mass = _past_mass(q.index_select(0, group.tokens), means[group.blocks], group)
            mass.numpy().sort(axis=-1)
            out = curves[group.sequences]
            by_rank = group.shares @ mass.view(-1, mass.shape[2])  # [n, B]
            torch.addmm(self._one, by_rank, group.left, alpha=-1, out=out).clamp_(min=0.0)


def _past_mass(rows: torch.Tensor, means: torch.Tensor, group: RowGroup) -> torch.Tensor:
    """Returns the softmax over the past blocks and the own one, 0 where not past, [G, R, B].

    rows are [R / J, H, D], means [B, G, D].
    """
    num_tokens, _, head_dim = rows.shape
    by_head = rows.float().view(num_tokens, means.shape[1], -1, head_dim).transpose(0, 1)
    queries, keys = by_head.reshape(means.shape[1], -1, head_dim), means.float().permute(1, 2, 0)
    scores = torch.baddbmm(group.hidden, queries, keys, alpha=head_dim**-0.5)
    return scores.softmax(dim=-1).mul_(group.past)
