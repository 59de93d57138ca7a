"""Curves and budgets of all layers of one pack: what does not change from layer to layer, once.

A layer costs two launches, the pooling of its keys and the curve with its clamp; a pack costs
three more. Nothing is read on the host.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, L layers, K rungs of
the ladder, S sequences rounded up to a multiple of 4.
"""

import torch

from sbkernels.moba.selection import num_blocks_of
from sbkernels.moba.triton.blocks import build_block_table
from sbkernels.moba.triton.coverage import LayerClamp, sample_rows, write_curves
from sbkernels.moba.triton.select import MAX_NUM_BLOCKS
from sbkernels.moba.triton.supported import check_supported, widen
from sbkernels.moba.validate import check_boundaries, check_query_key


class LayerCurves:
    """The curves of a pack, layer by layer, and the budgets that they allow."""

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        cu_seqlens: torch.Tensor,
        *,
        block_size: int,
        max_seqlen: int,
        rungs: torch.Tensor,
        most_blocks: int,
        row_stride: int,
        curves: torch.Tensor,
    ) -> None:
        """Prepares for layers whose queries and keys are like q [T, H, D] and k [T, G, D].

        Args:
            q: Of any layer.
            k: Of any layer.
            cu_seqlens: int32 [N+1].
            block_size: Tokens in a key block.
            max_seqlen: At least the length of the longest sequence.
            rungs: int32 [K], the ladder, ascending.
            most_blocks: Blocks that sequences of other packs have at most: packs that agree on it
                share one compiled kernel.
            row_stride: Query rows from one that counts to the next.
            curves: float32 [L, N, K], written layer by layer; sequences without tokens keep theirs.

        Raises:
            ValueError: An argument does not fit, as in `coverage_curve`.
        """
        check_query_key(q, k)
        check_boundaries(cu_seqlens, q, block_size=block_size, max_seqlen=max_seqlen)
        check_supported(q, block_size=block_size, max_seqlen=max_seqlen)
        num_blocks = num_blocks_of(max_seqlen, block_size)
        self._curves, self._scale = curves, q.shape[2] ** -0.5
        self._rows = sample_rows(
            q,
            cu_seqlens,
            build_block_table(cu_seqlens, q.shape[0], block_size=block_size),
            rungs=rungs,
            max_num_blocks=max(num_blocks, min(most_blocks, MAX_NUM_BLOCKS)),
            row_stride=row_stride,
        )

    def write(
        self, q: torch.Tensor, k: torch.Tensor, *, layer: int, clamp: LayerClamp | None
    ) -> None:
        """Writes the layer's curves, and its budgets where a clamp is given."""
        write_curves(
            widen(q),
            widen(k),
            self._rows,
            self._curves,
            layer=layer,
            scale=self._scale,
            clamp=clamp,
        )
