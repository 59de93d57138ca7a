"""Rows of the quality tables: mean scores over seeds, and paired differences to the baseline."""

from typing import Any

from sbcore.evaluate.bootstrap import paired_difference

ROW_COLUMNS = (
    "num_seeds", "num_examples", "score", "score_min", "score_max",
    "difference", "low", "high", "distinguishable",
)  # fmt: skip

Cell = tuple[str, str]
"""A task and a length, or a family and a task."""
Scores = dict[Cell, dict[int, list[float]]]
"""Example scores by cell, by seed."""


def compared(scores: Scores, baseline: Scores, cells: list[Cell]) -> dict[str, Any]:
    """Returns the numbers of these cells, each weighing alike, over seeds that both have."""
    seeds = sorted(set(scores[cells[0]]) & set(baseline[cells[0]]))
    ours = {f"{cell} {seed}": scores[cell][seed] for cell in cells for seed in seeds}
    theirs = {f"{cell} {seed}": baseline[cell][seed] for cell in cells for seed in seeds}
    difference = paired_difference(ours, theirs)
    by_seed = [_mean([_mean(scores[cell][seed]) for cell in cells]) for seed in seeds]
    return {
        "num_seeds": len(seeds),
        "num_examples": difference.num_examples,
        "score": round(_mean(by_seed), 2),
        "score_min": round(min(by_seed), 2),
        "score_max": round(max(by_seed), 2),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "distinguishable": difference.is_distinguishable,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
