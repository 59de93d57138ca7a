"""Reads a configuration and reports every wrong value at once, each with its place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from sbcore.artifacts import read_json
from sbcore.config.mistakes import describe_error
from sbcore.config.schema import Config
from sbcore.config.section import Section
from sbcore.config.source import read_source
from sbcore.errors import ConfigError, SparseBalanceError

StageT = TypeVar("StageT", bound=Section)


def load_config(path: Path) -> Config:
    """Returns the validated configuration; raises ConfigError with all its mistakes."""
    return parse_config(read_yaml(path), [path])


def parse_config(values: Mapping[str, Any], files: Sequence[Path]) -> Config:
    """Returns the configuration of merged values; files are those they came from."""
    sources = [read_source(file) for file in files]
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [describe_error(details, sources) for details in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def load_stage(path: Path, stage: type[StageT]) -> StageT:
    """Returns one stage's part, as `sb freeze` wrote it; raises SparseBalanceError for another."""
    if path.suffix in (".yaml", ".yml"):
        raise SparseBalanceError(
            f"{path}: a whole configuration, this command reads a stage's part of it. "
            f"write the parts: sb freeze {path} --out FOLDER"
        )
    try:
        return stage.model_validate(read_json(path))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise SparseBalanceError(
            f"{path}: {where}: another stage's part, or does not fit this version. "
            f"write the parts: sb freeze CONFIG --out {path.parent}"
        ) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns a yaml file's mapping; raises ConfigError for a missing or broken file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. copy config/demo.yaml and edit it.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not yaml: {error.problem}. correct it.") from None
    except (UnicodeDecodeError, yaml.reader.ReaderError):
        raise ConfigError(f"{path}: not a text in utf-8. save it as one.") from None
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{path}:1: a list or a word, not keys. write 'key: value' lines.")
    return values or {}
