"""Dense causal attention of packed sequences, by the library's own kernels.

T packed tokens, H query heads, G key heads, D head dim.
"""

import torch

from sbkernels.moba.dense import attend_dense


def dense_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: tuple[int, ...],
    *,
    scale: float | None,
) -> torch.Tensor:
    """Returns causal attention within each sequence, [T, H, D] in the dtype of q [T, H, D].

    One call per sequence: exact lengths beat padding, and ``split`` gives one gradient buffer
    where slices would give one of full size for each sequence.
    """
    factor = q.shape[2] ** -0.5 if scale is None else scale
    parts = zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True)
    outputs = [attend_dense(*part, scale=factor) for part in parts]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
