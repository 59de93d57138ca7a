"""``eval/result.json``: the scores of a model and what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbcore.evaluate.longbench import averages
from sbcore.evaluate.predictions import PredictionFile, row_of
from sbcore.evaluate.prompts import PromptStyle
from sbcore.evaluate.rows import PredictionRow
from sbcore.evaluate.scoring import TaskScore, score_rows
from sbcore.evaluate.task_folder import LoadedTask
from sbcore.evaluate.task_names import harness_name


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The finished predictions of one task, scored; ``num_truncated`` prompts lost their middle."""

    loaded: LoadedTask
    scored: TaskScore
    num_truncated: int


def score_predicted(
    loaded: LoadedTask, predictions: Mapping[int, str], file: PredictionFile
) -> TaskScore:
    """Returns the score of a task whose examples all have a prediction."""
    rows = [
        PredictionRow.model_validate(row_of(predictions[index], row))
        for index, row in enumerate(loaded.rows)
    ]
    return score_rows(loaded.task, rows, file.path)


def summarize(
    results: Sequence[TaskResult],
    *,
    num_tasks: int,
    max_prompt_tokens: int,
    prompt_style: PromptStyle,
) -> dict[str, Any]:
    """Returns the content of ``result.json``; it is partial until every task is finished.

    ``num_examples`` were asked of the ``num_available`` in the task's file; scores of fewer
    examples than the benchmark has do not compare with published ones. ``example_scores``, percent
    in the order of the examples, are what two models are compared by; ``harness_names`` is what
    lm-evaluation-harness calls the tasks.
    """
    by_name = {result.loaded.task.name: result for result in results}
    scores = {name: result.scored.score for name, result in by_name.items()}
    chances = {name: result.loaded.chance for name, result in by_name.items()}
    buckets = {name: result.scored.buckets for name, result in by_name.items()}
    return {
        "scores": scores,
        "score_mean": round(sum(scores.values()) / len(scores), 2) if scores else None,
        "averages": averages(scores),
        "buckets": {name: value for name, value in buckets.items() if value is not None},
        "chance": {name: value for name, value in chances.items() if value is not None},
        "categories": {name: result.loaded.task.category for name, result in by_name.items()},
        "harness_names": {name: harness_name(name) for name in by_name},
        "metrics": {name: result.loaded.task.metric for name, result in by_name.items()},
        "num_examples": {name: len(result.loaded.rows) for name, result in by_name.items()},
        "num_available": {name: result.loaded.num_available for name, result in by_name.items()},
        "truncation_tokens": max_prompt_tokens,
        "num_truncated": {name: result.num_truncated for name, result in by_name.items()},
        "prompt_style": prompt_style,
        "partial": len(results) < num_tasks,
        "example_scores": {
            name: [round(100 * score, 4) for score in result.scored.example_scores]
            for name, result in by_name.items()
        },
    }
