"""Which file of a Hugging Face directory holds which weight, and whether they fit the model.

Errors name the directory or its file: who asks may have it from model.path, from a command line,
or from the demo, which makes its own.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbcore.errors import SparseBalanceError

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"

_NAMED = 3
"""Weights that an error names before it only counts them."""


def read_architecture(folder: Path) -> dict[str, Any]:
    """Returns config.json of a model directory.

    Raises:
        SparseBalanceError: It is missing, or holds something else.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise SparseBalanceError(
            f"{folder}: not a model directory, config.json is missing. "
            "give a Hugging Face directory."
        )
    return _read_object(path, "the configuration of a model")


def weight_files(folder: Path) -> dict[str, Path]:
    """Returns the file of every weight in the directory, by the weight's name.

    Raises:
        SparseBalanceError: There are no safetensors, or the index names a missing file.
    """
    one = folder / ONE_FILE
    if one.is_file():
        with opened(one) as file:
            return dict.fromkeys(file.keys(), one)
    if (base := base_folder(folder)) is not None:
        raise SparseBalanceError(
            f"{folder}: adapters, not a whole model. save them merged to train on, "
            f"or start from {base}."
        )
    if not (folder / INDEX).is_file():
        raise SparseBalanceError(
            f"{folder}: no {ONE_FILE} and no {INDEX}. convert the weights to "
            "safetensors: load and save them with transformers."
        )
    files = {name: folder / Path(file).name for name, file in _weight_map(folder / INDEX).items()}
    missing = sorted({file.name for file in files.values() if not file.is_file()})
    if missing:
        raise SparseBalanceError(
            f"{folder / INDEX}: {listed(missing)} not in the directory. copy the whole model."
        )
    return files


def base_folder(folder: Path) -> Path | None:
    """Returns the directory that saved adapters stand beside; None for a whole model."""
    path = folder / "adapter_config.json"
    if (folder / "config.json").is_file() or not path.is_file():
        return None
    base = _read_object(path, "the configuration of adapters").get("base_model_name_or_path")
    if not isinstance(base, str):
        raise SparseBalanceError(
            f"{path}: base_model_name_or_path = {base}: no directory. name that of the base model."
        )
    return Path(base)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yields the open safetensors file; a torn one is refused by name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise SparseBalanceError(
            f"{path}: not a whole safetensors file: {error}. copy it again."
        ) from None


def check_names(folder: Path, *, found: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuses a directory that lacks weights of the model or has more than it."""
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise SparseBalanceError(
            f"{folder}: weights missing: {listed(missing)}. "
            "config.json and the weights must be of one model."
        )
    unexpected = sorted(set(found) - set(wanted))
    if unexpected:
        raise SparseBalanceError(
            f"{folder}: weights that the model does not have: {listed(unexpected)}. "
            "config.json and the weights must be of one model."
        )


def listed(names: list[str]) -> str:
    """Returns the first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _weight_map(path: Path) -> Mapping[str, str]:
    weights = _read_object(path, "an index of weights").get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise SparseBalanceError(f"{path}: weight_map: missing or empty. copy the whole model.")
    odd = sorted(name for name, file in weights.items() if not isinstance(file, str))
    if odd:
        raise SparseBalanceError(f"{path}: {listed(odd)}: no file's name. copy the whole model.")
    return weights


def _read_object(path: Path, what: str) -> dict[str, Any]:
    """Returns a file of the directory; no stage writes it, so another one must be brought."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # neither json nor text
        value = None
    except OSError as error:
        raise SparseBalanceError(
            f"{path}: {error.strerror}: cannot be read. change its permissions."
        ) from None
    if not isinstance(value, dict):
        raise SparseBalanceError(f"{path}: not {what}. copy it again.")
    return value
