"""The fact that is hidden and asked for."""

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from typing import Literal

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.niah.haystack import Haystack

_VALUE = "{value}"


@dataclass(frozen=True, slots=True)
class Needle:
    """A sentence, the question about it, and the answer that must occur in the prediction.

    ``{value}`` in any of them stands for a number of seven digits, another one for each example.
    """

    sentence: str
    question: str
    answer: str

    def __post_init__(self) -> None:
        """Refuses a needle that does not hold its answer."""
        if not self.answer or self.answer.lower() not in self.sentence.lower():
            raise SparseBalanceError(
                f"needle: answer = '{self.answer}': not part of the sentence '{self.sentence}'. "
                "give words of the sentence, so that the text holds the answer."
            )

    def with_value(self, value: int) -> "Needle":
        """Returns the needle with this number in it."""
        texts = (self.sentence, self.question, self.answer)
        return Needle(*(text.replace(_VALUE, str(value)) for text in texts))


def draw_value(rng: random.Random) -> int:
    """Returns a number of seven digits."""
    return rng.randrange(10**6, 10**7)


def hide(
    sentence: str, haystack: Haystack, num_units: int, *, first: int, depth_percent: float
) -> str:
    """Returns ``num_units`` of haystack with the sentence at a depth of its characters.

    It stands before the unit that the depth falls into: 0 is the beginning, 100 the end.
    """
    units = haystack.draw(num_units, first=first)
    ends = list(accumulate(map(len, units)))
    at = bisect_right(ends, depth_percent / 100 * ends[-1])
    return haystack.separator.join([*units[:at], sentence, *units[at:]])


def depth_grid(num_depths: int, *, spacing: Literal["linear", "sigmoid"]) -> list[float]:
    """Returns depths in percent from 0 to 100; sigmoid ones lie closer near both ends."""
    if num_depths < 2:
        raise SparseBalanceError(f"num_depths = {num_depths}: no grid. give at least 2.")
    linear = [100 * i / (num_depths - 1) for i in range(num_depths)]
    depths = linear if spacing == "linear" else [0.0, *map(_sigmoid, linear[1:-1]), 100.0]
    return [round(depth, 2) for depth in depths]


def _sigmoid(depth_percent: float) -> float:
    return 100 / (1 + exp(-0.1 * (depth_percent - 50)))
