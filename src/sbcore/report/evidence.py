"""Whether the variants' scores differ from the baseline's, by family of tasks.

Both answered the same examples, so the differences are paired; intervals are of 95 % by bootstrap
(`sbcore.evaluate.bootstrap`), over the examples: another training would move the scores as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sbcore.evaluate.bootstrap import Difference, paired_difference
from sbcore.report.collect import RunRecord
from sbcore.report.contracts import EvaluationResult
from sbcore.report.numbers import signed

EVERYTHING = "all tasks"


@dataclass(frozen=True)
class EvidenceRow:
    """A family of tasks: a difference to the baseline per variant, None where there is none."""

    family: str
    differences: list[Difference | None]


@dataclass(frozen=True)
class Evidence:
    """The table; ``variants`` are its columns, the baseline left out."""

    baseline: str
    variants: list[str]
    rows: list[EvidenceRow]


def evidence(record: RunRecord) -> Evidence | None:
    """Returns the table of differences, None where nothing can be compared."""
    baseline = record.baseline.evaluation
    others = {
        variant.variant: variant.evaluation
        for variant in record.variants
        if variant.evaluation and variant.variant != record.baseline.variant
    }
    if baseline is None or not others:
        return None
    families = list(dict.fromkeys(baseline.categories.values()))
    rows = [
        EvidenceRow(family, [_difference(other, baseline, family) for other in others.values()])
        for family in [*families, EVERYTHING]
    ]
    if not any(rows[-1].differences):
        return None
    return Evidence(record.baseline.variant, list(others), rows)


def in_words(difference: Difference | None) -> str:
    """Returns `+1.2 (-0.4 to +2.8), not distinguishable`."""
    if difference is None:
        return signed(None, 1)
    low, high = signed(difference.low, 1), signed(difference.high, 1)
    verdict = "" if difference.is_distinguishable else ", not distinguishable"
    return f"{signed(difference.mean, 1)} ({low} to {high}){verdict}"


def _difference(
    result: EvaluationResult, baseline: EvaluationResult, family: str
) -> Difference | None:
    tasks = list(_shared(result, baseline, family))
    if not tasks:
        return None
    ours, theirs = ({task: x.example_scores[task] for task in tasks} for x in (result, baseline))
    return paired_difference(ours, theirs)


def _shared(result: EvaluationResult, baseline: EvaluationResult, family: str) -> Iterable[str]:
    """Yields the family's tasks that both answered all the same examples of."""
    for task, scores in baseline.example_scores.items():
        belongs = family in (EVERYTHING, baseline.categories[task])
        if belongs and len(result.example_scores.get(task, ())) == len(scores):
            yield task
