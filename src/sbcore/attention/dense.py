"""Dense causal attention of packed sequences, by the library's own kernels.

T packed tokens, H query heads, G key heads, D head dim.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention


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
    grouped = q.shape[1] != k.shape[1]
    outputs = [
        scaled_dot_product_attention(
            _heads_first(q_i),
            _heads_first(k_i),
            _heads_first(v_i),
            is_causal=True,
            scale=scale,
            enable_gqa=grouped,
        )
        .squeeze(0)
        .transpose(0, 1)
        for q_i, k_i, v_i in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _heads_first(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).unsqueeze(0)  # [T, H, D] -> [1, H, T, D]
