"""The score of a task's predictions: 100 x the mean of the metric, two digits."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.longbench import length_bucket
from sbcore.evaluate.metrics import find_metric
from sbcore.evaluate.rows import PredictionRow
from sbcore.evaluate.tasks import Task


def example_scores(task: Task, rows: Iterable[PredictionRow], path: Path) -> list[float]:
    """Returns the metric of each row, 0..1; ``path`` is where the rows came from.

    Raises:
        SparseBalanceError: A row does not fit the task's metric.
    """
    metric = find_metric(task.metric, place=str(path))
    scores = []
    for number, row in enumerate(rows, start=1):
        prediction = first_line(row.pred) if task.first_line else row.pred
        try:
            scores.append(metric(prediction, row.answers, row.all_classes or ()))
        except ValueError as error:
            raise SparseBalanceError(f"{path}: row {number}: {error}.") from error
    return scores


def first_line(prediction: str) -> str:
    """Returns the first line after leading line ends, which is all that few-shot tasks score."""
    return prediction.lstrip("\n").split("\n")[0]


def percent(scores: Sequence[float]) -> float:
    """Returns 100 x the mean, rounded to two digits as LongBench does."""
    return round(100 * sum(scores) / len(scores), 2)


def bucket_percents(
    scores: Sequence[float], rows: Sequence[PredictionRow]
) -> dict[str, float | None]:
    """Returns the score of each LongBench-E length bucket, None for an empty one.

    Rows without a ``length`` are in no bucket.
    """
    members: dict[str, list[float]] = {"0-4k": [], "4-8k": [], "8k+": []}
    for score, row in zip(scores, rows, strict=True):
        if row.length is not None:
            members[length_bucket(row.length)].append(score)
    return {bucket: percent(group) if group else None for bucket, group in members.items()}
