"""Takes over files that RULER's own scripts wrote: its wordings, its examples.

A row has ``input`` and ``outputs``; ``answer_prefix`` is the beginning of the answer, in files of
older versions it is part of the input. RULER puts the prefix behind a chat template, here it ends
the user's message, as with models behind an interface for chats.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sbcore.artifacts import digest_file
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.niah.folder import begin_folder, finish_folder, unheard, write_rows
from sbcore.evaluate.rows import find_rows_file, read_rows
from sbcore.evaluate.ruler.make import describe
from sbcore.evaluate.ruler.tasks import TASKS, RulerTask, sized_name

_TEMPLATE = "{input}{answer_prefix}"


class OfficialRow(BaseModel):
    """One example of a file of RULER's; other fields are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    index: int
    input: str
    outputs: list[str] = Field(min_length=1)
    length: int
    answer_prefix: str = ""


def import_ruler(
    out: Path, *, folders: Mapping[int, Path], on_row: Callable[[], object] = unheard
) -> list[str]:
    """Writes a task folder to ``out``, returns the names of its tasks, ``TASK_LENGTH``.

    ``folders`` maps max_seq_length to the folder that RULER wrote for it, which holds
    ``TASK/validation.jsonl`` or ``TASK.jsonl`` under RULER's names (``vt``, ``qa_1``). Tasks come
    in the order of RULER's table; those without a file are left out. ``on_row`` is called after
    each example.

    Raises:
        SparseBalanceError: No task at a length, or a row that is not as it should be.
    """
    found = {length: _files(folder) for length, folder in folders.items()}
    sources = {
        sized_name(name, length): {"path": str(path), "digest": digest_file(path)}
        for length, files in found.items()
        for name, path in files.items()
    }
    begin_folder(out, made_with={"maker": "ruler_import", "files": sources})
    descriptions = {}
    for length, files in found.items():
        for name, path in files.items():
            sized = sized_name(name, length)
            write_rows(out / f"{sized}.jsonl", _rows(path, length), on_row=on_row)
            descriptions[sized] = describe(TASKS[name], _TEMPLATE)
    finish_folder(out, descriptions)
    return list(descriptions)


def _files(folder: Path) -> dict[str, Path]:
    paths = {name: _file(folder, task) for name, task in TASKS.items()}
    found = {name: path for name, path in paths.items() if path is not None}
    if not found:
        names = ", ".join(task.official_name for task in TASKS.values())
        raise SparseBalanceError(
            f"{folder}: no file of RULER's in it. give a folder with TASK/validation.jsonl or "
            f"TASK.jsonl; tasks: {names}."
        )
    return found


def _file(folder: Path, task: RulerTask) -> Path | None:
    inner = find_rows_file(folder / task.official_name, "validation")
    return inner or find_rows_file(folder, task.official_name)


def _rows(path: Path, length: int) -> Iterator[dict[str, Any]]:
    for row in read_rows(path, OfficialRow):
        yield {
            "index": row.index,
            "input": row.input,
            "context": "",
            "answers": row.outputs,
            "all_classes": None,
            "length": row.length,
            "max_seq_length": length,
            "answer_prefix": row.answer_prefix,
        }
