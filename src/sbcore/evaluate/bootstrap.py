"""Whether two models' scores differ, or only the examples happened to suit one of them.

Paired bootstrap: both answered the same examples, so examples are drawn again, each with both of
its scores, and the mean difference is taken of every draw. Tasks keep their numbers of examples and
weigh alike, as in a mean of task scores. Fixed seed: equal scores give equal intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sbcore.types import FloatArray

_NUM_RESAMPLES = 2000
_ENDS = (2.5, 97.5)
_LARGEST_DRAW = 4_000_000  # numbers drawn at once


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of the first model's scores minus the second's, with the 95 % interval, in points."""

    mean: float
    low: float
    high: float
    num_examples: int

    @property
    def is_distinguishable(self) -> bool:
        """Whether the interval lies to one side of 0; few examples tell little apart."""
        return self.low > 0 or self.high < 0


def paired_difference(
    scores: Mapping[str, Sequence[float]], others: Mapping[str, Sequence[float]]
) -> Difference:
    """Returns the difference of the means of task scores; both are example scores by task.

    Tasks are those of ``scores``; of each, the examples are the same and in the same order.
    """
    means, draws = [], []
    rng = np.random.default_rng(0)
    for task, values in scores.items():
        differences = np.subtract(values, others[task])
        means.append(differences.mean())
        draws.append(_resampled_means(differences, rng))
    low, high = np.percentile(np.mean(draws, axis=0), _ENDS)
    return Difference(
        mean=_two_digits(float(np.mean(means))),
        low=_two_digits(float(low)),
        high=_two_digits(float(high)),
        num_examples=sum(map(len, scores.values())),
    )


def _resampled_means(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Returns the mean of each of the draws with replacement."""
    at_once = max(1, _LARGEST_DRAW // len(values))
    sizes = [min(at_once, _NUM_RESAMPLES - start) for start in range(0, _NUM_RESAMPLES, at_once)]
    return np.concatenate(
        [values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes]
    )


def _two_digits(value: float) -> float:
    return round(value, 2) + 0.0  # no negative zero
