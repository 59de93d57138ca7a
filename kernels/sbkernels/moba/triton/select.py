"""Block selection: scores, threshold search and packing in one kernel, nothing spilled to memory.

The best `top_k - 1` past blocks of a row are those above a threshold. It is found by halving
the score range until every row of the tile counts right: 7-14 passes over registers, 1.05 ms
at 64K tokens x 16 heads x 256 blocks on an H100, where sorting takes 19 and `tl.topk` 12.
`top_k` is read from memory, so its value changes neither code nor launch.

Words: int32 [H, M, W]. Word w of (head, block) holds padded rows 32w ... 32w+31, row 0 in bit 0.
Words of rows before the block are never written and never read.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, M blocks of the
longest sequence, S padded blocks, W = S * block_size / 32 words, R rows of a tile, B the
power of two at or above the blocks in question.
"""

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block
from sbkernels.moba.triton.pool import pool_keys
from sbkernels.moba.triton.score import score_blocks

# Scores of a tile live in registers: rows and warps by width, chosen so that none spills.
ROWS_AND_WARPS = {
    16: (64, 4),
    32: (64, 4),
    64: (64, 4),
    128: (64, 4),
    256: (64, 4),
    512: (64, 8),
    1024: (32, 8),
    2048: (16, 8),
}
MAX_NUM_BLOCKS = max(ROWS_AND_WARPS)
# Scores beyond it, infinite ones and NaN count as it: a total order even of broken inputs.
LARGEST = tl.constexpr(3e38)


def select_words(
    q: torch.Tensor,
    k: torch.Tensor,
    top_k: torch.Tensor,
    table: BlockTable,
    *,
    max_num_blocks: int,
) -> torch.Tensor:
    """Returns the chosen blocks as words int32 [H, M, W] (layout in the module head)."""
    _, num_heads, head_dim = q.shape
    num_words = table.num_blocks * table.block_size // 32
    words = q.new_empty((num_heads, max_num_blocks, num_words), dtype=torch.int32)
    width = max(16, triton.next_power_of_2(max_num_blocks))
    rows, num_warps = ROWS_AND_WARPS[width]
    tiles_per_block = table.block_size // rows
    _select_kernel[(table.num_blocks * tiles_per_block, num_heads)](
        q,
        pool_keys(k, table),
        top_k,
        words.view(torch.int16) if rows == 16 else words,
        table.entries,
        q.stride(0),
        q.stride(1),
        q.stride(2),
        top_k.stride(0),
        table.num_blocks,
        max_num_blocks,
        GROUP=num_heads // k.shape[1],
        BLOCK_SIZE=table.block_size,
        D=head_dim,
        R=rows,
        B=width,
        num_warps=num_warps,
    )
    return words


