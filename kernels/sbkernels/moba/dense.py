"""Dense causal attention of one sequence, by the library's fused kernel.

Shapes: L tokens, H query heads, G key heads, D head dim.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend_dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """Returns causal attention [L, H, D] of q [L, H, D] over k, v [L, G, D]."""
    queries, keys, values = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
    out = scaled_dot_product_attention(
        queries, keys, values, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out[0].transpose(0, 1)
