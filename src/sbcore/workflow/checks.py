"""What is refused before anything starts: paths that are not there, what stages refuse later."""

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

from sbcore.config.schema import Config
from sbcore.config.source import Keys, SourceFile, place_of, read_source
from sbcore.errors import ConfigError
from sbcore.workflow.foreseen import foreseen


def check_beforehand(config: Config, files: Sequence[Path]) -> None:
    """Raises ConfigError with a line for every path that is not there, or not named but needed.

    What a stage would refuse later (`foreseen`) is said with them. Lines begin with the place in
    the files that the configuration was read from.
    """
    sources = [read_source(file) for file in files]
    missing = [
        f"{place_of(keys, path, sources)}: {'.'.join(map(str, keys))} = {path}: no such {kind}. "
        "paths start at the checkout, correct it."
        for keys, path, kind in _paths(config)
        if not (Path(path).is_file() if kind == "file" else Path(path).is_dir())
    ]
    if config.data.files:
        place = place_of(("data", "files"), None, sources)
        missing += [f"{place}: {line}" for line in _unnamed(config)]
    missing += [
        f"{_place(keys, value, sources)}: {'.'.join(map(str, keys))} = {value}: {wrong}"
        for keys, value, wrong in foreseen(config)
    ]
    if missing:
        raise ConfigError("\n".join(missing))


def _place(keys: Keys, value: object, sources: Sequence[SourceFile]) -> str:
    """Returns the place of a value; the file where it is a default that nobody wrote."""
    written = any(
        keys[:depth] in file.lines for file in sources for depth in (len(keys) - 1, len(keys))
    )
    is_default = value == reduce(getattr, map(str, keys), Config())
    if is_default and not written and sources:
        return str(sources[0].path)
    return place_of(keys, value, sources)


def _unnamed(config: Config) -> Iterator[str]:
    """Yields a line for each path that the demo makes for itself and own data must come with."""
    if config.data.tokenizer is None and config.model.path is None:
        yield (
            "data.tokenizer = None: data.files need a tokenizer. "
            "name a Hugging Face directory, or a model.path that holds one."
        )
    evaluate = config.evaluate
    if evaluate.tasks and evaluate.longbench is None and not evaluate.made_sets:
        yield (
            "evaluate.longbench = None: the demo's tasks fit the demo's tokenizer "
            "only. name a LongBench folder, or one with a tasks.json, and evaluate.tasks in it; "
            "evaluate.niah: {} makes tasks; evaluate.tasks: [] goes without an evaluation."
        )


def _paths(config: Config) -> Iterator[tuple[Keys, str, str]]:
    for index, file in enumerate(config.data.files):
        yield ("data", "files", index), file, "file"
    evaluate = config.evaluate
    folders: dict[Keys, str | None] = {
        ("data", "tokenizer"): config.data.tokenizer,
        ("model", "path"): config.model.path,
        ("evaluate", "longbench"): evaluate.longbench,
        ("evaluate", "longbench_v2"): evaluate.longbench_v2,
    }
    folders |= {("evaluate", "ruler_files", str(n)): it for n, it in evaluate.ruler_files.items()}
    for keys, folder in folders.items():
        if folder is not None:
            yield keys, folder, "folder"
    if config.latency.table is not None:
        yield ("latency", "table"), config.latency.table, "file"
    if config.demo.lengths.csv is not None:
        yield ("demo", "lengths", "csv"), config.demo.lengths.csv, "file"
