"""Examples beside the predictions made for them.

Predictions lack the fields that say where in a grid or group an example belongs.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from sbcore.artifacts import read_json
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.checked_json import first_mistake
from sbcore.evaluate.rows import ExampleRow, PredictionRow, find_rows_file, read_rows
from sbcore.evaluate.task_folder import LoadedTask

Row = TypeVar("Row", bound=ExampleRow)


def read_pairs(
    loaded: LoadedTask, model: type[Row], *, prediction_dir: Path
) -> list[tuple[Row, PredictionRow | None]]:
    """Returns a task's examples with their predictions, None where those stop early.

    Raises:
        SparseBalanceError: There are no predictions, or they belong to other examples, or an
            example lacks a field.
    """
    name = loaded.task.name
    path = find_rows_file(prediction_dir, name)
    if path is None:
        raise SparseBalanceError(
            f"{prediction_dir}: {name}.jsonl: missing. evaluate the task first."
        )
    pairs = list(zip_longest(loaded.rows, read_rows(path, PredictionRow)))
    if any(e is None or (p is not None and e.answers != p.answers) for e, p in pairs):
        raise SparseBalanceError(
            f"{path}: made from other examples than {loaded.path}. evaluate this folder again."
        )
    place = f"{loaded.path}: asked example"
    examples = [_as(model, e, f"{place} {number}") for number, (e, _) in enumerate(pairs, 1)]
    return [(example, p) for example, (_, p) in zip(examples, pairs, strict=True)]


def _as(model: type[Row], example: ExampleRow, place: str) -> Row:
    try:
        return model.model_validate(example.model_dump())
    except ValidationError as error:
        raise SparseBalanceError(
            f"{place}: {first_mistake(error, whole='row')}. make the tasks anew, or leave this "
            "benchmark out."
        ) from error


def refuse_truncated(prediction_dir: Path, tasks: Sequence[LoadedTask]) -> None:
    """Refuses predictions of prompts that lost their middle, and perhaps what was asked for.

    Raises:
        SparseBalanceError: ``result.json`` is missing or counts such prompts of a task.
    """
    path = prediction_dir / "result.json"
    result = read_json(path)
    for name in (loaded.task.name for loaded in tasks):
        if num_truncated := result["num_truncated"].get(name, 0):
            raise SparseBalanceError(
                f"{path}: {name}: {num_truncated} prompts lost their middle at "
                f"evaluate.max_prompt_tokens = {result['truncation_tokens']}. raise it."
            )
