"""Scores of prediction files that exist already: ``sb evaluate --score-only``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import read_descriptions
from sbcore.evaluate.longbench import averages, balanced_examples, category_means
from sbcore.evaluate.metrics import require_packages
from sbcore.evaluate.predictions import unfinished_tasks
from sbcore.evaluate.rows import SUFFIXES, PredictionRow, find_rows_file, read_rows
from sbcore.evaluate.scoring import TaskScore, score_rows
from sbcore.evaluate.tasks import Task, benchmark_tasks, find_task


@dataclass(frozen=True, slots=True)
class PredictionScores:
    """The scores of a folder of predictions, in the order of the tasks' tables.

    ``unfinished`` tasks belong to an evaluation that was killed or still runs.
    """

    tasks: tuple[TaskScore, ...]
    unfinished: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float]:
        """Score by task, percent, two digits."""
        return {entry.task.name: entry.score for entry in self.tasks}

    @property
    def notices(self) -> list[str]:
        """One line for each task whose number of rows is not the official one, one for the rest."""
        notices = [text for entry in self.tasks if (text := _notice(entry)) is not None]
        return (
            [*notices, f"partial: {_unfinished(self.unfinished)}"] if self.unfinished else notices
        )


def score_predictions(folder: Path) -> PredictionScores:
    """Returns the scores of every ``TASK.jsonl`` or ``TASK.jsonl.gz`` in ``folder``.

    Raises:
        SparseBalanceError: No such folder, no prediction file in it, an unknown task, or a row
            that is not as it should be (file and line).
    """
    files = _prediction_files(folder)
    progress = Console(stderr=True)
    return PredictionScores(
        unfinished=unfinished_tasks(folder),
        tasks=tuple(
            score_rows(task, read_rows(files[task], PredictionRow), files[task])
            for task in track(
                files, "Scoring", console=progress, transient=True, disable=not progress.is_terminal
            )
        ),
    )


def print_scores_json(scores: PredictionScores) -> None:
    """Writes ``{"scores": {TASK: number}}`` to stdout and the notices to stderr."""
    Console(soft_wrap=True).out(json.dumps({"scores": scores.scores}, indent=2), highlight=False)
    _print_notices(scores)


def print_scores_table(scores: PredictionScores) -> None:
    """Writes the scores as a table, with every average they suffice for, to stdout."""
    console = Console()
    console.print(_task_table(scores))
    for name, value in _summary(scores.scores).items():
        console.print(f"{name:<32} {value:>6.2f}", highlight=False)
    _print_notices(scores)


def _prediction_files(folder: Path) -> dict[Task, Path]:
    """Returns the file of every task, in the order of the tasks' tables."""
    names = _task_names(folder)
    described = {name: entry.as_task(name) for name, entry in read_descriptions(folder).items()}
    order = [*described, *benchmark_tasks()]
    tasks = [find_task(name, described, place=str(folder), groups=()) for name in names]
    tasks.sort(key=lambda task: order.index(task.name))
    found = {task: path for task in tasks if (path := find_rows_file(folder, task.name))}
    for task, path in found.items():
        require_packages(task.metric, place=str(path))
    return found


def _task_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise SparseBalanceError(
            f"{folder}: no such folder. give the folder with TASK.jsonl files."
        )
    files = [path.name for path in folder.iterdir() if path.is_file()]
    names = {file.removesuffix(end) for file in files for end in SUFFIXES if file.endswith(end)}
    if not names and (unfinished := unfinished_tasks(folder)):
        raise SparseBalanceError(f"{folder}: nothing to score: {_unfinished(unfinished)}")
    if not names:
        raise SparseBalanceError(
            f"{folder}: no TASK.jsonl or TASK.jsonl.gz in it. put one file per task there."
        )
    return sorted(names)


def _unfinished(tasks: Sequence[str]) -> str:
    named = ", ".join(tasks[:3]) + (", ..." if len(tasks) > 3 else "")
    return (
        f"{len(tasks)} tasks of an evaluation are not finished ({named}). "
        "let it finish, or run it again: it goes on where it was."
    )


def _notice(entry: TaskScore) -> str | None:
    expected = entry.task.num_examples
    if expected is None or entry.num_examples in (expected, balanced_examples(entry.task.name)):
        return None
    what = "partial" if entry.num_examples < expected else "too many, perhaps written twice"
    return f"{entry.task.name}: {entry.num_examples} rows, the task has {expected}: {what}."


def _task_table(scores: PredictionScores) -> Table:
    table = Table(
        box=SIMPLE,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,  # 80 columns must hold the widest row
        caption="0-4k, 4-8k, 8k+: by the record's length, as LongBench-E",
    )
    for heading in ("task", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("examples", "score", "0-4k", "4-8k", "8k+"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in scores.tasks:
        examples = f"{entry.num_examples}"
        if _notice(entry) is not None:
            examples += f"/{entry.task.num_examples}"
        buckets = ["-" if value is None else f"{value:.2f}" for value in _bucket_values(entry)]
        table.add_row(entry.task.name, entry.task.metric, examples, f"{entry.score:.2f}", *buckets)
    return table


def _bucket_values(entry: TaskScore) -> list[float | None]:
    return [None, None, None] if entry.buckets is None else list(entry.buckets.values())


def _summary(scores: dict[str, float]) -> dict[str, float]:
    english = {f"mean of {name}": value for name, value in category_means(scores, "en").items()}
    chinese = {
        f"mean of {name} (zh)": value
        for name, value in category_means(scores, "zh").items()
        if name != "code"
    }
    return english | chinese | averages(scores)


def _print_notices(scores: PredictionScores) -> None:
    console = Console(stderr=True, soft_wrap=True)
    for notice in scores.notices:
        console.print(f"note: {notice}", highlight=False, markup=False)
