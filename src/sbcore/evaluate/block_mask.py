"""Which cached keys a newly decoded token may see under block-sparse attention.

The choice that the kernels make for the last token of a sequence (arXiv 2502.13189, section 2.2):
its own block and the best of those wholly in the past. B rows, S positions, G key heads, Q query
heads of a group, D head dim, K blocks. Means of all blocks are taken anew for each token, which
reads the keys as often as dense attention does: it shows what sparse decoding costs in quality,
not what it saves in time.
"""

import torch
from torch.nn.functional import pad


def visible_positions(
    query: torch.Tensor,  # [B, G, Q, D]
    keys: torch.Tensor,  # [B, G, S, D]
    positions: torch.Tensor,  # int64 [B], of the query in its row
    *,
    block_size: int,
    top_k: int,
) -> torch.Tensor:
    """Returns bool [B, G, Q, S]: the positions in chosen blocks, later ones not yet hidden."""
    num_positions = keys.shape[2]
    num_blocks = -(-num_positions // block_size)
    whole = pad(keys, (0, 0, 0, num_blocks * block_size - num_positions))
    means = whole.unflatten(2, (num_blocks, block_size)).float().mean(dim=3).to(keys.dtype)
    scores = query.float() @ means.float().transpose(2, 3)  # [B, G, Q, K]
    own = (positions // block_size)[:, None, None, None]
    blocks = torch.arange(num_blocks, device=keys.device)
    ranked = scores.masked_fill(blocks > own, -torch.inf).masked_fill(blocks == own, torch.inf)
    best = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]
    chosen = torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, best, True)
    return chosen.repeat_interleave(block_size, dim=-1)[..., :num_positions]
