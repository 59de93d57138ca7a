"""Rows of jsonl files, plain or gzip, checked where they enter.

A prediction file holds one row per example: pred, answers, all_classes, length (LongBench's form).
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.checked_json import first_mistake

SUFFIXES = (".jsonl", ".jsonl.gz")


class PredictionRow(BaseModel):
    """One scored example; ``length`` is missing in some published prediction files."""

    model_config = ConfigDict(frozen=True, strict=True)

    pred: str
    answers: list[str] = Field(min_length=1)
    all_classes: list[str] | None
    length: float | None = None


class ExampleRow(BaseModel):
    """One example of a task in LongBench's form; a prompt template may name further fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    input: str
    context: str
    answers: list[str] = Field(min_length=1)
    all_classes: list[str] | None
    length: int | float


Row = TypeVar("Row", bound=BaseModel)


def find_rows_file(folder: Path, name: str) -> Path | None:
    """Returns ``folder/name.jsonl`` or ``.jsonl.gz``, None if there is neither.

    Raises:
        SparseBalanceError: There are both.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise SparseBalanceError(
            f"{folder}: {found[0].name} and {found[1].name} both exist. remove one of them."
        )
    return found[0] if found else None


def read_rows(path: Path, model: type[Row]) -> list[Row]:
    """Returns all rows of a file, checked; blank lines are passed over.

    Raises:
        SparseBalanceError: The file cannot be read, is empty, or a row is not as ``model`` says
            (with file and line).
    """
    rows = [_check(record, model, f"{path}:{line}") for line, record in _records(path)]
    if not rows:
        raise SparseBalanceError(f"{path}: no rows in it. write one JSON object per line.")
    return rows


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    for line, text in _lines(path):
        try:
            yield line, json.loads(text)
        except json.JSONDecodeError as error:
            raise SparseBalanceError(
                f"{path}:{line}: not JSON: {error.msg} (column {error.pos + 1}). "
                "write one JSON object per line."
            ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    line = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as file
        ):
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, text
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SparseBalanceError(
            f"{path}:{line + 1}: cannot be read: {error}. give a UTF-8 jsonl file, plain or gzip."
        ) from error


def _check(record: object, model: type[Row], place: str) -> Row:
    try:
        return model.model_validate(record)
    except ValidationError as error:
        fields = ", ".join(n for n, field in model.model_fields.items() if field.is_required())
        raise SparseBalanceError(
            f"{place}: {first_mistake(error, whole='row')}. a row needs {fields}."
        ) from error
