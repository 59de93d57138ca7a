"""Tile shapes, warps and pipeline depths, as measured on an H100 (kernels/README.md).

Keyed by (bytes of an element, head dim at most). Four bytes is for tests: exact float32
products run on the ordinary cores, and shared memory holds a quarter of the tiles.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One kernel's launch shape.

    Attributes:
        rows: Query rows of a tile.
        keys: Keys of a tile.
        num_warps: Warps of a program.
        num_stages: Depth of the load pipeline.
    """

    rows: int
    keys: int
    num_warps: int
    num_stages: int

    def fit(self, block_size: int) -> "Tile":
        """Returns the tile cut to blocks of that size: no tile crosses a block."""
        return Tile(
            rows=min(self.rows, block_size),
            keys=min(self.keys, block_size),
            num_warps=self.num_warps,
            num_stages=self.num_stages,
        )


TILES = {
    ("forward_union", 2, 64): Tile(rows=64, keys=128, num_warps=4, num_stages=3),
    ("forward_union", 2, 128): Tile(rows=128, keys=128, num_warps=8, num_stages=3),
    ("forward_union", 4, 128): Tile(rows=32, keys=32, num_warps=4, num_stages=2),
    ("forward_gather", 2, 64): Tile(rows=64, keys=256, num_warps=4, num_stages=2),
    ("forward_gather", 2, 128): Tile(rows=128, keys=256, num_warps=8, num_stages=2),
    ("forward_gather", 4, 128): Tile(rows=32, keys=32, num_warps=4, num_stages=2),
    ("backward_gather", 2, 64): Tile(rows=64, keys=128, num_warps=8, num_stages=3),
    ("backward_gather", 2, 128): Tile(rows=64, keys=128, num_warps=8, num_stages=3),
    ("backward_gather", 4, 128): Tile(rows=32, keys=32, num_warps=4, num_stages=2),
    ("backward_union", 2, 64): Tile(rows=64, keys=64, num_warps=4, num_stages=2),
    ("backward_union", 2, 128): Tile(rows=128, keys=64, num_warps=8, num_stages=3),
    ("backward_union", 4, 128): Tile(rows=32, keys=32, num_warps=4, num_stages=2),
}

# Union inflation above which the key-major gather forward wins, by head dim at most.
MAX_INFLATION = {64: 1.9, 128: 2.4}


def choose_tile(kernel: str, q: torch.Tensor, *, block_size: int) -> Tile:
    """Returns the tile of the kernel for q [T, H, D] and that block size."""
    # The interpreter holds any tile: it takes those of 16 bits, which are the ones that matter.
    num_bytes = q.element_size() if q.is_cuda else 2
    key = (kernel, num_bytes, 64 if q.shape[2] <= 64 else 128)
    wide = (kernel, num_bytes, 128)
    return TILES[key if key in TILES else wide].fit(block_size)


def max_inflation_of(head_dim: int) -> float:
    """Returns the union inflation up to which the query-major forward is the faster one."""
    return MAX_INFLATION[64 if head_dim <= 64 else 128]


def count_programs(device: torch.device, tile: Tile) -> int:
    """Returns how many programs of the tile run at once; few in the interpreter: one by one."""
    if device.type != "cuda":
        return 3
    # Tiles of 4 warps are made to fit a processor twice: 7.5 against 10 ms at D = 64.
    per_processor = 2 if tile.num_warps <= 4 else 1
    return per_processor * torch.cuda.get_device_properties(device).multi_processor_count


def needs_wide_offsets(*tensors: torch.Tensor) -> bool:
    """Returns whether an offset into the tensors, or [T, H, 4] of floats, may pass 31 bits.

    Offsets of 64 bits cost the gather kernels registers that they do not have.
    """
    last = max(sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) for x in tensors)
    return max(last, *(x.numel() for x in tensors)) >= 1 << 31
