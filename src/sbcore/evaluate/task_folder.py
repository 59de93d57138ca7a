"""Reads tasks with their examples: a LongBench folder as its authors ship it, or a described one.

LongBench: ``config/dataset2prompt.json``, ``config/dataset2maxlen.json``, rows in ``data/`` or in
the folder itself as ``TASK.jsonl`` or ``TASK.jsonl.gz``. Described: ``tasks.json`` and the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sbcore.artifacts import read_json
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import FILE, TaskDescription, read_descriptions
from sbcore.evaluate.longbench import standard_name
from sbcore.evaluate.rows import ExampleRow, find_rows_file, read_rows
from sbcore.evaluate.tasks import Task, find_task


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task with its prompt template and examples; ``chance`` is what guessing scores, percent.

    ``num_available`` counts the examples in the file, of which ``rows`` are the first.
    """

    task: Task
    template: str
    rows: tuple[ExampleRow, ...]
    path: Path
    num_available: int
    chance: float | None


def load_tasks(folder: Path, names: Sequence[str], *, max_examples: int) -> list[LoadedTask]:
    """Returns the named tasks of a folder, each with its first ``max_examples`` examples.

    Raises:
        SparseBalanceError: The folder, a task in it, its rows or its template are missing or wrong.
    """
    if not folder.is_dir():
        raise SparseBalanceError(
            f"{folder}: no such folder. give a LongBench folder or one with a {FILE}."
        )
    if not names:
        raise SparseBalanceError(
            "evaluate.tasks = []: nothing to evaluate. name at least one task."
        )
    described = read_descriptions(folder)
    return [_load_task(folder, name, described, max_examples) for name in dict.fromkeys(names)]


def _load_task(
    folder: Path, name: str, described: dict[str, TaskDescription], max_examples: int
) -> LoadedTask:
    tasks = {key: entry.as_task(key) for key, entry in described.items()}
    task = find_task(name, tasks, place=str(folder))
    if name in described:
        template, chance = described[name].template, described[name].chance
    else:
        task, template, chance = *_as_shipped(folder, task), None
    path = _rows_path(folder, name)
    rows = read_rows(path, ExampleRow)
    return LoadedTask(
        task=task,
        template=template,
        rows=tuple(rows[:max_examples]),
        path=path,
        num_available=len(rows),
        chance=_chance_of_labels(task, rows) if chance is None else chance,
    )


def _as_shipped(folder: Path, task: Task) -> tuple[Task, str]:
    config = folder / "config"
    if not config.is_dir():
        raise SparseBalanceError(
            f"{folder}: no config/ in it. give a LongBench folder as its authors ship it "
            f"(config/dataset2prompt.json), or describe the tasks in {FILE}."
        )
    templates = read_json(config / "dataset2prompt.json")
    limits = read_json(config / "dataset2maxlen.json")
    name = standard_name(task.name)
    for values, file in ((templates, "dataset2prompt.json"), (limits, "dataset2maxlen.json")):
        if name not in values:
            raise SparseBalanceError(f"{config / file}: {name}: missing. add the task to it.")
    return replace(task, max_new_tokens=int(limits[name])), str(templates[name])


def _rows_path(folder: Path, name: str) -> Path:
    for place in (folder / "data", folder):
        if (path := find_rows_file(place, name)) is not None:
            return path
    raise SparseBalanceError(
        f"{folder}: {name}: no {name}.jsonl or {name}.jsonl.gz in it or in its data/. "
        "add the file, or take the task out of evaluate.tasks."
    )


def _chance_of_labels(task: Task, rows: Sequence[ExampleRow]) -> float | None:
    labels = [len(row.all_classes) for row in rows if row.all_classes]
    if task.metric != "classification" or not labels:
        return None
    return round(100 * sum(1 / count for count in labels) / len(labels), 2)
