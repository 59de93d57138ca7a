"""Paths in a configuration that must exist before anything starts."""

from collections.abc import Iterator
from pathlib import Path

from sbcore.config.schema import Config
from sbcore.errors import ConfigError


def check_paths(config: Config) -> None:
    """Raises ConfigError with a line for every configured path that is not there."""
    missing = [
        f"configuration: {key} = {path}: no such {kind}. paths start at the checkout, correct it."
        for key, path, kind in _paths(config)
        if not (Path(path).is_file() if kind == "file" else Path(path).is_dir())
    ]
    if missing:
        raise ConfigError("\n".join(missing))


def _paths(config: Config) -> Iterator[tuple[str, str, str]]:
    for index, file in enumerate(config.data.files):
        yield f"data.files.{index}", file, "file"
    folders = {
        "data.tokenizer": config.data.tokenizer,
        "model.path": config.model.path,
        "evaluate.longbench": config.evaluate.longbench,
    }
    for key, folder in folders.items():
        if folder is not None:
            yield key, folder, "folder"
    if config.demo.lengths.csv is not None:
        yield "demo.lengths.csv", config.demo.lengths.csv, "file"
