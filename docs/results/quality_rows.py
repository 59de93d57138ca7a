"""Rows of the quality tables: mean scores over seeds, and paired differences to the baseline.

All seeds answer the same examples, so an example counts once, with its mean over seeds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sbcore.evaluate.bootstrap import paired_difference
from sbcore.types import FloatArray

ROW_COLUMNS = (
    "num_seeds", "num_examples", "score", "score_min", "score_max",
    "difference", "low", "high", "distinguishable",
    "difference_min", "difference_max", "p_value",
)  # fmt: skip

Cell = tuple[str, str]
"""A task and a length, or a family and a task."""
Scores = dict[Cell, dict[int, list[float]]]
"""Example scores by cell, by seed."""

_NUM_FLIPS = 10_000


def compared(scores: Scores, baseline: Scores, cells: list[Cell]) -> dict[str, Any]:
    """Returns the numbers of these cells, each weighing alike, over seeds that both have.

    ``score_min``, ``score_max`` and ``difference_min``, ``difference_max`` are those of seeds.
    """
    seeds = sorted(set(scores[cells[0]]) & set(baseline[cells[0]]))
    ours, theirs = ([_by_example(of[cell], seeds) for cell in cells] for of in (scores, baseline))
    difference = paired_difference(_named(ours), _named(theirs))
    by_seed, base_by_seed = _by_seed(ours), _by_seed(theirs)
    return {
        "num_seeds": len(seeds),
        "num_examples": difference.num_examples,
        "score": round(float(by_seed.mean()), 2),
        "score_min": round(float(by_seed.min()), 2),
        "score_max": round(float(by_seed.max()), 2),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "distinguishable": difference.is_distinguishable,
        "difference_min": round(float((by_seed - base_by_seed).min()), 2),
        "difference_max": round(float((by_seed - base_by_seed).max()), 2),
        "p_value": round(sign_flip_p(_less(ours, theirs)), 4),
    }


def sign_flip_p(differences: Sequence[FloatArray]) -> float:
    """Returns how often the mean of cells' means would be as far from 0 by chance, two-sided.

    If two models did not differ, each example's difference could as well have the other sign.
    """
    rng = np.random.default_rng(0)
    seen = abs(np.mean([values.mean() for values in differences]))
    flipped = [_flipped_means(values, rng) for values in differences]
    as_far = np.abs(np.mean(flipped, axis=0)) >= seen - 1e-9
    return float((as_far.sum() + 1) / (_NUM_FLIPS + 1))


def _flipped_means(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    signs = rng.integers(2, size=(_NUM_FLIPS, len(values)), dtype=np.int8) * 2 - 1
    means: FloatArray = signs @ values / len(values)
    return means


def _by_example(found: dict[int, list[float]], seeds: list[int]) -> FloatArray:
    """Returns scores [num_seeds, num_examples]."""
    return np.array([found[seed] for seed in seeds])


def _named(cells: list[FloatArray]) -> dict[str, list[float]]:
    """Returns each example's mean over seeds by the cell's place."""
    return {str(i): values.mean(axis=0).tolist() for i, values in enumerate(cells)}


def _by_seed(cells: list[FloatArray]) -> FloatArray:
    """Returns the mean of the cells' means, [num_seeds]."""
    means: FloatArray = np.mean([values.mean(axis=1) for values in cells], axis=0)
    return means


def _less(ours: list[FloatArray], theirs: list[FloatArray]) -> list[FloatArray]:
    """Returns each example's difference, the mean over seeds, by cell."""
    pairs = zip(ours, theirs, strict=True)
    return [(one - other).mean(axis=0) for one, other in pairs]
