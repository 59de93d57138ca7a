"""Puts the scores of RULER's tasks at several lengths together, as the paper's tables do."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbcore.artifacts import read_json, write_json
from sbcore.evaluate.pairs import refuse_truncated
from sbcore.evaluate.ruler.tasks import split_name
from sbcore.evaluate.task_folder import LoadedTask


@dataclass(frozen=True, slots=True)
class RulerScores:
    """Scores in percent: by task and length, the tasks' mean by length, and means of those.

    Weighted means count the lengths 1, 2, 3, ... times, rising (``increasing``: long prompts
    count most) or falling with the length. Means are None where a task lacks a length.
    """

    tasks: dict[str, dict[int, float]]
    lengths: dict[int, float] | None
    average: float | None
    weighted_average_increasing: float | None
    weighted_average_decreasing: float | None


def ruler_scores(scores: Mapping[str, float]) -> RulerScores:
    """Returns the summary of ``{"niah_single_1_4096": 98.5, ...}``; other tasks are passed over."""
    tasks: dict[str, dict[int, float]] = {}
    for sized, score in scores.items():
        if (found := split_name(sized)) is not None:
            tasks.setdefault(found[0], {})[found[1]] = score
    tasks = {name: dict(sorted(by_length.items())) for name, by_length in tasks.items()}
    lengths = sorted({length for by_length in tasks.values() for length in by_length})
    if not tasks or any(list(by_length) != lengths for by_length in tasks.values()):
        return RulerScores(tasks, None, None, None, None)
    columns = [[tasks[name][length] for name in tasks] for length in lengths]
    means = [sum(column) / len(column) for column in columns]
    rising = range(1, len(means) + 1)
    return RulerScores(
        tasks=tasks,
        lengths={length: round(mean, 2) for length, mean in zip(lengths, means, strict=True)},
        average=weighted_mean(means, [1] * len(means)),
        weighted_average_increasing=weighted_mean(means, rising),
        weighted_average_decreasing=weighted_mean(means, rising[::-1]),
    )


def score_ruler(tasks: Sequence[LoadedTask], *, prediction_dir: Path, out: Path) -> dict[str, Any]:
    """Writes ``ruler.json`` to ``out`` from the ``result.json`` of an evaluation, returns it.

    Raises:
        SparseBalanceError: There is no result, or prompts of these tasks were truncated.
    """
    refuse_truncated(prediction_dir, tasks)
    scores = read_json(prediction_dir / "result.json")["scores"]
    summary = asdict(ruler_scores({each.task.name: scores[each.task.name] for each in tasks}))
    write_json(out / "ruler.json", summary)
    return summary


def weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Returns the weighted mean, rounded to two digits."""
    pairs = zip(values, weights, strict=True)
    return round(sum(value * weight for value, weight in pairs) / sum(weights), 2)
