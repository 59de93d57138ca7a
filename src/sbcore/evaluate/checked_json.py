"""Json that others wrote, checked where it enters; what is wrong is said in one line."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from sbcore.errors import SparseBalanceError

Value = TypeVar("Value")

_MEMBERS = ("int", "float")  # of a union: pydantic names the one it tried like a key
_VALUELESS = ("missing", "json_invalid")


def read_checked(path: Path, form: TypeAdapter[Value]) -> Value:
    """Returns the value of a json file.

    Raises:
        SparseBalanceError: There is no such file, or it is not as ``form`` says.
    """
    if not path.is_file():
        raise SparseBalanceError(
            f"{path}: missing. give the folder as the benchmark's authors ship it."
        )
    try:
        return form.validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise SparseBalanceError(
            f"{path}: {first_mistake(error, whole='file')}. correct it."
        ) from error


def first_mistake(error: ValidationError, *, whole: str) -> str:
    """Returns ``key = value: what is wrong`` for the first mistake that pydantic found.

    ``whole`` is the word for what was checked, which is the key when all of it is wrong.
    """
    first = error.errors()[0]
    parts = [part for part in first["loc"] if part not in _MEMBERS]
    in_list = bool(parts) and isinstance(parts[0], int)
    key = ("record " if in_list else "") + (".".join(map(str, parts)) or whole)
    value = "" if first["type"] in _VALUELESS else f" = {_short(first['input'])}"
    return f"{key}{value}: {first['msg'].lower()}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
