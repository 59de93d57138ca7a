"""Prediction files that survive a kill: rows are appended as they come, the file is renamed last.

``TASK.jsonl.partial`` holds rows in the order they were made, each with its index; ranks above 0
write ``TASK.jsonl.partial.RANK``. ``TASK.jsonl`` is in the order of the task. ``state.json`` says
by a digest what they were made with: rows made with anything else are thrown away.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from sbcore.artifacts import read_json, replace_when_done, write_json
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.rows import ExampleRow, PredictionRow, find_rows_file

STATE = "state.json"
_PARTIAL = ".jsonl.partial"


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """The predictions of one task in ``folder``, made with what ``digest`` stands for."""

    folder: Path
    task: str
    digest: str

    @property
    def path(self) -> Path:
        """The finished file."""
        return self.folder / f"{self.task}.jsonl"

    def partial(self, rank: int) -> Path:
        """Returns a rank's part of the file while it grows."""
        name = f"{self.task}{_PARTIAL}"
        return self.folder / (f"{name}.{rank}" if rank else name)

    @property
    def partials(self) -> list[Path]:
        """The parts of all ranks that are there, of whatever number of ranks."""
        return sorted(self.folder.glob(f"{escape(self.task)}{_PARTIAL}*"))

    def kept(self) -> dict[int, str]:
        """Returns the predictions by index that are there already and were made with the same."""
        if _read_state(self.folder).get(self.task) != self.digest:
            return {}
        if self.path.is_file():
            return {index: row["pred"] for index, row in enumerate(_whole_rows(self.path))}
        rows = [row for path in self.partials for row in _whole_rows(path)]
        return {row["index"]: row["pred"] for row in rows}

    def begin(self, predictions: Mapping[int, str]) -> None:
        """Throws away what is not in ``predictions`` and notes what they are made with."""
        with replace_when_done(self.partial(0)) as part:
            part.write_text("".join(map(_partial_line, predictions.items())), encoding="utf-8")
        self.path.unlink(missing_ok=True)
        for path in self.partials:
            if path != self.partial(0):
                path.unlink()
        write_json(self.folder / STATE, _read_state(self.folder) | {self.task: self.digest})

    def append(self, predictions: Mapping[int, str], *, rank: int) -> None:
        """Adds predictions to the rank's partial file; they are on disk when this returns."""
        with self.partial(rank).open("a", encoding="utf-8") as file:
            file.write("".join(map(_partial_line, predictions.items())))

    def finish(self, predictions: Mapping[int, str], rows: Iterable[ExampleRow]) -> None:
        """Writes the finished file, one row per example in order, and drops the partial one."""
        with replace_when_done(self.path) as part, part.open("w", encoding="utf-8") as file:
            for index, row in enumerate(rows):
                file.write(_line(row_of(predictions[index], row)))
        for path in self.partials:
            path.unlink()


def refuse_foreign(folder: Path, tasks: Sequence[str]) -> None:
    """Refuses a folder where an evaluation would replace what something else wrote.

    Raises:
        SparseBalanceError: A task's file is one that ``state.json`` does not know, or its rows are
            not as they are written here.
    """
    known = _read_state(folder)
    for task in tasks:
        path = find_rows_file(folder, task)
        if path is not None and not (task in known and _is_written_here(path)):
            raise _foreign(path)


def unfinished_tasks(folder: Path) -> tuple[str, ...]:
    """Returns the tasks of an evaluation that has not come to their end, if any."""
    names = {path.name.partition(_PARTIAL)[0] for path in folder.glob(f"*{_PARTIAL}*")}
    return tuple(sorted(names))


def row_of(prediction: str, row: ExampleRow) -> dict[str, Any]:
    """Returns a row of LongBench's prediction format."""
    return {"pred": prediction, **row.model_dump(include={"answers", "all_classes", "length"})}


def _read_state(folder: Path) -> dict[str, str]:
    path = folder / STATE
    state = read_json(path) if path.is_file() else {}
    if not isinstance(state, dict):
        raise _foreign(path)
    return state


def _foreign(path: Path) -> SparseBalanceError:
    return SparseBalanceError(
        f"{path}: not written by an evaluation here, which would replace it. "
        "move it away, or evaluate into another folder."
    )


def _is_written_here(path: Path) -> bool:
    if path.suffix != ".jsonl":
        return False
    try:
        rows = _whole_rows(path)
        for row in rows:
            PredictionRow.model_validate(row)
    except ValueError:  # not utf-8, not json, not such rows
        return False
    return all(set(row) == set(PredictionRow.model_fields) for row in rows)


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    # A kill may have torn the last line; it has no line end then.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


def _partial_line(item: tuple[int, str]) -> str:
    return _line({"index": item[0], "pred": item[1]})


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
