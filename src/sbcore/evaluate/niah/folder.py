"""Folders of described tasks, written as `sbcore.evaluate.task_folder` reads them."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sbcore.artifacts import replace_when_done, write_json
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import FILE, TaskDescription, write_descriptions
from sbcore.evaluate.rows import ExampleRow

MADE_WITH = "made_with.json"


def write_rows(
    path: Path, rows: Iterable[Mapping[str, Any]], *, on_row: Callable[[], object]
) -> None:
    """Writes one example per line, whole or not at all; rows are taken one by one.

    ``on_row`` is called after each.
    """
    with replace_when_done(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            ExampleRow.model_validate(row)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            on_row()


def unheard() -> None:
    """Changes nothing: what makers of tasks call after a row when nobody counts."""


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
    write_descriptions(out, descriptions)
