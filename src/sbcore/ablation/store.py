"""Random tokens of given lengths: what trainers read where only the time of a step counts."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sbcore.artifacts import digest_text
from sbcore.types import IntArray

TARGET_STRIDE = 16
"""Every 16th token is a target, as in the latency profile."""

_SPREAD = 4096
"""Samples begin at one of so many places of the pool."""


class RandomTokens:
    """Samples of these lengths, a view into one pool each; offers what a TokenStore does.

    All ranks of all variants read the same tokens. The pool is as long as the longest sample and
    the spread of starts: 280 KiB for 64K tokens, however many samples there are.
    """

    def __init__(self, lengths: IntArray, *, vocab_size: int, seed: int) -> None:
        self.lengths = lengths
        self.num_target_tokens: IntArray = (lengths + TARGET_STRIDE - 2) // TARGET_STRIDE
        self._identity = f"{vocab_size} {seed}"
        size = int(lengths.max()) + _SPREAD
        random = np.random.default_rng([seed, vocab_size])
        self._pool = random.integers(0, vocab_size, size).astype(np.uint32)
        self._targets = np.arange(int(lengths.max())) % TARGET_STRIDE == 1

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def digest(self) -> str:
        """The sha256 of what the samples follow from."""
        return digest_text(f"{self._identity} {self.lengths.tolist()}")

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        return int(self.lengths.sum())

    def sample(self, sample_id: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Returns a sample's tokens and its mask of tokens to be predicted, both [n].

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample_id = {sample_id}: there are {len(self)} samples")
        length, start = int(self.lengths[sample_id]), sample_id % _SPREAD
        return self._pool[start : start + length], self._targets[:length]
