"""Speedup as a ratio of steps of the same round: what the machine did meanwhile falls out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sbcore.ablation.steps import MeasuredStep


@dataclass(frozen=True, slots=True)
class Speedup:
    """The baseline's step time over the variant's, median over rounds and the spread."""

    median: float
    p20: float
    p80: float
    num_rounds: int


def by_variant(steps: Iterable[MeasuredStep]) -> dict[str, list[MeasuredStep]]:
    """Returns the measured steps of each variant, in the order of first sight."""
    found: dict[str, list[MeasuredStep]] = {}
    for step in steps:
        if step.measured:
            found.setdefault(step.variant, []).append(step)
    return found


def paired_speedup(
    steps: Sequence[MeasuredStep], baseline: Sequence[MeasuredStep]
) -> Speedup | None:
    """Returns the speedup over rounds that both have taken; None where they share none."""
    times = {step.round: step.step_ms for step in steps}
    ratios = [s.step_ms / times[s.round] for s in baseline if s.round in times]
    if not ratios:
        return None
    p20, median, p80 = np.percentile(ratios, [20, 50, 80])
    return Speedup(float(median), float(p20), float(p80), len(ratios))
