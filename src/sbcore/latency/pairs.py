"""How many (query, key) pairs block-sparse attention computes."""

import numpy as np

from sbcore.types import FloatArray, IntArray


def attention_pairs(lengths: IntArray, top_k: IntArray, *, block_size: int) -> FloatArray:
    """Returns the pairs within the causal limit, one query head; the arguments broadcast.

    A query in block j sees min(top_k - 1, j) whole blocks and its own one up to itself
    (MoBA, arXiv 2502.13189, section 2.2). All blocks give length * (length + 1) / 2.
    """
    full, rest = np.divmod(lengths, block_size)
    past = np.maximum(top_k - 1, 0)
    own = full * (block_size * (block_size + 1) // 2) + rest * (rest + 1) // 2
    ramp = np.minimum(full, past + 1)
    blocks = ramp * (ramp - 1) // 2 + (full - ramp) * past
    pairs: FloatArray = np.asarray(
        own + blocks * block_size**2 + rest * block_size * np.minimum(past, full), dtype=np.float64
    )
    return pairs
