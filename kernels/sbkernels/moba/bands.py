"""Bands of a pack's rows, and which of them are ranked together: `ranking` says why."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sbkernels.moba.selection import num_blocks_of

ROWS_PER_BAND = 512


@dataclass(frozen=True)
class Band:
    """Neighbouring rows of a sequence, and the blocks that they see.

    Attributes:
        rows: In the pack.
        blocks: In the pack: the past blocks of the last row.
        num_common: The first of these are past blocks of all rows.
        offset: Of the first row in its own block.
    """

    rows: slice
    blocks: slice
    num_common: int
    offset: int

    @property
    def num_rows(self) -> int:
        """Tokens of the band."""
        return int(self.rows.stop - self.rows.start)

    @property
    def num_blocks(self) -> int:
        """Blocks that each row is scored against."""
        return int(self.blocks.stop - self.blocks.start)


def bands_of(lengths: Sequence[int], ranks: Sequence[int], *, block_size: int) -> Iterator[Band]:
    """Yields the rows of all sequences in order; without blocks where ranks[n] is below 2."""
    row = block = 0
    for length, num_ranks in zip(lengths, ranks, strict=True):
        for first in range(0, length, ROWS_PER_BAND):
            end, (own, offset) = min(length, first + ROWS_PER_BAND), divmod(first, block_size)
            past = (end - 1) // block_size if num_ranks > 1 else 0
            rows, seen = slice(row + first, row + end), slice(block, block + past)
            yield Band(rows, seen, min(own, past), offset)
        row, block = row + length, block + num_blocks_of(length, block_size)


def neighbours(bands: Iterable[Band], most_scores: int) -> Iterator[list[Band]]:
    """Yields bands that are ranked together, as many as that many scores of each head allow."""
    together: list[Band] = []
    rows = widest = 0
    for band in bands:
        rows, widest = rows + band.num_rows, max(widest, band.num_blocks)
        if together and rows * widest > most_scores:
            yield together
            together, rows, widest = [], band.num_rows, band.num_blocks
        together.append(band)
    if together:
        yield together
