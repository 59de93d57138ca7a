"""Prompts of a wanted size: as many units of haystack as fit.

Tokens grow almost evenly with units, so the count is found by interpolation between the longest
prompt known to fit and the shortest known not to: 2 to 3 tokenizations of a prompt, where halving
takes 10. The tokens left free are fewer than a unit has on average.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sized:
    num_units: int
    row: Row
    length: int


@dataclass(slots=True)
class PromptFitter:
    """Fits rows to ``max_seq_length``, which holds the prompt and ``max_new_tokens``.

    Tokens that a chat template adds come on top. ``guess`` is the number of units to try first;
    it becomes the one that fitted last.
    """

    tokenizer: "PreTrainedTokenizerBase"
    template: str
    max_seq_length: int
    max_new_tokens: int
    guess: int

    def fit(self, build: Callable[[int], Row], *, smallest: int, place: str) -> Row:
        """Returns the fitting row with its ``length`` and ``max_seq_length``, in tokens.

        ``build`` makes the row of a number of units, always the same for the same number.

        Raises:
            SparseBalanceError: The row of the smallest number does not fit; ``place`` says which.
        """
        least = self._sized(build, smallest)
        if least.length > self.max_seq_length:
            raise SparseBalanceError(
                f"{place}: max_seq_length = {self.max_seq_length}: the smallest prompt and its "
                f"answer have {least.length} tokens. ask for a larger length."
            )
        found = self._fill(build, least)
        self.guess = found.num_units
        return found.row | {"length": found.length, "max_seq_length": self.max_seq_length}

    def _fill(self, build: Callable[[int], Row], least: _Sized) -> _Sized:
        fits, other = least, least
        probe = max(self.guess, least.num_units + 1)
        while probe > fits.num_units:
            tried = self._sized(build, probe)
            if tried.length > self.max_seq_length:
                other = tried
            else:
                fits = tried
            probe = self._next(fits, other)
        return fits

    def _next(self, fits: _Sized, other: _Sized) -> int:
        """Returns the number of units at which the line through two sizes reaches the limit."""
        few, many = sorted((fits, other), key=lambda sized: sized.num_units)
        num_tokens = max(1, many.length - few.length)
        left = self.max_seq_length - fits.length
        return fits.num_units + left * (many.num_units - few.num_units) // num_tokens

    def _sized(self, build: Callable[[int], Row], num_units: int) -> _Sized:
        row = build(num_units)
        ids = self.tokenizer(self.template.format(**row), verbose=False)["input_ids"]
        return _Sized(num_units, row, len(ids) + self.max_new_tokens)
