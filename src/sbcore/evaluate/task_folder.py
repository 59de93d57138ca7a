"""Reads tasks with their examples: a LongBench folder as its authors ship it, or a described one.

LongBench: ``config/dataset2prompt.json``, ``config/dataset2maxlen.json``, rows in ``data/`` or in
the folder itself as ``TASK.jsonl`` or ``TASK.jsonl.gz``. Described: ``tasks.json`` and the rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pydantic import PositiveInt, TypeAdapter

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.checked_json import read_checked
from sbcore.evaluate.descriptions import FILE, TaskDescription, read_descriptions
from sbcore.evaluate.longbench import standard_name
from sbcore.evaluate.niah.shares import even_rows
from sbcore.evaluate.rows import ExampleRow, read_rows
from sbcore.evaluate.task_names import expand_names, group_names, rows_file
from sbcore.evaluate.tasks import Task, find_task

Entry = TypeVar("Entry")

_TEMPLATES = TypeAdapter(dict[str, str])
_LIMITS = TypeAdapter(dict[str, PositiveInt])


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task with its prompt template and examples; ``chance`` is what guessing scores, percent.

    ``num_available`` counts the examples in the file, of which ``rows`` are the first, or the first
    of each depth in a grid of needles;
    ``description`` is the folder's own, None for a benchmark's task.
    """

    task: Task
    template: str
    rows: tuple[ExampleRow, ...]
    path: Path
    num_available: int
    chance: float | None
    description: TaskDescription | None


def load_tasks(
    folders: Sequence[Path], names: Sequence[str], *, max_examples: int
) -> list[LoadedTask]:
    """Returns the named tasks, each with its first ``max_examples`` examples or less.

    A task that several folders describe or hold comes from the first of them; groups of tasks may
    be named too (see `sbcore.evaluate.task_names`).

    Raises:
        SparseBalanceError: A folder, a task in it, its rows or its template are missing or wrong.
    """
    described = _described(folders)
    if not names:
        raise SparseBalanceError(
            "evaluate.tasks = []: nothing to evaluate. name at least one task."
        )
    return [
        _load_task(folder, task, described[folder], max_examples)
        for task, folder in _find_tasks(names, described)
    ]


def check_tasks(folders: Sequence[Path], names: Sequence[str]) -> None:
    """Raises SparseBalanceError for a task that is not there; examples are not read."""
    for task, folder in _find_tasks(names, _described(folders)):
        _rows_path(folder, task.name)


Described = Mapping[Path, Mapping[str, TaskDescription]]


def _described(folders: Sequence[Path]) -> Described:
    for folder in folders:
        if not folder.is_dir():
            raise SparseBalanceError(
                f"{folder}: no such folder. give a LongBench folder or one with a {FILE}."
            )
    return {folder: read_descriptions(folder) for folder in folders}


def _find_tasks(names: Sequence[str], described: Described) -> Iterator[tuple[Task, Path]]:
    """Yields each task with the folder that it is in, the first of several."""
    merged: dict[str, TaskDescription] = {}
    for name, entry in chain.from_iterable(entries.items() for entries in described.values()):
        merged.setdefault(name, entry)
    tasks = {name: entry.as_task(name) for name, entry in merged.items()}
    place, groups = ", ".join(map(str, described)), group_names(merged)
    for name in expand_names(names, merged, [*described]):
        yield find_task(name, tasks, place=place, groups=groups), _folder_of(name, described)


def _folder_of(name: str, described: Described) -> Path:
    """Returns where a task is looked for: where it is described, else where its examples are."""
    by_word = [folder for folder, entries in described.items() if name in entries]
    by_rows = [folder for folder in described if rows_file(folder, name) is not None]
    shipped = [folder for folder in described if (folder / "config").is_dir()]
    return [*by_word, *by_rows, *shipped, *described][0]


def _load_task(
    folder: Path, task: Task, described: Mapping[str, TaskDescription], max_examples: int
) -> LoadedTask:
    if task.name in described:
        entry = described[task.name]
        task, template, chance = entry.as_task(task.name), entry.template, entry.chance
    else:
        task, template, chance = *_as_shipped(folder, task), None
    path = _rows_path(folder, task.name)
    rows = read_rows(path, ExampleRow)
    return LoadedTask(
        task=task,
        template=template,
        rows=_asked(task, rows, max_examples),
        path=path,
        num_available=len(rows),
        chance=_chance_of_labels(task, rows) if chance is None else chance,
        description=described.get(task.name),
    )


def _asked(task: Task, rows: Sequence[ExampleRow], max_examples: int) -> tuple[ExampleRow, ...]:
    if task.category == "niah":
        return even_rows(rows, max_examples=max_examples, name=task.name)
    return tuple(rows[:max_examples])


def _as_shipped(folder: Path, task: Task) -> tuple[Task, str]:
    config = folder / "config"
    if not config.is_dir():
        raise SparseBalanceError(
            f"{folder}: no config/ in it. give a LongBench folder as its authors ship it "
            f"(config/dataset2prompt.json), or describe the tasks in {FILE}."
        )
    name = standard_name(task.name)
    template = _entry(config / "dataset2prompt.json", name, _TEMPLATES)
    limit = _entry(config / "dataset2maxlen.json", name, _LIMITS)
    return replace(task, max_new_tokens=limit), template


def _entry(path: Path, name: str, form: TypeAdapter[dict[str, Entry]]) -> Entry:
    entries = read_checked(path, form)
    if name not in entries:
        raise SparseBalanceError(f"{path}: {name}: missing. add the task to it.")
    return entries[name]


def _rows_path(folder: Path, name: str) -> Path:
    if (path := rows_file(folder, name)) is not None:
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