@triton.jit(do_not_specialize=["stride_top_k", "num_blocks", "max_num_blocks"])
def _select_kernel(
    q_ptr,
    centroids_ptr,
    top_k_ptr,
    words_ptr,
    table_ptr,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_top_k,
    num_blocks,
    max_num_blocks,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
):
    """One program per (tile of R rows, query head)."""
    tile, head = tl.program_id(0), tl.program_id(1)
    block = tile * R // BLOCK_SIZE
    sequence, token, length, first = load_block(table_ptr, block)
    row = (block - first) * BLOCK_SIZE + tile * R % BLOCK_SIZE + tl.arange(0, R)
    real = row < length
    if tl.sum(real.to(tl.int32)) == 0:
        return
    own = block - first
    want = tl.minimum(tl.load(top_k_ptr + sequence * stride_top_k) - 1, own)
    # Layouts: R = 16 packs half words, so that 2048 scores a row still fit registers.
    WORD: tl.constexpr = min(R, 32)
    words_per_tile: tl.constexpr = R // WORD
    num_words = num_blocks.to(tl.int64) * (BLOCK_SIZE // WORD)
    words_ptr += head * max_num_blocks * num_words + tile * words_per_tile
    if (want == 0) | (want == own):
        _fill(words_ptr, real, own, want, num_words, R, WORD)
        return
    dim = tl.arange(0, D)
    address = (token + row).to(tl.int64)[:, None] * stride_qt + dim[None, :] * stride_qd
    q = tl.load(q_ptr + head.to(tl.int64) * stride_qh + address, mask=real[:, None], other=0.0)
    centroids_ptr += ((head // GROUP).to(tl.int64) * num_blocks + first) * D
    # Rows of the first half see at most half the blocks: half the registers, half the time.
    if own < B // 2:
        _choose(words_ptr, q, centroids_ptr, real, own, want, num_words, D, R, B // 2, WORD)
    else:
        _choose(words_ptr, q, centroids_ptr, real, own, want, num_words, D, R, B, WORD)


@triton.jit
def _fill(words_ptr, real, own, want, num_words, R: tl.constexpr, WORD: tl.constexpr):
    """Writes the cases without a choice: all past blocks, or the own block only."""
    bits = tl.sum(tl.reshape(_shifted(real, R, WORD), (R // WORD, WORD)), axis=1)
    word = tl.arange(0, R // WORD)
    for block in tl.range(0, own + 1):
        chosen = tl.where((block == own) | (want > 0), bits, 0)
        tl.store(words_ptr + block * num_words + word, chosen)


@triton.jit
def _shifted(real, R: tl.constexpr, WORD: tl.constexpr):
    return tl.where(real, 1, 0) << (tl.arange(0, R) % WORD)


@triton.jit
def _choose(
    words_ptr,
    q,
    centroids_ptr,
    real,
    own,
    want,
    num_words,
    D: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
    WORD: tl.constexpr,
):
    """Scores the past blocks, chooses the best `want` of each row, writes the words."""
    block = tl.arange(0, B)
    scores = score_blocks(q, centroids_ptr, own, D, B, 0, 1)
    scores = tl.where(scores == 0, 0.0, scores)  # -0.0 and 0.0 are a tie, also as integers
    # Finite, so that no row chooses more than `want` blocks: buffers are sized by that.
    scores = tl.where(scores == scores, scores, -LARGEST)
    scores = tl.minimum(tl.maximum(scores, -LARGEST), LARGEST)
    scores = tl.where(block[None, :] < own, scores, -float("inf"))
    member = _top_mask(scores, own, want) | (block == own)[None, :]
    bits = tl.where(member & real[:, None], 1, 0) << (tl.arange(0, R) % WORD)[:, None]
    words = tl.sum(tl.reshape(bits, (R // WORD, WORD, B)), axis=1)
    target = block[None, :] * num_words + tl.arange(0, R // WORD)[:, None]
    seen = (block <= own)[None, :]
    tl.store(words_ptr + target, words.to(words_ptr.dtype.element_ty), mask=seen)


@triton.jit
def _top_mask(scores, own, want):
    """Returns which scores [R, B] are the `want` largest of their row, ties to the lower index.

    `own` scores of a row are finite, the others -inf; 0 < want < own. First halves the range as
    floats (few steps where scores are spread), then what is left as integers (exact, at most 32
    steps), then splits ties.
    """
    low = tl.min(tl.where(scores == -float("inf"), float("inf"), scores), axis=1)
    high = tl.max(scores, axis=1)
    high += tl.abs(high) * 1e-6 + 1e-30  # above all scores, so the count there is 0
    count = tl.zeros_like(low).to(tl.int32) + own
    step = 0
    while (step < 24) & (tl.max(count) > want):
        middle = low + (high - low) * 0.5
        above = tl.sum((scores >= middle[:, None]).to(tl.int32), axis=1)
        enough = above >= want
        low = tl.where(enough, middle, low)
        count = tl.where(enough, above, count)
        high = tl.where(enough, high, middle)
        step += 1
    member = scores >= low[:, None]
    if tl.max(count) > want:
        member = _exact_mask(scores, low, high, count, want)
    return member


@triton.jit
def _exact_mask(scores, low, high, count, want):
    """Returns the mask of `_top_mask` by integer halving from the float range on."""
    keys = _ordered(scores)
    low, high = _ordered(low), _ordered(high)
    while tl.max(tl.where((count > want) & (high > low + 1), 1, 0)) > 0:
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        above = tl.sum((keys >= middle[:, None]).to(tl.int32), axis=1)
        enough = above >= want
        low = tl.where(enough, middle, low)
        count = tl.where(enough, above, count)
        high = tl.where(enough, high, middle)
    # Where the count is still too large, all of [low, high) is one value: a tie.
    tied = (count > want)[:, None] & (keys >= low[:, None]) & (keys < high[:, None])
    above = tl.sum((keys >= high[:, None]).to(tl.int32), axis=1)
    order = tl.cumsum(tied.to(tl.int32), axis=1)
    return (keys >= low[:, None]) & ((tied == 0) | (order <= (want - above)[:, None]))


@triton.jit
def _ordered(x):
    """Returns the float32 values as int32 of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
