"""What must be there before anything starts: configured paths, and those that own data need."""

from collections.abc import Iterator
from pathlib import Path

from sbcore.config.schema import Config
from sbcore.errors import ConfigError


def check_paths(config: Config) -> None:
    """Raises ConfigError with a line for every path that is not there, or not named but needed."""
    missing = [
        f"configuration: {key} = {path}: no such {kind}. paths start at the checkout, correct it."
        for key, path, kind in _paths(config)
        if not (Path(path).is_file() if kind == "file" else Path(path).is_dir())
    ]
    if config.data.files:
        missing += _unnamed(config)
    if missing:
        raise ConfigError("\n".join(missing))


def _unnamed(config: Config) -> Iterator[str]:
    """Yields a line for each path that the demo makes for itself and own data must come with."""
    if config.data.tokenizer is None and config.model.path is None:
        yield (
            "configuration: data.tokenizer = None: data.files need a tokenizer. "
            "name a Hugging Face directory, or a model.path that holds one."
        )
    evaluate = config.evaluate
    if evaluate.tasks and evaluate.longbench is None and not evaluate.made_sets:
        yield (
            "configuration: evaluate.longbench = None: the demo's tasks fit the demo's tokenizer "
            "only. name a LongBench folder, or one with a tasks.json, and evaluate.tasks in it; "
            "evaluate.niah: {} makes tasks; evaluate.tasks: [] goes without an evaluation."
        )


def _paths(config: Config) -> Iterator[tuple[str, str, str]]:
    for index, file in enumerate(config.data.files):
        yield f"data.files.{index}", file, "file"
    folders = {
        "data.tokenizer": config.data.tokenizer,
        "model.path": config.model.path,
        "evaluate.longbench": config.evaluate.longbench,
        "evaluate.longbench_v2": config.evaluate.longbench_v2,
    } | {f"evaluate.ruler_files.{n}": path for n, path in config.evaluate.ruler_files.items()}
    for key, folder in folders.items():
        if folder is not None:
            yield key, folder, "folder"
    if config.demo.lengths.csv is not None:
        yield "demo.lengths.csv", config.demo.lengths.csv, "file"
