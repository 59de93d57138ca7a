"""The score of a task's predictions: 100 x the mean of the metric, two digits.

Rows without a ``length`` are in no bucket; an empty bucket has no score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.longbench import balanced_examples, length_bucket
from sbcore.evaluate.metrics import find_metric
from sbcore.evaluate.rows import PredictionRow
from sbcore.evaluate.tasks import Task


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task's score in percent; ``buckets`` by length for the tasks of LongBench-E.

    ``example_scores`` are the metric's values, 0..1, in the order of the examples.
    """

    task: Task
    score: float
    example_scores: tuple[float, ...]
    buckets: dict[str, float | None] | None

    @property
    def num_examples(self) -> int:
        """Examples that were scored."""
        return len(self.example_scores)


def score_rows(task: Task, rows: Sequence[PredictionRow], path: Path) -> TaskScore:
    """Returns the score of a task's rows; ``path`` is where they came from.

    Raises:
        SparseBalanceError: A row does not fit the task's metric.
    """
    scores = _example_scores(task, rows, path)
    return TaskScore(
        task=task,
        score=percent(scores),
        example_scores=tuple(scores),
        buckets=_buckets(scores, rows) if balanced_examples(task.name) else None,
    )


def first_line(prediction: str) -> str:
    """Returns the first line after leading line ends, which is all that few-shot tasks score."""
    return prediction.lstrip("\n").split("\n")[0]


def percent(scores: Sequence[float]) -> float:
    """Returns 100 x the mean, rounded to two digits as LongBench does."""
    return round(100 * sum(scores) / len(scores), 2)


def _example_scores(task: Task, rows: Sequence[PredictionRow], path: Path) -> list[float]:
    metric = find_metric(task.metric, place=str(path))
    scores = []
    for number, row in enumerate(rows, start=1):
        prediction = first_line(row.pred) if task.first_line else row.pred
        try:
            scores.append(metric(prediction, row.answers, row.all_classes or ()))
        except ValueError as error:
            raise SparseBalanceError(f"{path}: row {number}: {error}.") from error
    return scores


def _buckets(scores: Sequence[float], rows: Sequence[PredictionRow]) -> dict[str, float | None]:
    members: dict[str, list[float]] = {"0-4k": [], "4-8k": [], "8k+": []}
    for score, row in zip(scores, rows, strict=True):
        if row.length is not None:
            members[length_bucket(row.length)].append(score)
    return {bucket: percent(group) if group else None for bucket, group in members.items()}
