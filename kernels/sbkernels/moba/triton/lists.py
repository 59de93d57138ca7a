"""Union lists: the key blocks that any row of a query tile chose, and the layout they call for.

A query-major kernel reads each listed block once per tile, chosen by all rows or by one. The
union inflation (rows x listed blocks / chosen pairs) says how much of that work is masked
away: 1.3 where neighbouring rows agree (trained models), 4.4 for independent random rows.

Shapes: H query heads, N sequences, M blocks of the longest sequence, W words, Q query tiles.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block


@dataclass(frozen=True, kw_only=True)
class UnionLists:
    """Past blocks of each query tile in ascending order, then the own block.

    Attributes:
        blocks: int16 [H, Q, M + 1], block ids within the sequence.
        num_past: int32 [H, Q], listed past blocks; the own block comes behind them.
        num_pairs: int32 [H, Q], chosen (row, past block) pairs of the tile.
        layout: int32 [H, N], 0 where the query-major kernel does the past blocks: everywhere,
            until `choose_layout` has been called. Not written for empty sequences.
        tile_rows: Rows of a query tile.
    """

    blocks: torch.Tensor
    num_past: torch.Tensor
    num_pairs: torch.Tensor
    layout: torch.Tensor
    tile_rows: int


def build_union_lists(
    words: torch.Tensor, table: BlockTable, *, tile_rows: int, num_skipped: int
) -> UnionLists:
    """Returns the lists for tiles of that many rows; 0.03-0.05 ms at 64K tokens.

    Tiles of the first `num_skipped` rows of the (one) sequence list nothing.
    """
    num_heads, max_num_blocks, num_words = words.shape
    num_tiles = table.num_blocks * table.block_size // tile_rows
    blocks = words.new_empty((num_heads, num_tiles, max_num_blocks + 1), dtype=torch.int16)
    num_past, num_pairs = words.new_empty((2, num_heads, num_tiles))
    layout = words.new_empty((num_heads, table.num_sequences))
    _union_kernel[(num_tiles, num_heads)](
        words,
        blocks,
        num_past,
        num_pairs,
        layout,
        table.entries,
        table.num_sequences,
        max_num_blocks,
        num_words,
        num_skipped,
        BLOCK_SIZE=table.block_size,
        TILE_ROWS=tile_rows,
        PASS=min(256, max(16, triton.next_power_of_2(max_num_blocks))),
        num_warps=4,
    )
    return UnionLists(
        blocks=blocks, num_past=num_past, num_pairs=num_pairs, layout=layout, tile_rows=tile_rows
    )


def bound_inflation(max_num_blocks: int, *, min_top_k: int) -> float:
    """Returns what the union inflation of a sequence of so many whole blocks can be at most.

    The union of a tile cannot hold more than all past blocks.
    """
    listed = max_num_blocks * (max_num_blocks - 1) // 2
    rising = min(max_num_blocks, min_top_k)
    chosen = rising * (rising - 1) // 2 + (max_num_blocks - rising) * (min_top_k - 1)
    return listed / chosen if chosen else float("inf")


def choose_layout(lists: UnionLists, table: BlockTable, *, max_inflation: float) -> torch.Tensor:
    """Sets `lists.layout` to 1 where the union inflation is above the bound; returns zeros.

    1 asks for the key-major gather, 0 for the query-major union. The value stays on the
    device: both kernels are launched and the programs of the other one exit at once. The zeros
    int32 [H, N] are for the gather to report an overflow.
    """
    num_heads, num_tiles = lists.num_past.shape
    overflow = torch.empty_like(lists.layout)
    _layout_kernel[(table.num_sequences, num_heads)](
        lists.num_past,
        lists.num_pairs,
        lists.layout,
        overflow,
        table.first_block,
        num_tiles,
        max_inflation,
        TILES_PER_BLOCK=table.block_size // lists.tile_rows,
        TILE_ROWS=lists.tile_rows,
        PASS=1024,
        num_warps=4,
    )
    return overflow


@triton.jit
def count_bits(word):
    """Returns the number of set bits of int32 values (no popc in the interpreter)."""
    word = word.to(tl.uint32, bitcast=True)
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24).to(tl.int32)


@triton.jit(do_not_specialize=["num_sequences", "max_num_blocks", "num_words", "num_skipped"])
def _union_kernel(
    words_ptr,
    blocks_ptr,
    num_past_ptr,
    num_pairs_ptr,
    layout_ptr,
    table_ptr,
    num_sequences,
    max_num_blocks,
    num_words,
    num_skipped,
    BLOCK_SIZE: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    PASS: tl.constexpr,
):
    """One program per (query tile, query head): compacts the blocks with any bit set."""
    tile, head = tl.program_id(0), tl.program_id(1)
    block = tile * TILE_ROWS // BLOCK_SIZE
    sequence, _, length, first = load_block(table_ptr, block)
    own = block - first
    index = head.to(tl.int64) * tl.num_programs(0) + tile
    start = own * BLOCK_SIZE + tile * TILE_ROWS % BLOCK_SIZE
    if (start >= length) | (start < num_skipped):
        tl.store(num_past_ptr + index, 0)
        tl.store(num_pairs_ptr + index, 0)
        return
    tl.store(layout_ptr + head * num_sequences + sequence, 0)
    WORDS: tl.constexpr = TILE_ROWS // 32
    word = tile * WORDS + tl.arange(0, WORDS)
    words_ptr += head.to(tl.int64) * max_num_blocks * num_words
    blocks_ptr += index * (max_num_blocks + 1)
    num_past, num_pairs = 0, 0
    for base in tl.range(0, own, PASS):
        past = base + tl.arange(0, PASS)
        address = past.to(tl.int64)[:, None] * num_words + word[None, :]
        bits = tl.load(words_ptr + address, mask=(past < own)[:, None], other=0)
        pairs = tl.sum(count_bits(bits), axis=1)
        listed = pairs > 0
        slot = num_past + tl.cumsum(listed.to(tl.int32)) - 1
        tl.store(blocks_ptr + slot, past.to(tl.int16), mask=listed)
        num_past += tl.sum(listed.to(tl.int32))
        num_pairs += tl.sum(pairs)
    tl.store(blocks_ptr + num_past, own.to(tl.int16))
    tl.store(num_past_ptr + index, num_past)
    tl.store(num_pairs_ptr + index, num_pairs)


@triton.jit(do_not_specialize=["num_tiles"])
def _layout_kernel(
    num_past_ptr,
    num_pairs_ptr,
    layout_ptr,
    overflow_ptr,
    first_block_ptr,
    num_tiles,
    max_inflation,
    TILES_PER_BLOCK: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    PASS: tl.constexpr,
):
    """One program per (sequence, query head)."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    start = tl.load(first_block_ptr + sequence) * TILES_PER_BLOCK
    stop = tl.load(first_block_ptr + sequence + 1) * TILES_PER_BLOCK
    listed = tl.zeros((PASS,), tl.float32)
    pairs = tl.zeros((PASS,), tl.float32)
    base = head.to(tl.int64) * num_tiles
    for tile in tl.range(start, stop, PASS):
        index = tile + tl.arange(0, PASS)
        listed += tl.load(num_past_ptr + base + index, mask=index < stop, other=0)
        pairs += tl.load(num_pairs_ptr + base + index, mask=index < stop, other=0)
    gather = tl.sum(listed) * TILE_ROWS > max_inflation * tl.sum(pairs)
    index = head * tl.num_programs(0) + sequence
    tl.store(layout_ptr + index, gather.to(tl.int32))
    tl.store(overflow_ptr + index, 0)
