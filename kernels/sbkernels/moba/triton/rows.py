"""Row lists: for each (query head, key block) the rows that chose it, ascending.

Made from the selection words by counting and prefix sums, without sort or atomics, so the
order is always the same. The key-major kernels walk these lists; the gather forward in chunks
of equal size, named in a work table whose length stays on the device.

Rows are stored relative to their sequence, as 16 bits where max_seqlen allows, in a buffer for
the most pairs that the host must expect: at 64K tokens x 16 heads x 256 blocks 57 MB where it
knows that top_k is at most 32, 267 MB where it knows nothing (every row chose every past block).

Shapes: H query heads, N sequences, S padded blocks, M blocks of the longest sequence, W words.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block
from sbkernels.moba.triton.lists import count_bits

# 512 rows per chunk cost the forward 10 %, more than 2048 leave processors idle at the end.
CHUNK_ROWS = 2048
WORDS_PER_PASS = 64
LISTS_PER_PASS = 1024


@dataclass(frozen=True, kw_only=True)
class RowLists:
    """Rows by (query head, padded key block), the list of (h, s) at index h * S + s.

    Attributes:
        rows: int16 (to be read unsigned) or int32, rows within the sequence, all lists.
        counts: int32 [H * S], length of each list.
        ends: int64 [H * S], end of each list in `rows`.
        chunks: int32 [capacity, 2], (list, first row of the chunk).
        chunk_ends: int64 [H * S]; the last one is the number of chunks.
    """

    rows: torch.Tensor
    counts: torch.Tensor
    ends: torch.Tensor
    chunks: torch.Tensor
    chunk_ends: torch.Tensor


def bound_pairs(num_blocks: int, *, max_num_blocks: int, max_top_k: int) -> int:
    """Returns the most (row, past block) pairs of a head, in units of the rows of a block.

    Sequences have at most `max_num_blocks` of the `num_blocks` blocks. Pairs grow faster than
    length, so the worst case is as many of the longest as fit, and one of the rest.
    """
    longest, rest = divmod(num_blocks, max_num_blocks)
    return longest * _pairs(max_num_blocks, max_top_k) + _pairs(rest, max_top_k)


def _pairs(num_blocks: int, max_top_k: int) -> int:
    rising = min(num_blocks, max_top_k)
    return rising * (rising - 1) // 2 + (num_blocks - rising) * (max_top_k - 1)


def build_row_lists(
    words: torch.Tensor,
    table: BlockTable,
    layout: torch.Tensor | None,
    *,
    max_top_k: int,
    num_skipped: int,
) -> RowLists:
    """Returns the lists of past-block choices; with a layout only where it is 1.

    `max_top_k` bounds the blocks that a row chose; the first `num_skipped` rows of the (one)
    sequence are left out.
    """
    num_heads, max_num_blocks, num_words = words.shape
    num_lists = num_heads * table.num_blocks
    counts = words.new_empty(num_lists)
    grid = (table.num_blocks, num_heads)
    sizes = (table.num_sequences, max_num_blocks, num_words, num_skipped)
    _count_kernel[grid](
        words,
        table.entries if layout is None else layout,
        counts,
        table.entries,
        *sizes,
        BLOCK_SIZE=table.block_size,
        USE_LAYOUT=layout is not None,
        PASS=512,
        num_warps=1,
    )
    ends, chunk_ends = words.new_empty((2, num_lists), dtype=torch.int64)
    _end_kernel[(1,)](
        counts, ends, chunk_ends, num_lists, CHUNK_ROWS=CHUNK_ROWS, PASS=LISTS_PER_PASS, num_warps=4
    )
    pairs = bound_pairs(table.num_blocks, max_num_blocks=max_num_blocks, max_top_k=max_top_k)
    capacity = num_heads * table.block_size * pairs
    short = max_num_blocks * table.block_size <= 1 << 16
    rows = words.new_empty(max(1, capacity), dtype=torch.int16 if short else torch.int32)
    chunks = words.new_empty((capacity // CHUNK_ROWS + num_lists, 2))
    _fill_kernel[grid](
        words,
        rows,
        counts,
        ends,
        chunks,
        chunk_ends,
        table.entries,
        *sizes,
        BLOCK_SIZE=table.block_size,
        CHUNK_ROWS=CHUNK_ROWS,
        PASS=WORDS_PER_PASS,
        num_warps=4,
    )
    return RowLists(rows=rows, counts=counts, ends=ends, chunks=chunks, chunk_ends=chunk_ends)


@triton.jit
def load_rows(rows_ptr, index, mask):
    """Returns the listed rows as int32, undoing the 16-bit storage."""
    rows = tl.load(rows_ptr + index, mask=mask, other=0).to(tl.int32)
    if rows_ptr.dtype.element_ty == tl.int16:
        rows = rows & 0xFFFF
    return rows


@triton.jit
def _word_span(table_ptr, block, num_skipped, BLOCK_SIZE: tl.constexpr):
    """Returns (sequence, block within it, first and last + 1 word of the rows behind it)."""
    sequence, _, length, first = load_block(table_ptr, block)
    WORDS: tl.constexpr = BLOCK_SIZE // 32
    start = tl.maximum(block + 1, first + num_skipped // BLOCK_SIZE) * WORDS
    return sequence, block - first, start, first * WORDS + (length + 31) // 32


@triton.jit(do_not_specialize=["num_sequences", "max_num_blocks", "num_words", "num_skipped"])
def _count_kernel(
    words_ptr,
    layout_ptr,
    counts_ptr,
    table_ptr,
    num_sequences,
    max_num_blocks,
    num_words,
    num_skipped,
    BLOCK_SIZE: tl.constexpr,
    USE_LAYOUT: tl.constexpr,
    PASS: tl.constexpr,
):
    """One program per (padded key block, query head)."""
    block, head = tl.program_id(0), tl.program_id(1)
    sequence, within, start, stop = _word_span(table_ptr, block, num_skipped, BLOCK_SIZE)
    if USE_LAYOUT:
        stop = stop * tl.load(layout_ptr + head * num_sequences + sequence)
    words_ptr += (head.to(tl.int64) * max_num_blocks + within) * num_words
    total = tl.zeros((PASS,), tl.int32)
    for base in tl.range(start, stop, PASS):
        word = base + tl.arange(0, PASS)
        total += count_bits(tl.load(words_ptr + word, mask=word < stop, other=0))
    tl.store(counts_ptr + head * tl.num_programs(0) + block, tl.sum(total))


@triton.jit(do_not_specialize=["num_lists"])
def _end_kernel(
    counts_ptr,
    ends_ptr,
    chunk_ends_ptr,
    num_lists,
    CHUNK_ROWS: tl.constexpr,
    PASS: tl.constexpr,
):
    """One program for all lists: running sums of their rows and of their chunks.

    A launch for what the library's sums and divisions take five, which short calls wait for.
    """
    num_rows = tl.full((), 0, tl.int64)
    num_chunks = tl.full((), 0, tl.int64)
    for base in tl.range(0, num_lists, PASS):
        index = base + tl.arange(0, PASS)
        count = tl.load(counts_ptr + index, mask=index < num_lists, other=0)
        chunks = (count + CHUNK_ROWS - 1) // CHUNK_ROWS
        tl.store(ends_ptr + index, num_rows + tl.cumsum(count), mask=index < num_lists)
        tl.store(chunk_ends_ptr + index, num_chunks + tl.cumsum(chunks), mask=index < num_lists)
        num_rows += tl.sum(count)
        num_chunks += tl.sum(chunks)


@triton.jit(do_not_specialize=["num_sequences", "max_num_blocks", "num_words", "num_skipped"])
def _fill_kernel(
    words_ptr,
    rows_ptr,
    counts_ptr,
    ends_ptr,
    chunks_ptr,
    chunk_ends_ptr,
    table_ptr,
    num_sequences,
    max_num_blocks,
    num_words,
    num_skipped,
    BLOCK_SIZE: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,
    PASS: tl.constexpr,
):
    """One program per (padded key block, query head): writes its rows and its chunks."""
    block, head = tl.program_id(0), tl.program_id(1)
    index = head * tl.num_programs(0) + block
    count = tl.load(counts_ptr + index)
    if count == 0:
        return
    _, within, start, stop = _word_span(table_ptr, block, num_skipped, BLOCK_SIZE)
    words_ptr += (head.to(tl.int64) * max_num_blocks + within) * num_words
    out = rows_ptr + tl.load(ends_ptr + index) - count
    bit = tl.arange(0, PASS * 32)
    # Words count from the first of the sequence where rows do.
    origin = (block - within) * BLOCK_SIZE
    for base in tl.range(start, stop, PASS):
        word = base + bit // 32
        bits = tl.load(words_ptr + word, mask=word < stop, other=0)
        chosen = (bits >> (bit % 32)) & 1
        slot = tl.cumsum(chosen) - 1
        row = base * 32 + bit - origin
        tl.store(out + slot, row.to(rows_ptr.dtype.element_ty), mask=chosen != 0)
        out += tl.sum(chosen)
    num_chunks = (count + CHUNK_ROWS - 1) // CHUNK_ROWS
    chunks_ptr += (tl.load(chunk_ends_ptr + index) - num_chunks) * 2
    for i in tl.range(0, num_chunks):
        tl.store(chunks_ptr + i * 2, index)
        tl.store(chunks_ptr + i * 2 + 1, i * CHUNK_ROWS)
