"""Folders of described tasks: written as `sbcore.evaluate.task_folder` reads them, and paired.

Predictions lack the fields that say where in a grid or group an example belongs; `read_pairs` puts
them beside the examples again.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from sbcore.artifacts import read_json, replace_when_done, write_json
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import FILE, TaskDescription
from sbcore.evaluate.rows import ExampleRow, PredictionRow, find_rows_file, read_rows

MADE_WITH = "made_with.json"

Row = TypeVar("Row", bound=ExampleRow)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one example per line, whole or not at all; rows are taken one by one."""
    with replace_when_done(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            ExampleRow.model_validate(row)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def begin_folder(out: Path, *, made_with: Mapping[str, Any]) -> None:
    """Makes the folder with its ``made_with.json``; it holds no tasks until `finish_folder`.

    Raises:
        SparseBalanceError: The folder holds files that were not made here.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / MADE_WITH).is_file():
        raise SparseBalanceError(f"{out}: holds files of another kind. give a new folder.")
    write_json(out / MADE_WITH, made_with)
    (out / FILE).unlink(missing_ok=True)


def finish_folder(out: Path, descriptions: Mapping[str, TaskDescription]) -> None:
    """Writes ``tasks.json``, which makes the folder one of tasks."""
    write_json(out / FILE, {name: entry.model_dump() for name, entry in descriptions.items()})


def read_pairs(
    name: str, model: type[Row], *, task_dir: Path, prediction_dir: Path
) -> list[tuple[Row, PredictionRow | None]]:
    """Returns a task's examples with their predictions, None where those stop early.

    Raises:
        SparseBalanceError: A file is missing or wrong, or predictions belong to other examples.
    """
    examples = read_rows(_rows_file(task_dir, name), model)
    path = _rows_file(prediction_dir, name)
    predictions = read_rows(path, PredictionRow)
    pairs = list(zip_longest(examples, predictions))
    if any(e is None or (p is not None and e.answers != p.answers) for e, p in pairs):
        raise SparseBalanceError(
            f"{path}: made from other examples than {task_dir}. evaluate this folder again."
        )
    return pairs


def refuse_truncated(prediction_dir: Path, names: Iterable[str]) -> None:
    """Refuses predictions of prompts that lost their middle, and perhaps what was asked for.

    Raises:
        SparseBalanceError: ``result.json`` is missing or counts such prompts of a named task.
    """
    path = prediction_dir / "result.json"
    result = read_json(path)
    for name in names:
        if num_truncated := result["num_truncated"].get(name, 0):
            raise SparseBalanceError(
                f"{path}: {name}: {num_truncated} prompts lost their middle at "
                f"evaluate.max_prompt_tokens = {result['truncation_tokens']}. raise it."
            )


def _rows_file(folder: Path, name: str) -> Path:
    path = find_rows_file(folder, name)
    if path is None:
        raise SparseBalanceError(f"{folder}: {name}.jsonl: missing. evaluate the task first.")
    return path
