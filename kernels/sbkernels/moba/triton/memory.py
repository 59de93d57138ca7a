"""What a call takes of memory at its peaks: results, what waits for the backward pass, the rest.

Everything but the results is linear in tokens x heads, for the words with the blocks of the longest
sequence: nothing grows with the chosen pairs times the head dim, as partial outputs would.

Shapes: T tokens of one sequence, H query heads, G key heads, D head dim, M blocks, V heads of a
window, Q query tiles.
"""

from dataclasses import dataclass

import torch

from sbkernels.moba.selection import num_blocks_of
from sbkernels.moba.triton.rows import CHUNK_ROWS, bound_pairs
from sbkernels.moba.triton.stats import STATS
from sbkernels.moba.triton.tiles import choose_tile
from sbkernels.moba.triton.windows import head_windows

# Of q, k, v, out and their gradients: bfloat16 or float16.
ELEMENT_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class CallSize:
    """One sequence, of which both layouts may be launched.

    Attributes:
        num_tokens: T, whole blocks.
        num_heads: H.
        num_kv_heads: G.
        head_dim: D, a power of two.
        block_size: Tokens in a block.
        max_top_k: The most that the host knows of top_k.
    """

    num_tokens: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    max_top_k: int

    @property
    def num_blocks(self) -> int:
        """Returns M."""
        return num_blocks_of(self.num_tokens, self.block_size)

    @property
    def out_bytes(self) -> int:
        """Returns the size of the output, and of dQ."""
        return self.num_tokens * self.num_heads * self.head_dim * ELEMENT_BYTES

    @property
    def gradient_bytes(self) -> int:
        """Returns the size of dQ, dK and dV."""
        keys = self.num_tokens * self.num_kv_heads * self.head_dim * ELEMENT_BYTES
        return self.out_bytes + 2 * keys


def saved_bytes(size: CallSize) -> int:
    """Returns what waits for the backward pass beside q, k, v and out: words, table and lse."""
    words = size.num_heads * size.num_blocks * size.num_tokens // 8
    table = 16 * size.num_blocks + 8
    return words + table + 4 * size.num_heads * size.num_tokens


def forward_bytes(size: CallSize) -> int:
    """Returns the forward peak: results, what is saved, union lists, sums and rows of a window."""
    q = torch.empty((0, size.num_heads, size.head_dim), device="meta")
    tiles = size.num_tokens // choose_tile("forward_union", q, block_size=size.block_size).rows
    union = size.num_heads * tiles * (2 * (size.num_blocks + 1) + 8) + 8 * size.num_heads
    window = _window(size)
    sums = 4 * size.num_tokens * window * (size.head_dim + 2)
    return size.out_bytes + saved_bytes(size) + union + sums + _row_list_bytes(size, window)


def backward_bytes(size: CallSize) -> int:
    """Returns the backward peak: results of both passes, what was saved, statistics, sums, rows."""
    window = _window(size)
    meet = size.num_kv_heads < size.num_heads
    sums = 4 * size.num_tokens * size.head_dim * (window + 2 * size.num_kv_heads * meet)
    stats = 4 * STATS.value * size.num_heads * size.num_tokens
    rows = _row_list_bytes(size, window)
    # One window that has all sums gives its gradients when the lists are gone.
    at_once = meet and window == size.num_heads
    most = max(rows, size.gradient_bytes) if at_once else rows + size.gradient_bytes
    return size.out_bytes + saved_bytes(size) + stats + sums + most


def _window(size: CallSize) -> int:
    return len(head_windows(size.num_heads, size.num_tokens, size.head_dim)[0])


def _row_list_bytes(size: CallSize, num_heads: int) -> int:
    """Returns the size of the row lists of so many heads."""
    lists = num_heads * size.num_blocks
    blocks = {"max_num_blocks": size.num_blocks, "max_top_k": size.max_top_k}
    capacity = num_heads * size.block_size * bound_pairs(size.num_blocks, **blocks)
    row = 2 if size.num_tokens <= 1 << 16 else 4
    chunks = 8 * (capacity // CHUNK_ROWS + lists)
    return row * max(1, capacity) + chunks + (4 + 8 + 8) * lists
